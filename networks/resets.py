"""Memory resets at episode starts inside a rollout that goes through one fused call.

A kernel for recurrent layers carries its memory from the first step to the last. To reset it at
an episode start, one extra step is inserted there, marked in extra input columns whose weights
set the memory to exactly its initial value whatever it was; gradients stop there too, because
every gate involved is saturated. All environments then still go through one call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

MARKS = 3  # extra input columns: reset, first, padding


class ResetLayout(NamedTuple):
    """Where the steps of a rollout [T, N] go in the longer sequence [L, N]."""

    indices: Tensor  # [T * N] where step (t, n) stands in the flattened [L * N]
    marks: Tensor  # [L * N, 3] 1 at: a reset step; the first step after it; padding at the end

    def scatter(self, x: Tensor) -> Tensor:
        """Map [T, N, F] to [L, N, F + 3]: zeros in the inserted steps, the marks appended."""
        _, n, features = x.shape
        longer = x.new_zeros(len(self.marks), features).index_copy(0, self.indices, x.flatten(0, 1))
        return torch.cat([longer, self.marks.to(x.dtype)], 1).view(-1, n, features + MARKS)

    def gather(self, y: Tensor) -> Tensor:
        """Return the real steps [T, N, F] of [L, N, F]."""
        n = y.shape[1]
        return y.flatten(0, 1).index_select(0, self.indices).view(-1, n, y.shape[2])


class Told(threading.local):
    """What is known of a rollout before it is looked at."""

    starts: int | None = None  # of an environment, at t > 0, at most


TOLD = Told()


@contextmanager
def starts_at_most(count: int | None) -> Iterator[None]:
    """Tell how often an episode starts in an environment at t > 0 at most; None: not known."""
    before, TOLD.starts = TOLD.starts, count
    try:
        yield
    finally:
        TOLD.starts = before


def reset_layout(start: Tensor) -> ResetLayout | None:
    """Return the layout for `start` [T, N]; None where no episode starts after t = 0.

    At a start at t = 0 the caller resets the memory that enters. How many steps are inserted is the
    most starts that an environment has: where it is not told (`starts_at_most`), it is read from
    the device.
    """
    inside = start.clone()
    inside[0] = False
    shift = inside.cumsum(0)
    told = None if start.device.type == "cpu" else TOLD.starts  # on the CPU none too many
    extra = int(shift[-1].max()) if told is None else told
    if not extra:
        return None
    steps, n = start.shape
    position = torch.arange(steps, device=start.device)[:, None] + shift
    indices = (position * n + torch.arange(n, device=start.device)).flatten()
    marks = torch.zeros((steps + extra) * n, MARKS, dtype=torch.bool, device=start.device)
    marks[indices[n:] - n, 0] = inside[1:].flatten()
    marks[indices, 1] = inside.flatten()
    padding = torch.arange(steps + extra, device=start.device)[:, None] > position[-1]
    marks[:, 2] = padding.flatten()
    return ResetLayout(indices, marks)
