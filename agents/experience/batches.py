"""From rows to what a value agent learns from: single steps, or sequences where there is memory.

Everything is picked, not copied (see packing.py). Columns are counted as rows.py does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.experience.columns import FINAL, START, TERMINATED, Columns


class Indices(NamedTuple):
    """The rows [B] where what is learned from begins, and their columns [B]."""

    row: np.ndarray
    column: np.ndarray


class Steps(NamedTuple):
    """B single steps, with time in front (T = 1) as networks take it."""

    obs: Any  # [1, B, ...]
    action: Any  # [1, B], as the environment counts
    total: Any  # [1, B] rewards up to where a value is taken, discounted
    discount: Any  # [1, B] of that value; 0 where the episode was over
    after: Any  # [1, B, ...] what was seen there
    after_action: Any  # [1, B] what was done there; None if nobody asked,
    after_final: Any  # bool [1, B] unless nothing was


class Sequences(NamedTuple):
    """B sequences of L steps and the row behind them [L + 1, B, ...]; episodes may end inside."""

    obs: Any
    action: Any  # as the environment counts
    reward: Any
    start: Any  # bool
    terminated: Any  # bool
    final: Any  # bool: a FINAL row, nothing was done
    mask: Any  # bool [L + 1, B]: to be learned from
    state: Any  # [B, ...] that entered the first row; None for a fresh one


def single_steps(rows: Columns, indices: Indices, n: int, gamma: float, *, done: bool) -> Steps:
    """Steps with n rewards, or fewer where an episode ends or the newest row is reached.

    done: with what was done after them, for SARSA.
    """
    row, column = indices.row[None], indices.column[None]
    here = at = rows.places(row, column)
    total = rows.read("reward", here)
    discount = np.where(rows.read("flag", here) & TERMINATED, 0.0, gamma).astype(np.float32)
    going = True
    for k in range(1, n + 1):
        next_at = rows.places(row + k, column)
        at = np.where(going, next_at, at) if k > 1 else next_at
        flag = rows.read("flag", at)
        going = (flag & FINAL) == 0
        if k < n:
            total = total + np.where(going, discount * rows.read("reward", at), 0.0)
            factor = np.where(flag & TERMINATED, 0.0, gamma)
            discount = np.where(going, discount * factor, discount)
    return Steps(
        obs=rows.pick("obs", here),
        action=rows.pick("action", here),
        total=total.astype(np.float32),
        discount=discount.astype(np.float32),
        after=rows.pick("obs", at),
        after_action=rows.pick("action", at) if done else None,
        after_final=~going if done else None,
    )


def sequences(
    rows: Columns, indices: Indices, length: int, first: int = 0, stop: np.ndarray | None = None
) -> Sequences:
    """Sequences of `length` steps; learned from are those from the `first` to before row `stop`.

    What would lie behind a column's newest row is that row again, which is a FINAL one.
    """
    row = indices.row + np.arange(length + 1)[:, None]
    at = rows.places(np.minimum(row, rows.last[indices.column]), indices.column)
    flag = rows.read("flag", at)
    final = (flag & FINAL) > 0
    mask = ~final
    mask[:first] = mask[-1] = False
    if stop is not None:
        mask &= row < stop
    return Sequences(
        obs=rows.pick("obs", at),
        action=rows.pick("action", at),
        reward=rows.read("reward", at),
        start=(flag & START) > 0,
        terminated=(flag & TERMINATED) > 0,
        final=final,
        mask=mask,
        state=rows.entering(indices.row, indices.column),
    )


def ranges(low: np.ndarray, high: np.ndarray) -> Indices:
    """All rows from low [N] to before high [N] of each column, one column after the other."""
    count = np.maximum(high - low, 0)
    column = np.repeat(np.arange(len(low)), count)
    within = np.arange(len(column)) - np.repeat(count.cumsum() - count, count)
    return Indices(low[column] + within, column)
