"""Many runs of one agent on one task: independent seeds side by side, and their curves as one."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents import Agent
from seqrl.core import UsageError
from seqrl.core.seeding import Streams
from seqrl.envs import Environments, adapt
from seqrl.training.interaction import WINDOW, Episode, Interaction
from seqrl.training.native import CALL, RUNS, native
from seqrl.training.statistics import bootstrap, count, iqm, mean
from seqrl.training.training import run

POINTS = 256  # of a curve, at most; at least half as many where the run is long enough
CHECK = 1_000  # env steps between two looks at whether stepped runs are to end

MakeAgent = Callable[[Environments, int], Agent]
Finished = Callable[[int, Interaction], None]


class Curve:
    """A recorder that keeps the mean return of the last 100 episodes, however long the run.

    Its values stand at the multiples of `spacing`, a power of two that doubles when the run
    outgrows POINTS of them: curves of any lengths meet on the coarsest of their grids, exactly.
    """

    due = math.inf  # compiled turns hand over all episodes at once

    def __init__(self) -> None:
        self.spacing = 1
        self.values = np.full(POINTS, np.nan)
        self._recent = np.zeros(0)

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """Add one episode."""
        self.episodes(*(np.array([x]) for x in (episode.step, episode.total, episode.length)))

    def episodes(self, steps: np.ndarray, totals: np.ndarray, lengths: np.ndarray) -> None:
        """Add episodes in the order in which they ended."""
        if not len(steps):
            return
        self._widen(int(steps[-1]))
        grid = self._grid()
        first = int(np.searchsorted(grid, steps[0]))  # what stands before is known already
        window = np.concatenate([np.zeros(1), self._recent, totals])
        total = np.cumsum(window)
        # `resample`, without its checks: it runs for every seed
        end = np.searchsorted(steps, grid[first:], side="right") + len(self._recent)
        begin = np.maximum(end - WINDOW, 0)
        self.values[first:] = (total[end] - total[begin]) / (end - begin)
        self._recent = window[1:][-(WINDOW - 1) :].copy()  # not the whole of a long call

    def end(self, step: int) -> None:
        """The run has ended: nothing is known beyond."""
        self._widen(step)
        self.values[step // self.spacing :] = np.nan

    def every(self, spacing: int) -> np.ndarray:
        """The values at the multiples of a coarser spacing [POINTS]."""
        times = spacing // self.spacing
        kept = self.values[times - 1 :: times]
        return np.append(kept, np.full(POINTS - len(kept), np.nan))

    def _grid(self) -> np.ndarray:
        return np.arange(1, POINTS + 1) * self.spacing

    def _widen(self, step: int) -> None:
        times = 1
        while step > POINTS * self.spacing * times:
            times *= 2
        if times > 1:
            kept = self.values[times - 1 :: times]
            self.values = np.append(kept, np.full(POINTS - len(kept), self.values[-1]))
            self.spacing *= times


class One(NamedTuple):
    """How the run of a seed ended."""

    seed: int
    steps: int
    episodes: int
    ep_rew_mean: float  # last 100 episodes
    curve: Curve


class Runs(NamedTuple):
    """K runs in the order of their seeds, and their learning curves on one grid of G env steps."""

    seed: np.ndarray  # [K]
    steps: np.ndarray  # [K] env steps done
    episodes: np.ndarray  # [K] episodes finished
    ep_rew_mean: np.ndarray  # [K] of the last 100 episodes
    grid: np.ndarray  # [G]
    curves: np.ndarray  # [K, G] mean return of the last 100 episodes, NaN before and after the run

    def summary(self) -> dict[str, np.ndarray]:
        """Over the runs that are there at each step [G]: mean, IQM, how many, and the mean's 95 %.

        The interval is the bootstrap's (see `statistics`); NaN where a single run is left.
        """
        found = bootstrap(self.curves, mean)
        return {
            "mean": found.value,
            "iqm": iqm(self.curves),
            "low": found.low,
            "high": found.high,
            "count": count(self.curves),
        }


def collect(done: list[One]) -> Runs:
    """The runs by seed, with their curves on the coarsest grid."""
    done = sorted(done, key=lambda one: one.seed)
    seed, steps, episodes, last = (np.array([one[k] for one in done]) for k in range(4))
    spacing = max((one.curve.spacing for one in done), default=1)
    curves = np.array([one.curve.every(spacing) for one in done]).reshape(-1, POINTS)
    points = min(POINTS, max((one.steps for one in done), default=0) // spacing)
    grid = spacing * np.arange(1, points + 1)
    return Runs(seed, steps, episodes, last, grid, curves[:, :points])


class Many:
    """Plays seeds 0 to K-1, each the same run to the last bit as `train(..., seed=s)`.

    Where the pair can be compiled, `threads` runs go on at once: compiled turns let go of Python's
    lock. Else they go one after the other, and `path` says why. Only curves and counters are kept.
    """

    def __init__(
        self,
        make_agent: MakeAgent,
        make_envs: Callable[[], Any],
        steps: int,
        *,
        episodes: int | None = None,
        threads: int | None = None,
        compile: bool = True,
        finished: Finished | None = None,
    ):
        self.make_agent, self.make_envs = make_agent, make_envs
        self.steps, self.episodes, self.finished = steps, episodes, finished
        self.stopped = False  # set by whoever wants it to end; seeds under way are dropped
        self.seconds = 0.0
        self.done: list[One] = []
        envs = adapt(make_envs())
        first = Interaction(make_agent(envs, 0), envs)
        first.reset()
        found, reason = native(first) if compile else (None, "as asked for")
        self.compiled = found is not None
        self.path = f"{'compiled' if found else 'stepped, one after the other'}: {reason}"
        self.threads = (threads or os.cpu_count() or 1) if found else 1

    def run(self, seeds: int, progress: Callable[[int], object] = lambda done: None) -> Runs:
        """Play the seeds; `progress` hears of how many are done, some times a second."""
        before = time.perf_counter()
        todo, done = iter(range(seeds)), self.done
        with ThreadPoolExecutor(self.threads) as pool:
            lanes = [pool.submit(self._lane, todo, done) for _ in range(self.threads)]
            try:
                while wait(lanes, 0.2).not_done:
                    progress(len(done))
            finally:
                if not all(lane.done() for lane in lanes):  # never False: a signal may set it
                    self.stopped = True
        self.seconds = time.perf_counter() - before
        for lane in lanes:
            lane.result()
        progress(len(done))
        return collect(self.done)

    def _lane(self, todo: Iterator[int], done: list[One]) -> None:
        """Play whichever seed comes next, until none is left; what goes wrong ends all lanes."""
        try:
            if self.compiled:
                self._play_compiled(todo, done)
            else:
                self._play_stepped(todo, done)
        except BaseException:
            self.stopped = True
            raise

    def _play_compiled(self, todo: Iterator[int], done: list[One]) -> None:
        """Some seeds at a time in the same environments: making them would take the longest."""
        envs = adapt(self.make_envs())
        turns = native(self._begin(0, envs))[0]
        assert turns is not None
        size = 1  # then as many as one call is likely to bring to their end
        while seeds := list(islice(self._until_stopped(todo), size)):
            batch = runs = [turns.begin(self._begin(s, envs), at) for at, s in enumerate(seeds)]
            while runs:
                played = turns.play(runs, self.steps - envs.num_envs + 1)
                runs = [run for run in played if not self._over(seeds[run.at], run.loop, done)]
            longest = max(run.loop.steps for run in batch)
            size = min(RUNS, max(1, CALL // max(1, longest)))
        turns.check()

    def _over(self, seed: int, loop: Interaction, done: list[One]) -> bool:
        """Whether no whole turn is left of a run, which is then ended and kept."""
        left, going = self.steps - loop.steps, not (loop.stopped or self.stopped)
        if going and left >= loop.envs.num_envs:
            return False
        if going:
            loop.run(left)
        self._keep(seed, loop, done)
        return True

    def _play_stepped(self, todo: Iterator[int], done: list[One]) -> None:
        for seed in self._until_stopped(todo):
            loop = self._begin(seed, adapt(self.make_envs()))
            loop.compile = False
            loop.callbacks.append(Listening(self))
            run(loop, self.steps, episodes=self.episodes)
            loop.envs.close()
            self._keep(seed, loop, done)

    def _until_stopped(self, todo: Iterator[int]) -> Iterator[int]:
        while not self.stopped and (seed := next(todo, None)) is not None:
            yield seed

    def _begin(self, seed: int, envs: Environments) -> Interaction:
        streams = Streams.of(seed)
        agent = self.make_agent(envs, seed)
        loop = Interaction(agent, envs, recorder=Curve())
        loop.reset(streams.envs)
        agent.reseed(streams.agent)
        agent.horizon = agent.horizon or self.steps
        loop.episodes_wanted = self.episodes
        return loop

    def _keep(self, seed: int, loop: Interaction, done: list[One]) -> None:
        if self.stopped:
            return
        curve: Any = loop.recorder
        curve.end(loop.steps)
        totals = [total for total, _ in loop.recent]
        last = sum(totals) / len(totals) if totals else math.nan
        if self.finished is not None:
            self.finished(seed, loop)
        done.append(One(seed, loop.steps, loop.episodes, last, curve))


class Listening:
    """A callback that ends a run when all are to end."""

    every = CHECK

    def __init__(self, many: Many):
        self.many = many

    def __call__(self, loop: Interaction) -> None:
        """End it, if so."""
        loop.stopped = loop.stopped or self.many.stopped

    def state_dict(self) -> dict[str, Any]:
        """Nothing that a run depends on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def train_many(
    make_agent: MakeAgent,
    make_envs: Callable[[], Any],
    seeds: int = 1000,
    *,
    steps: int,
    episodes: int | None = None,
    threads: int | None = None,
    compile: bool = True,
    finished: Finished | None = None,
) -> Runs:
    """Train seeds 0 to `seeds` - 1, each exactly as `train(agent, envs, steps, seed=s)` would.

    `make_agent(envs, seed)` makes a fresh agent and `make_envs()` what `train` takes. Several run
    at once in `threads` threads (default: one a CPU) where agent and environment can be compiled.
    `finished(seed, loop)` is called in the run's thread when it has ended: to look at or keep the
    agent; the environments go on to the next seed. Memory does not grow with `steps`.
    """
    for name, number in (("seeds", seeds), ("steps", steps), ("threads", threads or 1)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise UsageError(f"{name} {number!r}: expected a whole number of at least 1")
    options = {"episodes": episodes, "threads": threads, "compile": compile, "finished": finished}
    return Many(make_agent, make_envs, int(steps), **options).run(int(seeds))  # type: ignore[arg-type]
