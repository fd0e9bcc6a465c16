"""Training one agent on one task with many independent seeds, and their learning curves."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.core.checks import check_whole
from seqrl.core.seeding import Streams
from seqrl.envs.adapter import Environments, adapt
from seqrl.training.loop.books import WINDOW, Episode
from seqrl.training.loop.detect import CALL, RUNS, compiled_turns
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback
from seqrl.training.loop.train import run_to
from seqrl.training.statistics import bootstrap, count, iqm, mean

POINTS = 256  # of a curve, at most; at least half as many where the run is long enough
CHECK_INTERVAL = 1_000  # env steps between two checks whether stepped runs are to end

MakeAgent = Callable[[Environments, int], Agent]
Finished = Callable[[int, Interaction], None]


class Curve:
    """A recorder of the mean return of the last 100 episodes, in constant memory.

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
        self._coarsen(int(steps[-1]))
        grid = np.arange(1, POINTS + 1) * self.spacing
        first = int(np.searchsorted(grid, steps[0]))  # the values before are known already
        window = np.concatenate([np.zeros(1), self._recent, totals])
        total = np.cumsum(window)
        # as `resample` without its checks: it runs for every seed
        end = np.searchsorted(steps, grid[first:], side="right") + len(self._recent)
        begin = np.maximum(end - WINDOW, 0)
        self.values[first:] = (total[end] - total[begin]) / (end - begin)
        self._recent = window[1:][-(WINDOW - 1) :].copy()  # a copy, which frees the rest

    def end(self, step: int) -> None:
        """End the curve at env step `step`: values beyond it are NaN."""
        self._coarsen(step)
        self.values[step // self.spacing :] = np.nan

    def every(self, spacing: int, beyond: float = np.nan) -> np.ndarray:
        """Return the values at the multiples of a coarser spacing [POINTS], and `beyond` them."""
        factor = spacing // self.spacing
        kept = self.values[factor - 1 :: factor]
        return np.append(kept, np.full(POINTS - len(kept), beyond))

    def _coarsen(self, step: int) -> None:
        spacing = self.spacing
        while step > POINTS * spacing:
            spacing *= 2
        if spacing > self.spacing:
            self.values, self.spacing = self.every(spacing, self.values[-1]), spacing


class SeedRun(NamedTuple):
    """The result of the run of one seed."""

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
        """Return mean, IQM, count and the mean's 95 % interval of the runs at each step [G].

        The interval is the bootstrap's (see `statistics`); NaN where only one run is left.
        """
        value, low, high = bootstrap(self.curves, mean)
        found = {"mean": value, "iqm": iqm(self.curves), "low": low, "high": high}
        return {**found, "count": count(self.curves)}


def collect(done: list[SeedRun]) -> Runs:
    """Return the runs in the order of their seeds, with their curves on the coarsest grid."""
    done = sorted(done, key=lambda run: run.seed)
    seed, steps, episodes, ep_rew_mean = (np.array([run[k] for run in done]) for k in range(4))
    spacing = max((run.curve.spacing for run in done), default=1)
    curves = np.array([run.curve.every(spacing) for run in done]).reshape(-1, POINTS)
    points = min(POINTS, max((run.steps for run in done), default=0) // spacing)
    grid = spacing * np.arange(1, points + 1)
    return Runs(seed, steps, episodes, ep_rew_mean, grid, curves[:, :points])


class SeedTrainer(Callback):
    """Trains seeds 0 to K-1, each the same run to the last bit as `train(..., seed=s)`.

    Where the pair can be compiled, `threads` runs go on at once: compiled turns release Python's
    lock. Else they go one after the other, and `path` says why. Only curves and counters are kept.
    """

    every = CHECK_INTERVAL

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
        self.stopped = False  # may be set from outside; seeds under way are dropped then
        self.seconds = 0.0
        self.done: list[SeedRun] = []
        envs = adapt(make_envs())
        first = Interaction(make_agent(envs, 0), envs)
        first.reset()
        found, reason = compiled_turns(first) if compile else (None, "as asked for")
        self.compiled = found is not None
        self.path = f"{'compiled' if found else 'stepped, one after the other'}: {reason}"
        self.threads = (threads or os.cpu_count() or 1) if found else 1

    def interrupt(self, times: int = 1) -> bool:
        """Drop the seeds under way; return whether to raise KeyboardInterrupt now."""
        self.stopped = True
        return times > 1

    def run(self, seeds: int, progress: Callable[[int], object] = lambda done: None) -> Runs:
        """Train the seeds; `progress` is called with the number done, some times a second."""
        began = time.perf_counter()
        todo = iter(range(seeds))
        with ThreadPoolExecutor(self.threads) as pool:
            futures = [pool.submit(self._train_seeds, todo) for _ in range(self.threads)]
            try:
                while wait(futures, 0.2).not_done:
                    progress(len(self.done))
            finally:
                if not all(future.done() for future in futures):  # a signal may have set it
                    self.stopped = True
        self.seconds = time.perf_counter() - began
        for future in futures:
            future.result()
        progress(len(self.done))
        return collect(self.done)

    def _train_seeds(self, todo: Iterator[int]) -> None:
        """Train the next seed until none is left; an error ends all threads."""
        try:
            train = self._run_compiled if self.compiled else self._run_stepped
            train(todo)
        except BaseException:
            self.stopped = True
            raise

    def _run_compiled(self, todo: Iterator[int]) -> None:
        """Train batches of seeds in the same environments, which are slow to make."""
        envs = adapt(self.make_envs())
        turns = compiled_turns(self._make_loop(0, envs))[0]
        assert turns is not None
        batch = 1  # then as many as one call is likely to finish
        while seeds := list(islice(self._until_stopped(todo), batch)):
            loops, runs = [], []
            for at, seed in enumerate(seeds):  # the next loop resets the same environments
                loops.append(self._make_loop(seed, envs))
                runs.append(turns.begin(loops[at], at))
            while runs:
                played = turns.play(runs, self.steps - envs.num_envs + 1)
                runs = [run for run in played if not self._end(seeds[run.at], loops[run.at])]
            batch = min(RUNS, max(1, CALL // max(1, *(loop.steps for loop in loops))))
        turns.check()

    def _end(self, seed: int, loop: Interaction) -> bool:
        """End and record a run of which no whole turn is left; return whether it is one."""
        steps_left, going = self.steps - loop.steps, not (loop.stopped or self.stopped)
        if going and steps_left >= loop.envs.num_envs:
            return False
        if going:
            loop.run(steps_left)
        self._record(seed, loop)
        return True

    def _run_stepped(self, todo: Iterator[int]) -> None:
        for seed in self._until_stopped(todo):
            loop = self._make_loop(seed, adapt(self.make_envs()))
            loop.compile = False
            loop.callbacks.append(self)
            run_to(loop, self.steps, episodes=self.episodes)
            loop.envs.close()
            self._record(seed, loop)

    def __call__(self, loop: Interaction) -> None:
        """End a stepped run when the trainer is stopped."""
        loop.stopped = loop.stopped or self.stopped

    def _until_stopped(self, todo: Iterator[int]) -> Iterator[int]:
        while not self.stopped and (seed := next(todo, None)) is not None:
            yield seed

    def _make_loop(self, seed: int, envs: Environments) -> Interaction:
        streams, agent = Streams.of(seed), self.make_agent(envs, seed)
        loop = Interaction(agent, envs, recorder=Curve())
        loop.reset(streams.envs)
        agent.reseed(streams.agent)
        agent.horizon = self.steps
        loop.books.wanted = self.episodes
        return loop

    def _record(self, seed: int, loop: Interaction) -> None:
        if self.stopped:
            return
        curve: Any = loop.recorder
        curve.end(loop.steps)
        books = loop.books
        found = SeedRun(seed, loop.steps, books.episodes, books.ep_rew_mean, curve)
        if self.finished is not None:
            self.finished(seed, loop)
        self.done.append(found)


def train_seeds(
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
    `finished(seed, loop)` is called in the run's thread when it has ended, to inspect or save
    the agent; its environments are used again. Memory does not grow with `steps`.
    """
    for name, number in (("seeds", seeds), ("steps", steps), ("threads", threads or 1)):
        check_whole(name, number)
    options = {"episodes": episodes, "threads": threads, "compile": compile, "finished": finished}
    return SeedTrainer(make_agent, make_envs, int(steps), **options).run(int(seeds))  # type: ignore[arg-type]
