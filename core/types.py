"""The types of a step and of an agent's decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from seqrl.core import tree

Array = Any  # a NumPy array or a torch tensor; every leaf has N (or T, N) in front
State = Any  # memory: an array or nested tuples/dicts of arrays, None for the memoryless
Metrics = Mapping[str, Any]  # tag -> number, 0-d tensor or function that is called when logged
Answer = tuple[Array, Array]  # the right action [N, ...], and bool [N] where it is known


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

    def columns(self, index: Any) -> Batch:
        """Return some of the columns."""
        if isinstance(index, np.ndarray) and not isinstance(self.start, np.ndarray):
            import torch  # imported here, as tabular agents must not need it

            sent = torch.from_numpy(index).to(self.start.device)  # once, not for every leaf
            pick: Any = partial(torch.index_select, index=sent)  # half the time of leaf[:, index]
        else:
            pick = partial(indexed, index=index)
        timed, extra = tree.map(lambda leaf: pick(leaf, 1), (self[:TIMED], dict(self.extra)))
        state, weight = tree.map(lambda leaf: pick(leaf, 0), (self.state, self.weight))
        return Batch(*timed, state, weight, extra=extra)  # type: ignore

    def steps(self) -> Batch:
        """Return the valid steps alone, each a column of its own [1, R], for no memory."""
        leaves = self[:TIMED], dict(self.extra)
        timed, extra = tree.map(lambda leaf: leaf[self.valid][None], leaves)
        return Batch(*timed, extra=extra)  # type: ignore

    def without_closing(self) -> Batch:
        """Return the rows but for the closing one, for what asks nothing of what followed."""
        timed, extra = tree.map(lambda leaf: leaf[:-1], (self[:TIMED], dict(self.extra)))
        return Batch(*timed, self.state, self.weight, extra=extra)  # type: ignore

    def minibatches(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield all columns once, in random order, `size` at a time."""
        order = rng.permutation(self.start.shape[1])
        for first in range(0, len(order), size):
            yield self.columns(order[first : first + size])

    def split(self, count: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield all columns once, in random order, in so many parts, or one a column if fewer."""
        order = rng.permutation(self.start.shape[1])
        for part in np.array_split(order, min(count, len(order))):
            yield self.columns(part)


def indexed(leaf: Array, axis: int, index: Any) -> Array:
    """Return some of a leaf's entries along axis 0 or 1."""
    return leaf[:, index] if axis else leaf[index]


TIMED = Batch._fields.index("state")  # of a batch's fields so many have time in front


class Decision(NamedTuple):
    """The action chosen by an agent, its memory after the step and its log-probability.

    Where a teacher was asked also what is right, whoever chose the action; where the network
    draws, also the numbers [N, K] that it was handed.
    """

    action: Array
    state: State = None
    log_prob: Array | None = None
    answer: Answer | None = None
    noise: Array | None = None
