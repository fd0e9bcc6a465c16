"""The types of a step and of an agent's decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from seqrl.core import tree
from seqrl.core.picking import column_picker, rows_where, sent_to, taken

Array = Any  # a NumPy array or a torch tensor; every leaf has N (or T, N) in front
State = Any  # memory: an array or nested tuples/dicts of arrays, None for the memoryless
Metrics = Mapping[str, Any]  # tag -> number, 0-d tensor or function that is called when logged
DeferredChecks = tuple["DeferredCheck", ...]
Answer = tuple[Array, Array]  # the right action [N, ...], and bool [N] where it is known


class DeferredCheck(NamedTuple):
    """Whether numbers are wrong, which a device knows, and what names it where they are."""

    wrong: Array  # bool [] on the device
    refuse: Callable[[], Any]  # raises the error


class Seen(NamedTuple):
    """What the host knows of a turn, NumPy arrays [N]."""

    start: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray

    @property
    def over(self) -> np.ndarray:
        """Return where a valid step has ended its episode."""
        return (self.terminated | self.truncated) & self.valid


class Transition(NamedTuple):
    """One step of N environments, leaves [N, ...]."""

    obs: Array  # observation before the action
    start: Array  # bool: obs is the first of an episode
    state: State  # memory before the step
    next_state: State  # memory after the step, before any reset
    action: Array
    log_prob: Array | None  # of the action under the policy that chose it; None where unused
    reward: Array
    terminated: Array  # bool: the episode ended, the value of next_obs is 0
    truncated: Array  # bool: the episode was cut off, next_obs has a value
    next_obs: Array  # true successor, never the next episode's first observation
    valid: Array  # bool: a step to learn from; False for padding and autoreset filler
    answer: Answer | None = None  # where a teacher told it
    noise: Array | None = None  # [N, K] what a network that draws was handed
    seen: Seen | None = None  # of a device's turn, where a look has brought it to the host
    whole: bool = True  # False: an exact end has split the turn, its other steps come next


class Batch(NamedTuple):
    """What is learned from by gradient: T steps of B columns and the row behind them.

    Leaves are [T + 1, B, ...], those of `state` [B, ...]. The last row only closes the others: it
    holds what followed them and is never valid. Episodes may end inside a column; behind the last
    step of an episode stands a `final` row, the observation that followed. A step without memory
    is a column of T = 1, whose reward is a sum of n rewards and whose row 1 is where a value is
    taken. What `steps` returns has no closing row: every row is a step that is learned from.
    """

    obs: Array
    start: Array  # bool: obs is the first of an episode
    action: Array
    log_prob: Array | None  # of the action under the policy that chose it
    reward: Array  # float32
    discount: Array  # float32, of the next row's value: gamma (gamma^n), 0 where terminated
    final: Array  # bool: nothing was done here
    valid: Array  # bool: to be learned from; None for all
    answer: Answer | None = None  # where a teacher told it
    noise: Array | None = None  # [T + 1, B, K] what a network that draws was handed
    state: State = None  # memory before row 0; None for an initial one
    weight: Array | None = None  # [B] importance of the columns
    indices: Any = None  # where the columns stand in a replay
    extra: Mapping[str, Array] = {}  # more leaves by name: "return", ...
    # where the host knows it
    valid_count: int | None = None  # of rows
    starts: int | None = None  # of episodes in a column behind row 0, at most

    def columns(self, index: Any) -> Batch:
        """Return some of the columns."""
        pick = column_picker(index, self.start)
        timed, extra = tree.map(lambda leaf: pick(leaf, 1), (self[:TIMED], dict(self.extra)))
        state, weight = tree.map(lambda leaf: pick(leaf, 0), (self.state, self.weight))
        return Batch(*timed, state, weight, extra=extra, starts=self.starts)  # type: ignore

    def steps(self) -> Batch:
        """Return the valid steps alone, each a column of its own [1, R], for no memory."""
        leaves = self[:TIMED], dict(self.extra)
        rows = rows_where(self.valid, self.valid_count)
        timed, extra = tree.map(lambda leaf: taken(leaf, rows)[None], leaves)
        return Batch(*timed, extra=extra)  # type: ignore

    def without_closing(self) -> Batch:
        """Return the rows but for the closing one, for what asks nothing of what followed."""
        timed, extra = tree.map(lambda leaf: leaf[:-1], (self[:TIMED], dict(self.extra)))
        return Batch(*timed, self.state, self.weight, extra=extra, starts=self.starts)  # type: ignore

    def minibatches(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield all columns once, in random order, `size` at a time."""
        order = rng.permutation(self.start.shape[1])
        for first in range(0, len(order), size):
            yield self.columns(order[first : first + size])

    def split(self, count: int, rng: np.random.Generator, passes: int = 1) -> Iterator[Batch]:
        """Yield all columns once a pass, in random order, in so many parts; fewer columns one each.

        The orders of all passes are drawn at once, and to a device sent at once.
        """
        columns = self.start.shape[1]
        orders = np.stack([rng.permutation(columns) for _ in range(passes)])
        sizes = [len(part) for part in np.array_split(orders[0], min(count, columns))]
        first, order = 0, sent_to(self.start, orders.reshape(-1))
        for size in sizes * passes:
            yield self.columns(order[first : first + size])
            first += size


TIMED = Batch._fields.index("state")  # of a batch's fields so many have time in front


class Decision(NamedTuple):
    """The action chosen by an agent, its memory after the step and its log-probability.

    Where a teacher was asked also what is right, whoever chose the action; where the network
    draws, also the numbers [N, K] that it was handed. Its checks are run by the turn's look.
    """

    action: Array
    state: State = None
    log_prob: Array | None = None
    answer: Answer | None = None
    noise: Array | None = None
    checks: DeferredChecks = ()
