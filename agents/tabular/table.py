"""The arithmetic of tables, one state at a time: plain functions over scalars and arrays.

A table q has shape [R, A]. A state is seen as its active active, K indices into R: one for a
countable space, one a tiling for tile coding, one a table for double learning. Its value is the
mean of its active active, so that a step of size alpha moves the value by alpha whatever K is.

Everything here stays within what Numba compiles to the same bits: scalars, loops, and of the
Generator only `random()`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Active = Sequence[int]  # K active rows


def value(q: np.ndarray, active: Active, action: int) -> float:
    """Q(s, a)."""
    if len(active) == 1:  # the common case, told apart for speed
        return q[active[0], action]
    total = 0.0
    for j in active:
        total += q[j, action]
    return total / len(active)


def move(q: np.ndarray, active: Active, action: int, amount: float) -> None:
    """Q(s, a) += amount."""
    for j in active:
        q[j, action] += amount


def best(q: np.ndarray, active: Active) -> float:
    """max_a Q(s, a)."""
    highest = value(q, active, 0)
    for action in range(1, q.shape[1]):
        estimate = value(q, active, action)
        if estimate > highest:
            highest = estimate
    return highest


def greedy(q: np.ndarray, active: Active) -> int:
    """The first action of the highest value."""
    chosen, highest = 0, value(q, active, 0)
    for action in range(1, q.shape[1]):
        estimate = value(q, active, action)
        if estimate > highest:
            chosen, highest = action, estimate
    return chosen


def ties(q: np.ndarray, active: Active) -> int:
    """How many actions share the highest value."""
    highest, count = best(q, active), 0
    for action in range(q.shape[1]):
        if value(q, active, action) == highest:
            count += 1
    return count


def greedy_at_random(q: np.ndarray, active: Active, rng: np.random.Generator) -> int:
    """An action of the highest value, each with the same chance; draws only at a tie."""
    chosen, highest, count = 0, value(q, active, 0), 1
    for action in range(1, q.shape[1]):
        estimate = value(q, active, action)
        if estimate > highest:
            chosen, highest, count = action, estimate, 1
        elif estimate == highest:
            count += 1
    if count == 1:
        return chosen
    skip = int(rng.random() * count)
    for action in range(chosen, q.shape[1]):
        if value(q, active, action) == highest:
            if skip == 0:
                return action
            skip -= 1
    return chosen
