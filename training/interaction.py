"""The loop: an agent in N environments, one turn after the other. It moves data, nothing else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from seqrl.agents import Agent
from seqrl.core import Array, Metrics, RunError, State, Transition, UsageError, forms, tree
from seqrl.envs import Outcome, adapt, get_state, set_state
from seqrl.training.native import Native, native

WINDOW = 100  # episodes in the running means
WORTHWHILE = 100_000  # env steps from which compiled turns make up for their start


class Callback(Protocol):
    """Something to do every so many env steps: evaluate, save."""

    every: int

    def __call__(self, loop: Interaction) -> None:
        """Called at the end of the first turn that reaches each multiple of `every`."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive an interruption, as arrays and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""


class Episode(NamedTuple):
    """An episode that has ended."""

    step: int  # env step of its last row
    row: int  # which of the N environments
    total: float  # undiscounted return
    length: int  # env steps
    truncated: bool  # cut off rather than over


class Recorder(Protocol):
    """Hears of every finished episode: a logger, an evaluation.

    One with `episodes(steps, totals, lengths)` and `due` is handed those that end before env step
    `due` all at once where the turns are compiled.
    """

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """Called in the order in which episodes end."""


class Stopwatch:
    """Seconds spent between `start` and `stop`."""

    def __init__(self) -> None:
        self._spent, self._since = 0.0, -1.0

    def add(self, seconds: float) -> None:
        """Count what was spent before, in another process."""
        self._spent += seconds

    def start(self) -> None:
        """Go on counting."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Pause."""
        self._spent, self._since = self.seconds, -1.0

    @property
    def seconds(self) -> float:
        """What has been counted until now."""
        return self._spent + (time.perf_counter() - self._since if self._since >= 0 else 0.0)


