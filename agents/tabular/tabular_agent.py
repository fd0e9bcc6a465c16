"""The base of agents on a table: looking states up, acting, learning, saving."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np

from seqrl.agents.schedules import Bound, Rate, Scheduled, rate, schedule
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.policy import EPSILON, Exploration, explore, probability
from seqrl.agents.tabular.table import best, greedy
from seqrl.core import schema, tree
from seqrl.core.action_mask import check_mask, split
from seqrl.core.arrays import check_memory
from seqrl.core.errors import UsageError
from seqrl.core.saved import RNG, Kept
from seqrl.core.seeding import Seed, generator
from seqrl.core.types import Array, Decision, Metrics, State, Transition

SMOOTHING = 1e-3  # of the running mean of |TD error|
LISTED = ("pairs", "traced")  # what of the arrays follows from the others, and is not saved
SCRATCH = ("share",)  # what 0.2 saved besides


class TableArrays(NamedTuple):
    """All that learning changes: N environments, R rows, A actions, L waiting steps, K active rows.

    What an agent does not use has size 0.
    """

    q: np.ndarray  # [R, A] action values
    twins: Any  # [2, R, A] the two tables of double learning; q is their mean
    weight: np.ndarray  # [R, A] visits, or cumulative importance weights (Monte Carlo)
    first: np.ndarray  # [R, A] step of the first visit in the episode learned from (Monte Carlo)
    trace: np.ndarray  # [N, R, A] eligibility
    pairs: np.ndarray  # [N, R * A] the pairs that have one, numbered row by row, in front
    traced: np.ndarray  # [N] how many these are
    active: np.ndarray  # [N, L, K] active rows of the steps that wait to be learned from,
    action: np.ndarray  # [N, L]
    reward: np.ndarray  # [N, L]
    log_prob: np.ndarray  # [N, L]
    forbidden: np.ndarray  # [N, L, A] bool: what a mask forbade, where it is asked for again
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
    grows: bool = False  # whole episodes wait, and the arrays grow with them


class Step(NamedTuple):
    """A step of one environment, as scalars."""

    start: bool
    active: Any  # active rows of obs
    actions: Any  # that could be taken
    action: int
    log_prob: float
    reward: float
    next_active: Any  # active rows of next_obs
    next_actions: Any  # that may be taken there
    terminated: bool
    truncated: bool


Learn = Callable[[TableArrays, Options, int, Step, float, float, np.random.Generator], None]


def check_actions(space: gym.Space) -> gym.spaces.Discrete[Any]:
    """Return the space; refuse actions that are no columns of a table."""
    if isinstance(space, gym.spaces.Discrete):
        return space
    text = "a table takes Discrete actions; for others there is --agent ppo"
    raise UsageError(f"action space {space}: {text}")


class TabularAgent(Scheduled):
    """The base of Q-learning, SARSA and Monte Carlo on a table.

    An algorithm is a plain function over scalars and arrays (`learn_step`), called for one
    environment after the other, so two of them on the same state and action both count.
    """

    learn_step: Learn
    device, learner = "cpu", ""

    def __init__(
        self,
        observation_space: gym.Space | TableIndex,
        action_space: gym.Space,
        learning_rate: Rate,
        options: Options,
        exploration: Exploration,
        initial_value: float,
        seed: Seed,
    ):
        action_space = check_actions(action_space)
        if not isinstance(observation_space, TableIndex):
            observation_space = TableIndex(observation_space)
        if not np.isfinite(initial_value):
            raise UsageError(f"initial_value {initial_value}: expected a finite number")
        check_mask(observation_space.given, action_space)
        self.index = observation_space
        self.options, self.gamma = options, options.gamma
        self.exploration = exploration
        self.learning_rate = schedule("learning_rate", learning_rate)
        self.rng = generator(seed)
        self.horizon = None
        self._shift = int(action_space.start)
        self._shape = (self.index.total, int(action_space.n))
        self._all = range(self._shape[1])
        self._remembers_masks = options.off_policy and self.index.masked
        check_table_memory(self._shape, 1 + 2 * options.double)
        self._initial = initial_value
        self._seen: tuple[Any, list[tuple[int, ...]]] = (None, [])
        rate_name = "exploration_rate" if exploration.kind == EPSILON else "temperature"
        self.last_metrics: Metrics = {  # read when they are logged
            "train/td_error": self._error,
            "train/learning_rate": self._step_size,
            f"rollout/{rate_name}": self._rate,
        }
        self.arrays = self._allocate(0)

    # what an algorithm needs beyond the table
    counts_visits = False
    waiting_steps = 0  # that wait to be learned from, at most
    on_policy = False  # it is told epsilon, or the temperature
    spare = 1  # places among those that are free again after each turn

    def _arrays_of(self, n: int, length: int, zeros: Any) -> TableArrays:
        """Return arrays for N environments with `length` steps to wait, made by `zeros`."""
        shape, none = self._shape, (0, self._shape[1])
        visited = shape if self.counts_visits else none
        traced = shape if self.options.decay else none
        return TableArrays(
            q=zeros(shape),
            twins=zeros((2, *(shape if self.options.double else none))),
            weight=zeros(visited),
            first=zeros(visited, np.int64),
            trace=zeros((n, *traced)),
            pairs=zeros((n, math.prod(traced)), np.int64),
            traced=zeros((n,), np.int64),
            active=zeros((n, length, self.index.tiles), np.int64),
            action=zeros((n, length), np.int64),
            reward=zeros((n, length)),
            log_prob=zeros((n, length)),
            forbidden=zeros((n, length, shape[1] * self._remembers_masks), np.bool_),
            waiting=zeros((n,), np.int64),
            error=zeros((1,)),
        )

    def _allocate(self, n: int) -> TableArrays:
        """Return fresh arrays for N environments."""
        if self.options.decay:
            check_table_memory(self._shape, 1 + 2 * n)
        arrays = self._arrays_of(n, self.waiting_steps, np.zeros)
        arrays.q.fill(self._initial)
        arrays.twins.fill(self._initial)
        return arrays

    def prepare(self, n: int) -> None:
        """Allocate arrays for N environments; what was learned stays."""
        if n == self._n:
            return
        fresh, old = self._allocate(n), self.arrays
        kept = ("q", "twins", "weight", "first", "error")
        self.arrays = fresh._replace(**{name: getattr(old, name) for name in kept})

    def reseed(self, seed: Seed) -> None:
        """Draw from a new stream from now on."""
        self.rng = generator(seed)

    @property
    def arrays(self) -> TableArrays:
        """All that learning changes, as arrays."""
        return self._arrays

    @arrays.setter
    def arrays(self, arrays: TableArrays) -> None:
        self._arrays = arrays
        self._n = len(arrays.waiting)
        self.__dict__.pop("_views", None)

    @cached_property
    def _views(self) -> TableArrays:
        """The arrays as stepping reads and writes them."""
        arrays = self._arrays
        # the same bytes as memoryviews: their numbers are read twice as fast one by one
        one, other = arrays.twins
        names = ("q", "weight", "first", "action", "reward", "log_prob", "waiting", "traced")
        parts = {name: view(getattr(arrays, name)) for name in (*names, "error")}
        return arrays._replace(**parts, twins=(view(one), view(other)))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: without the views, which are of these arrays."""
        return {name: value for name, value in self.__dict__.items() if name != "_views"}

    @property
    def rates(self) -> tuple[Bound, Bound]:
        """Learning rate and epsilon (or temperature) as arguments of `schedules.rate`."""
        return self._alpha, self._epsilon

    def bind_schedules(self) -> None:
        """Work out the rates as arguments of `schedules.rate`."""
        self._alpha = self.learning_rate.bind(self.horizon)
        self._epsilon = self.exploration.rate.bind(self.horizon)

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return greedy actions (the first maximum, nothing drawn), or explored ones."""
        states = self._active(obs)
        choices = self._choices(obs, len(states))
        if not explore:
            both = zip(states, choices, strict=True)
            chosen = [greedy(self._views.q, active, actions) for active, actions in both]
            return Decision(self._shifted(chosen))
        chosen = self._explore(states, choices)
        log_prob = self._log_prob(states, choices, chosen) if self.options.off_policy else None
        return Decision(self._shifted(chosen), None, log_prob)

    def values(self, obs: Array, start: Array) -> np.ndarray:
        """Return the best action's value of N observations [N]."""
        states = self.index(obs)
        both = zip(states, self._choices(obs, len(states)), strict=True)
        return np.array([best(self.q, active, actions) for active, actions in both])

    def _shifted(self, actions: list[int]) -> np.ndarray:
        """Return actions as the environment counts them, from its space's `start`."""
        return np.array(actions) + self._shift if self._shift else np.array(actions)

    def _active(self, obs: Array) -> list[tuple[int, ...]]:
        """Return the active rows [N][K]; the next observation is mostly the next step's."""
        if not self.index.real_paths:  # which is faster than to compare
            return self.index(obs)
        # not the array itself: it may be a buffer that is used again
        numbers = [(leaf.dtype, leaf.tobytes()) for leaf in tree.leaves(obs)]
        if numbers != self._seen[0]:
            self._seen = numbers, self.index(obs)
        return self._seen[1]

    def _choices(self, obs: Array, n: int) -> list[Sequence[int]]:
        """Return the actions that may be taken at N observations."""
        if not self.index.masked:
            return [self._all] * n
        legal: Any = split(obs)[1]
        return [np.flatnonzero(row).tolist() for row in legal]

    def _explore(self, states: list[tuple[int, ...]], choices: list[Sequence[int]]) -> list[int]:
        kind, q, rate, rng = self.exploration.kind, self._views.q, self._rate(), self.rng
        both = zip(states, choices, strict=True)
        return [explore(kind, q, active, actions, rate, rng) for active, actions in both]

    def _log_prob(
        self, states: list[tuple[int, ...]], choices: list[Sequence[int]], chosen: list[int]
    ) -> np.ndarray:
        kind, q, rate = self.exploration.kind, self._views.q, self._rate()
        taken = zip(states, choices, chosen, strict=True)
        return np.array([math.log(probability(kind, q, *each, rate)) for each in taken])

    def _rate(self) -> float:
        return rate(*self._epsilon, self.steps - self.origin)

    def learn(self, step: Transition) -> Metrics:
        """Learn from the valid steps of a turn, one environment after the other."""
        valid = step.valid.tolist()
        if len(valid) != self._n:
            self.prepare(len(valid))
        action = step.action - self._shift if self._shift else step.action
        log_prob = step.log_prob
        steps = zip(
            step.start.tolist(),
            self._active(step.obs),
            self._choices(step.obs, self._n),
            action.tolist(),
            [0.0] * self._n if log_prob is None else log_prob.tolist(),
            step.reward.tolist(),
            self._active(step.next_obs),
            self._choices(step.next_obs, self._n),
            step.terminated.tolist(),
            step.truncated.tolist(),
            strict=True,
        )
        for i, values in enumerate(steps):
            if valid[i]:
                self._learn(i, Step(*values))
        return self.last_metrics

    def _learn(self, i: int, step: Step) -> None:
        alpha = self._step_size()
        epsilon = self._rate() if self.on_policy else 0.0
        self.learn_step(self._views, self.options, i, step, alpha, epsilon, self.rng)
        self.steps += 1

    def _error(self) -> float:
        return float(self.arrays.error[0])

    def _step_size(self) -> float:
        return rate(*self._alpha, self.steps - self.origin)

    @property
    def q(self) -> np.ndarray:
        """The action values [R, A]; with tile coding a row is a tile."""
        return self.arrays.q

    SAVED: ClassVar[dict[str, Kept]] = {
        "arrays": Kept(
            lambda arrays: without(arrays._asdict(), LISTED),
            lambda name, arrays, saved: None,  # see `check_state`
            lambda arrays, saved: listed(tree.map(np.array, saved)),
        ),
        **Scheduled.SAVED,
        "rng": RNG,
    }

    def check_state(self, state: Any, name: str) -> None:
        """Refuse arrays of other shapes, and indices that compiled turns would not check."""
        super().check_state(state, name)
        arrays = without(state["arrays"], SCRATCH)
        n, length = arrays["action"].shape
        length = self._length(length)
        expected = self._arrays_of(n, length, unallocated_zeros)._asdict()
        schema.check(f"{name}/arrays", arrays, without(expected, LISTED))
        most = {"active": self._shape[0] - 1, "action": self._shape[1] - 1}
        most["waiting"] = max(0, length - self.spare)
        for part, largest in most.items():
            schema.whole(0, largest)(f"{name}/arrays/{part}", arrays[part])

    def _length(self, saved: int) -> int:
        """Return how many steps can wait, where `saved` could."""
        return self.waiting_steps


def without(parts: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the parts but for these."""
    return {name: part for name, part in parts.items() if name not in names}


def listed(saved: dict[str, np.ndarray]) -> TableArrays:
    """Return saved arrays, and the list of pairs that have a trace."""
    trace = saved["trace"].reshape(len(saved["waiting"]), -1)
    pairs, traced = np.zeros(trace.shape, np.int64), np.count_nonzero(trace, 1)
    for i, count in enumerate(traced):
        pairs[i, :count] = np.flatnonzero(trace[i])
    return TableArrays(**without(saved, SCRATCH), pairs=pairs, traced=traced)


def unallocated_zeros(shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    """Return zeros that take no memory, for their shape and dtype."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def view(array: np.ndarray) -> Any:
    """Return the array's bytes as a memoryview of its shape."""
    return memoryview(array.data)


def check_table_memory(shape: tuple[int, int], copies: int) -> None:
    """Refuse tables that do not fit into the free memory."""
    what = f"a table of {shape[0]:,} states x {shape[1]:,} actions"
    check_memory(shape[0] * shape[1] * 8 * copies, what, "give (fewer) --bins, or name a --network")
