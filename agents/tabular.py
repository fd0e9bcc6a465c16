"""What tabular agents share: the table, how it is looked up, acted on, saved and fed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from seqrl.agents.exploration import EPSILON, Exploration, explore, probability
from seqrl.agents.indexing import TableIndex
from seqrl.agents.schedules import Bound, Rate, rate, schedule
from seqrl.agents.tables import greedy
from seqrl.core import (
    Array,
    Decision,
    Metrics,
    State,
    Transition,
    UsageError,
    forms,
    generator,
    get_rng_state,
    set_rng_state,
)
from seqrl.core.seeding import Seed

SMOOTHING = 1e-3  # of the running mean of |TD error|


class Memory(NamedTuple):
    """All that learning changes. N environments, R rows, A actions, L waiting steps, K active rows.

    What an agent does not use has size 0.
    """

    q: np.ndarray  # [R, A] action values
    twins: Any  # [2, R, A] the two tables of double learning; q is their mean
    weight: np.ndarray  # [R, A] visits, or cumulative importance weights (Monte Carlo)
    first: np.ndarray  # [R, A] step of the first visit in the episode learned from (Monte Carlo)
    trace: np.ndarray  # [N, R, A] eligibility
    share: np.ndarray  # [R, A] room to work out what the traces move
    rows: np.ndarray  # [N, L, K] steps that wait to be learned from: their active rows,
    action: np.ndarray  # [N, L]
    reward: np.ndarray  # [N, L]
    log_prob: np.ndarray  # [N, L]
    waiting: np.ndarray  # [N] how many wait
    error: np.ndarray  # [1] running mean of |TD error|


class Options(NamedTuple):
    """The numbers of an agent, as the plain functions take them."""

    gamma: float
    kind: int  # of exploration
    double: bool = False
    n_step: int = 1
    decay: float = 0.0  # lambda of the traces, 0 for none
    replacing: bool = False
    expected: bool = False
    first_visit: bool = True
    off_policy: bool = False
    average: bool = False  # step size 1/visits instead of alpha


class Step(NamedTuple):
    """One row of a turn, as scalars."""

    start: bool
    rows: Any  # active rows of obs
    action: int
    log_prob: float
    reward: float
    after: Any  # active rows of next_obs
    terminated: bool
    truncated: bool


Learn = Callable[[Memory, Options, int, Step, float, float, np.random.Generator], None]


class Tabular:
    """The base of Q-learning, SARSA and Monte Carlo on a table.

    An algorithm is a plain function over scalars and arrays (`learn_row`), called for one row
    after the other, so two environments on the same state and action both count.
    """

    learn_row: Learn

    def __init__(
        self,
        observation_space: gym.Space | TableIndex,
        action_space: gym.Space,
        *,
        learning_rate: Rate,
        options: Options,
        exploration: Exploration,
        initial_value: float,
        seed: Seed,
    ):
        if not isinstance(observation_space, TableIndex):
            observation_space = TableIndex(observation_space)
        if not isinstance(action_space, gym.spaces.Discrete):
            raise UsageError(f"action space {action_space}: a table takes Discrete actions")
        if not np.isfinite(initial_value):
            raise UsageError(f"initial_value {initial_value}: expected a finite number")
        self.index = observation_space
        self.options = options
        self.exploration = exploration
        self.learning_rate = schedule("learning_rate", learning_rate)
        self.rng = generator(seed)
        self.steps = 0
        self.horizon = None
        self._shift = int(action_space.start)
        self._shape = (self.index.rows, int(action_space.n))
        check_memory(self._shape, 1 + 2 * options.double)
        self._initial = initial_value
        self._seen: tuple[Array, list[tuple[int, ...]]] = (None, [])
        self.readings = self._readings()
        self.memory = self._allocate(0)

    # what an algorithm needs beyond the table: visit counts, steps that wait, the policy's rate
    counts_visits = False
    waiting_steps = 0
    on_policy = False
    spare = 1  # room for steps that wait which is free again after each turn

    def _form(self, n: int, length: int, zeros: Any) -> Memory:
        """Memory for N environments with `length` steps to wait, of what `zeros` makes."""
        shape, none = self._shape, (0, self._shape[1])
        visited, traced = (shape if used else none for used in self._uses)
        return Memory(
            q=zeros(shape),
            twins=zeros((2, *(shape if self.options.double else none))),
            weight=zeros(visited),
            first=zeros(visited, np.int64),
            trace=zeros((n, *traced)),
            share=zeros(traced),
            rows=zeros((n, length, self.index.tiles), np.int64),
            action=zeros((n, length), np.int64),
            reward=zeros((n, length)),
            log_prob=zeros((n, length)),
            waiting=zeros((n,), np.int64),
            error=zeros((1,)),
        )

    @property
    def _uses(self) -> tuple[bool, bool]:
        """Whether visits are counted, and traces kept."""
        return self.counts_visits, self.options.decay > 0

    def _allocate(self, n: int) -> Memory:
        """Memory for N environments."""
        if self.options.decay:
            check_memory(self._shape, 1 + n)
        memory = self._form(n, self.waiting_steps, np.zeros)
        memory.q.fill(self._initial)
        memory.twins.fill(self._initial)
        return memory

    def prepare(self, n: int) -> None:
        """Make room for N environments; what was learned stays."""
        if n == self._n:
            return
        fresh, old = self._allocate(n), self.memory
        kept = ("q", "twins", "weight", "first", "error")
        self.memory = fresh._replace(**{name: getattr(old, name) for name in kept})

    def reseed(self, seed: Seed) -> None:
        """Draw from a new stream from now on."""
        self.rng = generator(seed)

    @property
    def memory(self) -> Memory:
        """All that learning changes, as arrays."""
        return self._memory

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self._memory = memory
        self._n = len(memory.waiting)
        self.__dict__.pop("_views", None)

    @cached_property
    def _views(self) -> Memory:
        """What stepping reads and writes; compiled turns never ask for it."""
        memory = self._memory
        if self.options.decay:
            return memory
        # the same bytes as memoryviews: their numbers are read twice as fast one by one
        one, other = memory.twins
        names = ("q", "weight", "first", "action", "reward", "log_prob", "waiting", "error")
        parts = {name: view(getattr(memory, name)) for name in names}
        return memory._replace(**parts, twins=(view(one), view(other)))

    @property
    def rates(self) -> tuple[Bound, Bound]:
        """Learning rate and exploration rate, ready for `schedules.rate`."""
        return self._alpha, self._explored

    @property
    def horizon(self) -> int | None:
        """Env steps that the schedules run over."""
        return self._horizon

    @horizon.setter
    def horizon(self, steps: int | None) -> None:
        self._horizon = steps
        self._alpha = self.learning_rate.bind(steps)
        self._explored = self.exploration.rate.bind(steps)

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Greedy actions (the first maximum, nothing drawn), or explored ones."""
        rows = self._rows(obs)
        if not explore:
            actions = [greedy(self._views.q, row) for row in rows]
            return Decision(self._shifted(actions))
        actions = self._explore(rows)
        log_prob = self._log_prob(rows, actions) if self.options.off_policy else None
        return Decision(self._shifted(actions), None, log_prob)

    def _shifted(self, actions: list[int]) -> np.ndarray:
        """Actions as the environment counts them, from its space's `start`."""
        return np.array(actions) + self._shift if self._shift else np.array(actions)

    def _rows(self, obs: Array) -> list[tuple[int, ...]]:
        """The active rows; what followed one step is mostly what is seen at the next."""
        if obs is not self._seen[0]:
            self._seen = obs, self.index(obs)
        return self._seen[1]

    def _explore(self, rows: list[tuple[int, ...]]) -> list[int]:
        kind, q, rate, rng = self.exploration.kind, self._views.q, self._rate(), self.rng
        return [explore(kind, q, row, rate, rng) for row in rows]

    def _log_prob(self, rows: list[tuple[int, ...]], actions: list[int]) -> np.ndarray:
        kind, rate = self.exploration.kind, self._rate()
        pairs = zip(rows, actions, strict=True)
        chances = [probability(kind, self._views.q, row, a, rate) for row, a in pairs]
        return np.array([math.log(chance) for chance in chances])

    def _rate(self) -> float:
        return rate(*self._explored, self.steps)

    def learn(self, step: Transition) -> Metrics:
        """Learn from the valid rows of a turn, one after the other."""
        valid = step.valid.tolist()
        if len(valid) != self._n:
            self.prepare(len(valid))
        action = step.action - self._shift if self._shift else step.action
        log_prob = step.log_prob
        rows = zip(
            step.start.tolist(),
            self._rows(step.obs),
            action.tolist(),
            [0.0] * self._n if log_prob is None else log_prob.tolist(),
            step.reward.tolist(),
            self._rows(step.next_obs),
            step.terminated.tolist(),
            step.truncated.tolist(),
            strict=True,
        )
        for i, row in enumerate(rows):
            if valid[i]:
                self._learn(i, Step(*row))
        return self.readings

    def _learn(self, i: int, row: Step) -> None:
        alpha = rate(*self._alpha, self.steps)
        explored = self._rate() if self.on_policy else 0.0
        self.learn_row(self._views, self.options, i, row, alpha, explored, self.rng)
        self.steps += 1

    def _readings(self) -> Metrics:
        """What the log shows, each read when it is written."""
        rate_name = "exploration_rate" if self.exploration.kind == EPSILON else "temperature"
        return {
            "train/td_error": lambda: self.memory.error[0],
            "train/learning_rate": lambda: rate(*self._alpha, self.steps),
            f"rollout/{rate_name}": self._rate,
        }

    @property
    def q(self) -> np.ndarray:
        """Action values [states, actions]; with tile coding one row a tile."""
        return self.memory.q

    def state_dict(self) -> dict[str, Any]:
        """The tables, the steps that wait, the counter and the random numbers."""
        return {
            "memory": self.memory._asdict(),
            "steps": self.steps,
            "horizon": self.horizon,
            "rng": get_rng_state(self.rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; refuses what is not of this agent's form.

        Indices are looked at as well: compiled turns do not check them.
        """
        with forms.taking("agent"):
            memory = state["memory"]
            n, length = memory["action"].shape
            length = self._room(length)
            form = {**self.state_dict(), "memory": self._form(n, length, hollow)._asdict()}
            form |= {"horizon": forms.maybe(0), "rng": forms.anything}
            forms.check("agent", state, form)
            most = {"rows": self._shape[0] - 1, "action": self._shape[1] - 1}
            most["waiting"] = max(0, length - self.spare)
            for name, largest in most.items():
                forms.whole(0, largest)(f"agent/memory/{name}", memory[name])
            set_rng_state(self.rng, state["rng"])
            self.memory = Memory(**{name: np.array(x) for name, x in memory.items()})
            self.steps, self.horizon = state["steps"], state["horizon"]

    def _room(self, saved: int) -> int:
        """How many steps can wait, where `saved` could."""
        return self.waiting_steps


def hollow(shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    """Zeros that take no room."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def view(array: np.ndarray) -> Any:
    """The array's bytes as a memoryview of its shape."""
    return memoryview(array.data)


def check_memory(shape: tuple[int, int], copies: int) -> None:
    """Refuse tables that do not fit into what memory is free."""
    needed = shape[0] * shape[1] * 8 * copies
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.8 * free:
        raise UsageError(
            f"a table of {shape[0]:,} states x {shape[1]:,} actions takes "
            f"{needed / 2**30:,.1f} GiB, {free / 2**30:,.1f} are free; take fewer --bins"
        )
