"""The loop: an agent in N environments, one turn after the other. It moves data, nothing else."""

from __future__ import annotations

import logging
from threading import Event
from typing import Any

import gymnasium as gym
import numpy as np

from seqrl.agents.protocol import Agent, Foresees, Taught
from seqrl.core import schema, team, tree
from seqrl.core.arrays import arange, host_copy, like
from seqrl.core.types import Array, Decision, Metrics, Seen, State, Transition
from seqrl.envs.adapter import adapt
from seqrl.envs.attributes import UnknownClass
from seqrl.envs.gathered import Gathered
from seqrl.envs.recorded import Recorded
from seqrl.envs.state import get_state, set_state
from seqrl.training.loop.books import WINDOW, Books, Episode, Stopwatch
from seqrl.training.loop.callbacks import Callbacks, DueCallbacks, listed
from seqrl.training.loop.detect import CompiledTurns, compiled_turns, no_table
from seqrl.training.loop.interrupt import Interrupt
from seqrl.training.loop.long_episodes import LongEpisodes
from seqrl.training.loop.protocol import Recorder
from seqrl.training.loop.turns import RecordedTurns, SteppedTurns

LOG = logging.getLogger("seqrl")
MANY = 8  # episodes from which it pays to record them at once
WORTHWHILE = 100_000  # env steps from which compiled turns make up for their start


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
        callbacks: Callbacks = (),
        recorder: Recorder | None = None,
        compile: bool = True,
    ):
        self.agent = agent
        self.envs = adapt(envs)
        self._n = self.envs.num_envs
        if isinstance(self.envs, Gathered):
            self.envs.asks = self._asked
        self.compile = compile
        short = no_table(agent) or f"below {WORTHWHILE:,} env steps"
        self.reason = short if compile else "as asked for"
        self.preparing = False  # while compiling, which may take seconds the first time
        self.learning = learn
        self.foresees = isinstance(agent, Foresees)
        if learn and isinstance(agent, Taught):
            agent.meet(self.envs)
        self.max_episode_steps = max_episode_steps
        self.recorder = recorder
        self.books = Books()
        self.watch = Stopwatch()  # acting, learning and recording, without the callbacks
        recorded = isinstance(self.envs, Recorded)
        self.stepped = RecordedTurns(self) if recorded else SteppedTurns(self)
        self._compiled: CompiledTurns | None = None
        self.callbacks = listed(callbacks)  # called in this order; more may be added before a run
        self._due = DueCallbacks(self)
        self._long = LongEpisodes(self)
        self.steps = 0
        self.metrics: dict[str, Any] = {}
        self.stopped = False  # set by whoever wants the loop to end after this turn
        self.stop = Event()  # the same, from any thread, and for good
        self.paused = False  # the same, by who will let it go on
        self.interrupt = Interrupt()  # of the newest run
        self.obs: Array = None  # [N, ...] what is looked at next
        self.start: Array = None  # bool [N]: it opens an episode
        self.state: State = None  # [N, ...] memory that the last turn left

    @property
    def episodes(self) -> int:
        """Episodes that have ended."""
        return self.books.episodes

    @property
    def compiled(self) -> bool:
        """Whether the turns of a run were compiled."""
        return self._compiled is not None

    @property
    def path(self) -> str:
        """Which way the turns go, what takes the gradient steps, and why."""
        ways = ["compiled" if self.compiled else "stepped", self.agent.learner]
        ways += [f"{team.size()} processes"] if team.size() > 1 else []
        return f"{', '.join(filter(None, ways))}: {self.reason}"

    def reset(self, seed: np.random.SeedSequence | None = None) -> None:
        """Begin new episodes everywhere with empty memories; counters go on."""
        self.obs = self.envs.reset(seed)
        self.start = all_true(next(tree.leaves(self.obs)))
        self.books.open(self._n)
        self.state = None
        self.stepped.surplus = None

    def run(self, steps: int) -> None:
        """Play exactly `steps` env steps, or fewer where `stop`, `stopped` or `paused` is set.

        Where the last turn has more rows than are left, the surplus rows (highest index) are not
        valid in it; they are learned from first when the run goes on. KeyboardInterrupt is raised
        between two turns, and the run can go on behind it as if nothing had been. Schedules of an
        agent without a horizon begin here and run over these steps; set `agent.horizon` to play in
        pieces.
        """
        self._due.check()
        if self.learning and self.agent.horizon is None:
            self.agent.horizon = steps
        if self.obs is None:
            self.reset()
        self._due.call_pending()
        target = self.steps + steps
        compiled = self._prepare_compiled(steps)
        with Interrupt() as self.interrupt:
            self._advance(target, compiled)
        if compiled is not None:
            compiled.check()

    def _advance(self, target: int, compiled: CompiledTurns | None) -> None:
        """Play turns up to env step `target`, and call the callbacks that are due between them."""
        interrupt = self.interrupt
        due = min(self._due.next_due(), self._long.next_look)
        self.watch.start()
        while self.steps < target and not self._halted():
            before = self.steps
            whole = self.stepped.surplus is None and target - before >= self._n
            interrupt.in_turn = True
            if compiled is not None and whole:
                compiled.advance(int(min(due, target - self._n + 1)))
            else:
                self.stepped.advance(target, due)
            interrupt.in_turn = False
            if self.steps >= due:
                self.watch.stop()
                self._long.look()
                self._due.call(before)
                due = min(self._due.next_due(), self._long.next_look)
                self.watch.start()
        self.watch.stop()

    def _asked(self) -> tuple[bool, bool]:
        """Return whether this process was asked to pause, and to stop."""
        return self.paused, self.interrupt.held or self.stop.is_set()

    def _halted(self) -> bool:
        """Return whether to end here; where several processes play, by what any had been asked."""
        if not isinstance(self.envs, Gathered):
            return self.stopped or any(self._asked())
        paused, stop = self.envs.take_asked()
        if paused:  # nothing is set to False: a signal may come in between
            self.paused = True
        if stop:
            self.stop.set()
        return self.stopped or paused or stop

    def _prepare_compiled(self, steps: int) -> CompiledTurns | None:
        """Return compiled turns where they are possible and the run is long enough to pay."""
        if not (self.compile and self.learning and steps >= WORTHWHILE):
            return None
        if self._compiled is None:
            self.preparing = True
            try:
                self._compiled, self.reason = compiled_turns(self)
            finally:
                self.preparing = False
        else:
            self._compiled.check()
        if self._compiled is not None:
            self.metrics.update(self._compiled.loop.agent.last_metrics)
        return self._compiled

    # what the turns report

    def told(self, metrics: Metrics) -> None:
        """Take in the metrics of an agent."""
        self.metrics.update(metrics or {})

    def record(self, step: Seen, before: int, count: int) -> None:
        """Count the episodes that a turn has ended and hand them to the recorder."""
        self.record_all(*self.books.close(step, before, count))

    def record_all(self, *ended: np.ndarray) -> None:
        """Record what ended, columns as in `Episode`: at once between points that are due."""
        steps, recorder, first = ended[0], self.recorder, 0
        while first < len(steps):
            last = self._before_due(recorder, steps, first)
            if last > first:
                self._record_at_once(*(column[first:last] for column in ended))
            if last < len(steps):
                episode = Episode(*[column[last].item() for column in ended])
                self.books.count(episode)
                if recorder is not None:
                    recorder.episode(self, episode)
            first = last + 1
        if self.books.enough:  # never set to False here: a signal may come in between
            self.stopped = True

    def _before_due(self, recorder: Any, steps: np.ndarray, first: int) -> int:
        """Return how many of the episodes may be recorded at once; none of a few."""
        if len(steps) - first < MANY:
            return first
        if recorder is None:
            return len(steps)
        due = getattr(recorder, "due", None)
        return first if due is None else max(first, int(np.searchsorted(steps, due)))

    def _record_at_once(self, *ended: np.ndarray) -> None:
        steps, _, totals, lengths, _ = ended
        recorder: Any = self.recorder
        if recorder is not None:
            recorder.episodes(steps, totals, lengths)
        self.books.count_all(totals, lengths)

    # state

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, agent and environments included.

        The arrays are live ones: save or copy them before the run goes on.
        """
        books, surplus = self.books, self.stepped.surplus
        rest = None if surplus is None else surplus._asdict()
        return {
            **self.fingerprint(),
            "callbacks": [state for _, state in self._due.stateful()],
            "owed": list(self._due.pending),
            "metrics": {tag: float(x) for tag, x in self.metrics.items() if not callable(x)},
            "recent": [list(pair) for pair in books.recent],
            "surplus": rest and {name: rest[name] for name in rest if name not in UNSAVED},
            **{name: getattr(self, name) for name in PER_ENV},
            **{name: getattr(books, name) for name in COUNTED_PER_ENV},
        }

    def fingerprint(self) -> dict[str, Any]:
        """What two equal runs have in common to the last bit: tables, counters, random numbers."""
        return {
            "agent": self.agent.state_dict(),
            "envs": get_state(self.envs),
            "steps": self.steps,
            "episodes": self.books.episodes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Environments whose state could not be had begin new episodes; the agent notices by `start`.
        """
        self.reset()
        books = self.books
        with schema.loading("loop"):
            schema.check("loop", state, self._schema())
            self.agent.load_state_dict(state["agent"])
            if state["callbacks"] is not None:  # they were not kept
                kept = zip(self._due.stateful(), state["callbacks"], strict=True)
                for (callback, _), part in kept:
                    callback.load_state_dict(part)
        self.metrics = dict(state["metrics"])
        self._due.pending = [i for i in state["owed"] if i < len(self.callbacks)]
        self.steps, books.episodes = state["steps"], state["episodes"]
        books.recent.clear()
        books.recent.extend((total, length) for total, length in state["recent"])
        if not self._restore_envs(state["envs"]):
            return
        kind = self.start  # of the arrays that these environments hand out
        for name in PER_ENV:
            setattr(self, name, like(state[name], kind))
        for name in COUNTED_PER_ENV:
            setattr(books, name, host_copy(state[name]))
        if state["surplus"] is not None:
            self.stepped.surplus = Transition(**like(state["surplus"], kind))

    def _restore_envs(self, state: dict[str, Any] | None) -> bool:
        """Restore the environments where their state could be kept; else say so."""
        problem: object = "could not be kept"
        if state is not None:
            try:
                set_state(self.envs, state)
                return True
            except UnknownClass as error:
                problem = f"cannot be restored: {error}"
                self.reset()  # some of them may have been
        LOG.warning("seqrl: the environments' state %s; they begin new episodes", problem)
        return False

    def _schema(self) -> dict[str, Any]:
        """What a saved state looks like here: as the first turn, which changes nothing, shows."""
        decision = self._form_of_turns()
        action, flags, reals = decision.action, self.start, schema.reals(self._n)
        memory = schema.maybe(decision.state)
        space = self.envs.single_action_space
        if isinstance(space, gym.spaces.Discrete):
            action = schema.whole(int(space.start), int(space.start + space.n - 1), (self._n,))
        seen = (self.obs, flags, memory, memory, action, schema.maybe(reals), reals)
        told: Any = None if decision.answer is None else (action, flags)
        drawn = getattr(getattr(self.agent, "network", None), "noise", 0)  # numbers a step
        noise = schema.maybe(schema.reals(self._n, drawn)) if drawn else None
        surplus = Transition(*seen, flags, flags, self.obs, flags, told, noise)._asdict()
        for name in UNSAVED:
            del surplus[name]
        return {
            **dict.fromkeys(("agent", "envs"), schema.anything),
            "callbacks": schema.maybe(schema.each(schema.anything)),
            "metrics": schema.named_floats,
            "owed": schema.each(0),
            "recent": schema.each([0.0, 0], WINDOW),
            "surplus": schema.maybe(surplus),
            **dict.fromkeys(("steps", "episodes"), 0),
            **dict(zip(PER_ENV, (self.obs, flags, memory), strict=True)),
            **{name: getattr(self.books, name) for name in COUNTED_PER_ENV},
        }

    def _form_of_turns(self) -> Decision:
        """Return what is decided in the first turn, as far as kinds and shapes go."""
        if self.learning and isinstance(self.agent, Taught):
            return self.agent.form_of_turns(self.obs, self.start)
        return self.agent.act(self.obs, self.start, None, explore=False)


PER_ENV = ("obs", "start", "state")  # of the loop, leaves [N, ...]
UNSAVED = ("whole", "seen")  # of a surplus
COUNTED_PER_ENV = ("returns", "lengths")  # of its books


def all_true(leaf: Array) -> Array:
    """Return [N] True, of the kind and on the device of a leaf [N, ...]."""
    return arange(len(leaf), leaf) >= 0
