"""The arithmetic of tables, one row at a time: plain functions over scalars and arrays.

A table q has shape [R, A]. A state is seen as its active rows, K indices into R: one for a
countable space, one a tiling for tile coding, one a table for double learning. Its value is the
mean of its active rows, so that a step of size alpha moves the value by alpha whatever K is.

Everything here stays within what Numba compiles to the same bits: scalars, loops, and of the
Generator only `random()`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Rows = Sequence[int]  # K active rows


def value(q: np.ndarray, rows: Rows, action: int) -> float:
    """Q(s, a)."""
    if len(rows) == 1:  # the common case, told apart for speed
        return q[rows[0], action]
    total = 0.0
    for row in rows:
        total += q[row, action]
    return total / len(rows)


def move(q: np.ndarray, rows: Rows, action: int, amount: float) -> None:
    """Q(s, a) += amount."""
    for row in rows:
        q[row, action] += amount


def best(q: np.ndarray, rows: Rows) -> float:
    """max_a Q(s, a)."""
    highest = value(q, rows, 0)
    for action in range(1, q.shape[1]):
        estimate = value(q, rows, action)
        if estimate > highest:
            highest = estimate
    return highest


def greedy(q: np.ndarray, rows: Rows) -> int:
    """The first action of the highest value."""
    chosen, highest = 0, value(q, rows, 0)
    for action in range(1, q.shape[1]):
        estimate = value(q, rows, action)
        if estimate > highest:
            chosen, highest = action, estimate
    return chosen


def ties(q: np.ndarray, rows: Rows) -> int:
    """How many actions share the highest value."""
    highest, count = best(q, rows), 0
    for action in range(q.shape[1]):
        if value(q, rows, action) == highest:
            count += 1
    return count


def greedy_at_random(q: np.ndarray, rows: Rows, rng: np.random.Generator) -> int:
    """An action of the highest value, each with the same chance; draws only at a tie."""
    chosen, highest, count = 0, value(q, rows, 0), 1
    for action in range(1, q.shape[1]):
        estimate = value(q, rows, action)
        if estimate > highest:
            chosen, highest, count = action, estimate, 1
        elif estimate == highest:
            count += 1
    if count == 1:
        return chosen
    skip = int(rng.random() * count)
    for action in range(chosen, q.shape[1]):
        if value(q, rows, action) == highest:
            if skip == 0:
                return action
            skip -= 1
    return chosen
