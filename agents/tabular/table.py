"""The arithmetic of tables, one state at a time: plain functions over scalars and arrays.

A table q has shape [R, A]. A state is seen as its active rows, K indices into R: one for a
countable space, one a tiling for tile coding. Its value is the mean of its active rows, so that a
step of size alpha moves the value by alpha whatever K is. `actions` are those that may be taken.

Everything here stays within what Numba compiles to the same bits: scalars, loops, and of the
Generator only `random()`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Active = Sequence[int]  # K active rows
Actions = Sequence[int]  # that may be taken, in ascending order


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


def best(q: np.ndarray, active: Active, actions: Actions) -> float:
    """max_a Q(s, a)."""
    highest = -math.inf
    for action in actions:
        estimate = value(q, active, action)
        if estimate > highest:
            highest = estimate
    return highest


def greedy(q: np.ndarray, active: Active, actions: Actions) -> int:
    """The first action of the highest value."""
    chosen, highest = actions[0], -math.inf
    for action in actions:
        estimate = value(q, active, action)
        if estimate > highest:
            chosen, highest = action, estimate
    return chosen


def ties(q: np.ndarray, active: Active, actions: Actions) -> int:
    """How many actions share the highest value."""
    highest, count = best(q, active, actions), 0
    for action in actions:
        if value(q, active, action) == highest:
            count += 1
    return count


def greedy_at_random(
    q: np.ndarray, active: Active, actions: Actions, rng: np.random.Generator
) -> int:
    """An action of the highest value, each with the same chance; draws only at a tie."""
    chosen, highest, count = actions[0], -math.inf, 0
    for action in actions:
        estimate = value(q, active, action)
        if estimate > highest:
            chosen, highest, count = action, estimate, 1
        elif estimate == highest:
            count += 1
    if count <= 1:
        return chosen
    skip = int(rng.random() * count)
    for action in actions:
        if value(q, active, action) == highest:
            if skip == 0:
                return action
            skip -= 1
    return chosen