class Interaction:
    """Agent x environments.

    `learn=False` plays greedily and teaches nothing (evaluation). `max_episode_steps` cuts any
    episode that reaches it (a truncation). `steps` counts valid env steps, N a turn.
    """

    def __init__(
        self,
        agent: Agent,
        envs: Any,
        *,
        learn: bool = True,
        max_episode_steps: int | None = None,
        callbacks: Sequence[Callback] = (),
        recorder: Recorder | None = None,
        compile: bool = True,
    ):
        self.agent = agent
        self.envs = adapt(envs)
        self._n = self.envs.num_envs
        self.compile = compile
        self.reason = f"below {WORTHWHILE:,} env steps" if compile else "as asked for"
        self._native: Native | None = None
        self.preparing = False  # while compiling, which may take seconds the first time
        self.learning = learn
        self.max_episode_steps = max_episode_steps
        self.callbacks = list(callbacks)
        self.recorder = recorder
        self.steps = 0
        self.episodes = 0
        self.episodes_wanted: int | None = None  # the loop ends after as many
        self.recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self.metrics: dict[str, Any] = {}
        self._metrics: Metrics = {}
        self.watch = Stopwatch()  # acting, learning and recording, without the callbacks
        self.stopped = False  # set by whoever wants the loop to end after this turn
        self.paused = False  # the same, by who will let it go on
        self._owed: list[int] = []  # callbacks that are due and have not been called through
        self.obs: Array = None
        self.start: Array = None
        self.state: State = None
        self._surplus: Transition | None = None  # rows of a turn that an exact end left over

    def reset(self, seed: np.random.SeedSequence | None = None) -> None:
        """Begin new episodes everywhere with empty memories; counters go on."""
        self.obs = self.envs.reset(seed)
        self.start = rows_of_true(next(tree.leaves(self.obs)))
        self.returns = self.start * 0.0
        self.lengths = self.start * 0
        self.state = None
        self._surplus = None

    def run(self, steps: int) -> None:
        """Exactly `steps` env steps, or fewer where `stopped` or `paused` is set.

        Where the last turn has more rows than are left, the surplus rows (highest index) are not
        valid in it; they are learned from first when the run goes on.
        """
        check_callbacks(self.callbacks)
        if self.obs is None:
            self.reset()
        self._settle()
        target = self.steps + steps
        due = self._due()
        native = self._look_for_native(steps)
        self.watch.start()
        while self.steps < target and not (self.stopped or self.paused):
            before = self.steps
            if native is not None and self._surplus is None and target - before >= self._n:
                native.advance(int(min(due, target - self._n + 1)))
            else:
                self._step(target - before)
            if self.steps >= due:
                self.watch.stop()
                self._call_back(before)
                due = self._due()
                self.watch.start()
        self.watch.stop()
        if native is not None:
            native.check()

    def _step(self, most: int) -> None:
        """One turn, of which at most `most` rows are taken."""
        step, count, ended = self.turn() if self._surplus is None else self._left_over()
        if count > most:
            step, self._surplus = split(step, most)
            count = most
        self._take(step, count, ended)

    def _look_for_native(self, steps: int) -> Native | None:
        """What runs the turns compiled, where the run is long enough to pay for it."""
        if not (self.compile and self.learning and steps >= WORTHWHILE):
            return None
        if self._native is None:
            self.preparing = True
            try:
                self._native, self.reason = native(self)
            finally:
                self.preparing = False
        if self._native is not None:
            self._native.check()
            self.metrics.update(self._native.agent.readings)
        return self._native

    @property
    def compiled(self) -> bool:
        """Whether the turns of a run were compiled."""
        return self._native is not None

    @property
    def path(self) -> str:
        """Which way the turns go, and why."""
        return f"{'compiled' if self.compiled else 'stepped'}: {self.reason}"

    def _left_over(self) -> tuple[Transition, int, bool]:
        """The rows that the end of the last run had no room for."""
        assert self._surplus is not None
        step, self._surplus = self._surplus, None
        return step, int(step.valid.sum()), True

    def turn(self) -> tuple[Transition, int, bool]:
        """Act and step once; the transition, its number of valid rows, whether an episode ended."""
        obs, start, state = self.obs, self.start, self.state
        decision = self.agent.act(obs, start, state, explore=self.learning)
        try:
            outcome = self.envs.step(decision.action)
        except RunError as error:
            raise RunError(f"at env step {self.steps + 1}: {error}") from error
        if outcome.ended and outcome.real < self._n:
            lost = outcome.truncated & ~outcome.valid  # with the process that played it
            self.returns[lost] = self.lengths[lost] = 0
        if self.max_episode_steps is not None:
            outcome = self._cut(outcome)
        self.obs, self.start, self.state = outcome.obs, outcome.start, decision.state
        step = Transition(
            obs,
            start,
            state,
            decision.state,
            decision.action,
            decision.log_prob,
            outcome.reward,
            outcome.terminated,
            outcome.truncated,
            outcome.next_obs,
            outcome.valid,
        )
        return step, outcome.real, outcome.ended

    def _cut(self, outcome: Outcome) -> Outcome:
        over = (self.lengths + outcome.valid) >= self.max_episode_steps
        over = over & outcome.valid & ~(outcome.terminated | outcome.truncated)
        return self.envs.restart(over, outcome) if bool(over.any()) else outcome

    def _take(self, step: Transition, count: int, ended: bool) -> None:
        """Learn from a turn and keep the books."""
        if count == self._n:
            self.returns += step.reward
            self.lengths += 1
        else:
            self.returns += step.reward * step.valid
            self.lengths += step.valid
        if self.learning:
            try:
                metrics = self.agent.learn(step)
            except RunError as error:
                raise RunError(f"at env step {self.steps + 1}: {error}") from error
            if metrics is not self._metrics:  # the same readings need no second look
                self.metrics.update(metrics or {})
                self._metrics = metrics
        before = self.steps
        self.steps += count
        if ended:
            self._finish(step, before, count)

    def _finish(self, step: Transition, before: int, count: int) -> None:
        """Record the episodes that ended; each at the env step of its own row."""
        over = (step.terminated | step.truncated) & step.valid
        rows = np.flatnonzero(host(over)).tolist()
        if not rows:
            return
        whole = count == self._n
        rank = range(1, count + 1) if whole else host(step.valid).cumsum().tolist()
        returns, lengths = host(self.returns), host(self.lengths)
        for i in rows:
            cut = not bool(step.terminated[i])
            self._record(Episode(before + rank[i], i, float(returns[i]), int(lengths[i]), cut))
        self.returns[rows] = 0
        self.lengths[rows] = 0
        if self._enough():  # never set to False here: a signal may come in between
            self.stopped = True

    def _record(self, episode: Episode) -> None:
        self.episodes += 1
        self.recent.append((episode.total, episode.length))
        if self.recorder is not None:
            self.recorder.episode(self, episode)

    def record_all(
        self,
        steps: np.ndarray,
        rows: np.ndarray,
        totals: np.ndarray,
        lengths: np.ndarray,
        truncated: np.ndarray,
    ) -> None:
        """Record episodes that ended in compiled turns; those before the next point in one go."""
        bulk: Any = self.recorder
        early = len(steps) if bulk is None else 0
        if hasattr(bulk, "due"):
            early = int(np.searchsorted(steps, bulk.due))
            bulk.episodes(steps[:early], totals[:early], lengths[:early])
        self.episodes += early
        last = slice(max(0, early - WINDOW), early)
        self.recent.extend(zip(totals[last].tolist(), lengths[last].tolist(), strict=True))
        late = [part[early:].tolist() for part in (steps, rows, totals, lengths, truncated)]
        for episode in zip(*late, strict=True):
            self._record(Episode(*episode))
        if self._enough():
            self.stopped = True

    def _enough(self) -> bool:
        return self.episodes_wanted is not None and self.episodes >= self.episodes_wanted

    def _due(self) -> float:
        """The env step at which the next callback wants to be called."""
        return min(
            (c.every * (self.steps // c.every + 1) for c in self.callbacks), default=float("inf")
        )

    def _call_back(self, before: int) -> None:
        self._owed = [
            i
            for i, callback in enumerate(self.callbacks)
            if self.steps // callback.every > before // callback.every
        ]
        self._settle()

    def _settle(self) -> None:
        """Call the callbacks that are due; one that is interrupted is called again on resume."""
        while self._owed:
            i = self._owed.pop(0)
            try:
                self.callbacks[i](self)
            except BaseException:
                self._owed.insert(0, i)
                raise

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, agent and environments included.

        The arrays are live ones: save or copy them before the run goes on.
        """
        return {
            "agent": self.agent.state_dict(),
            "envs": get_state(self.envs),
            "callbacks": [state for _, state in self._stateful()],
            "owed": list(self._owed),
            "metrics": {tag: float(x) for tag, x in self.metrics.items() if not callable(x)},
            "recent": [list(pair) for pair in self.recent],
            "surplus": None if self._surplus is None else self._surplus._asdict(),
            **{name: getattr(self, name) for name in COUNTERS + ROWS},
        }

    def _stateful(self) -> list[tuple[Callback, dict[str, Any]]]:
        """The callbacks with anything to keep: not a progress bar, which is not always there."""
        states = [(callback, callback.state_dict()) for callback in self.callbacks]
        return [pair for pair in states if pair[1]]

    def fingerprint(self) -> dict[str, Any]:
        """What two equal runs have in common to the last bit: tables, counters, random numbers."""
        return {
            "agent": self.agent.state_dict(),
            "envs": get_state(self.envs),
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Environments whose state could not be had begin new episodes; the agent notices by `start`.
        """
        self.reset()
        with forms.taking("loop"):
            forms.check("loop", state, self._form())
            self.agent.load_state_dict(state["agent"])
            if state["callbacks"] is not None:  # they were not kept
                for (callback, _), part in zip(self._stateful(), state["callbacks"], strict=True):
                    callback.load_state_dict(part)
        self.metrics = dict(state["metrics"])
        self._owed = [i for i in state["owed"] if i < len(self.callbacks)]
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.recent.clear()
        self.recent.extend((total, length) for total, length in state["recent"])
        if state["envs"] is None:
            return
        set_state(self.envs, state["envs"])
        kind = self.start  # of the arrays that these environments hand out
        for name in ROWS:
            setattr(self, name, tree.like(state[name], kind))
        if state["surplus"] is not None:
            self._surplus = Transition(**tree.like(state["surplus"], kind))

    def _form(self) -> dict[str, Any]:
        """What a saved state looks like here: as the first turn, which changes nothing, shows."""
        action, memory, _ = self.agent.act(self.obs, self.start, None, explore=False)
        flags, reals, memory = self.start, forms.reals(self._n), forms.maybe(memory)
        rows = self.obs, self.start, memory, self.returns, self.lengths
        space = self.envs.single_action_space
        if isinstance(space, gym.spaces.Discrete):
            action = forms.whole(int(space.start), int(space.start + space.n - 1), (self._n,))
        seen = (self.obs, flags, memory, memory, action, forms.maybe(reals), reals)
        surplus = Transition(*seen, flags, flags, self.obs, flags)._asdict()
        return {
            **dict.fromkeys(("agent", "envs"), forms.anything),
            "callbacks": forms.maybe(forms.each(forms.anything)),
            "metrics": forms.named_floats,
            "owed": forms.each(0),
            "recent": forms.each([0.0, 0], WINDOW),
            "surplus": forms.maybe(surplus),
            **dict.fromkeys(COUNTERS, 0),
            **dict(zip(ROWS, rows, strict=True)),
        }


COUNTERS = ("steps", "episodes")
ROWS = ("obs", "start", "state", "returns", "lengths")


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuse one that would never be due, or always."""
    for callback in callbacks:
        if not isinstance(callback.every, int | np.integer) or callback.every < 1:
            name = type(callback).__name__
            raise UsageError(
                f"{name}.every {callback.every!r}: expected a whole number of env steps, at least 1"
            )


def split(step: Transition, room: int) -> tuple[Transition, Transition]:
    """The turn with its first `room` valid rows, and the same turn with the others."""
    first = step.valid & (step.valid.cumsum(0) <= room)
    return step._replace(valid=first), step._replace(valid=step.valid & ~first)


def rows_of_true(leaf: Array) -> Array:
    """[N] True, of the kind and on the device of a leaf [N, ...]."""
    column = leaf.reshape(len(leaf), -1)[:, 0]
    return (column == column) | True


def host(array: Array) -> np.ndarray:
    """The array in this computer's main memory."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
