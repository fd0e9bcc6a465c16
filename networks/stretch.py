"""One fused call over a rollout with episode starts inside: room for a reset before each start.

A kernel for recurrent layers carries its memory from the first step to the last. To forget at
an episode start, one extra step is inserted there, marked in extra input columns whose weights
drive the memory to exactly its fresh value whatever it was; gradients stop there too, because
every gate involved is saturated. All environments then still go through one call.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MARKS = 3  # extra input columns: reset, first, hold


class Stretch(NamedTuple):
    """Where the steps of a rollout [T, N] go in the longer sequence [L, N]."""

    rows: Tensor  # [T * N] row of the flattened [L * N] that holds step (t, n)
    marks: Tensor  # [L * N, 3] 1 at: a reset step; the first step after it; filler at the end

    def spread(self, x: Tensor) -> Tensor:
        """[T, N, F] -> [L, N, F + 3]: zeros in the inserted steps, the marks at the side."""
        _, n, features = x.shape
        wide = x.new_zeros(len(self.marks), features).index_copy(0, self.rows, x.flatten(0, 1))
        return torch.cat([wide, self.marks.to(x.dtype)], 1).view(-1, n, features + MARKS)

    def gather(self, y: Tensor) -> Tensor:
        """[L, N, F] -> the real steps [T, N, F]."""
        n = y.shape[1]
        return y.flatten(0, 1).index_select(0, self.rows).view(-1, n, y.shape[2])


def stretch(start: Tensor) -> Stretch | None:
    """The layout for `start` [T, N]; None where no episode starts after t = 0.

    A start at t = 0 is for the caller, who clears the memory that enters. One number is read
    from the device: the most starts an environment has.
    """
    inside = start.clone()
    inside[0] = False
    shift = inside.cumsum(0)
    extra = int(shift[-1].max())
    if not extra:
        return None
    steps, n = start.shape
    place = torch.arange(steps, device=start.device)[:, None] + shift
    rows = (place * n + torch.arange(n, device=start.device)).flatten()
    marks = torch.zeros((steps + extra) * n, MARKS, dtype=torch.bool, device=start.device)
    marks[rows[n:] - n, 0] = inside[1:].flatten()
    marks[rows, 1] = inside.flatten()
    after = torch.arange(steps + extra, device=start.device)[:, None] > place[-1]
    marks[:, 2] = after.flatten()
    return Stretch(rows, marks)
