"""Where a rollout reads sources: from one reading to the next it gives one reply."""

from __future__ import annotations

import torch
from torch import Tensor


class Replies:
    """A rollout [T, N] cut where `opens` holds, into S replies.

    What is known of each reply is [S, ...]: first of those that go on from an earlier call, then
    of those that open, in the order of `env` and `time` [R]. Where nothing opens behind t = 0, as
    in acting, S = N and a reply is its column.
    """

    def __init__(self, opens: Tensor) -> None:
        self.opens = opens
        self.whole_columns = len(opens) == 1 or not bool(opens[1:].any())
        self.env, self.time = opens.t().nonzero().unbind(1)
        self.going_on = torch.empty(0)
        if not self.whole_columns:
            self._number()

    def _number(self) -> None:
        """Number the replies, and find each step's reply and its place in it, both [T, N]."""
        steps, n = self.opens.shape
        goes_on = ~self.opens[0]
        self.going_on = goes_on.nonzero()[:, 0]
        opened = self.opens.t().flatten().cumsum(0).view(n, steps).t() - 1 + len(self.going_on)
        self.number = torch.where(self.opens.cumsum(0) > 0, opened, goes_on.cumsum(0) - 1)
        first = torch.cat([torch.zeros_like(self.going_on), self.time])
        every = torch.arange(steps, device=self.opens.device)[:, None]
        self.place = every - first[self.number]
        self.count, self.longest = len(first), int(self.place.max()) + 1

    @property
    def new(self) -> Tensor:
        """Which of the S replies open here [R]."""
        if self.whole_columns:
            return self.env
        return torch.arange(len(self.going_on), self.count, device=self.env.device)

    def first(self, x: Tensor) -> Tensor:
        """Return [R, ...] of the steps [T, N, ...] that open replies."""
        return x[self.time, self.env]

    def of_each(self, entered: Tensor, opened: Tensor) -> Tensor:
        """Return [S, ...] from what entered the columns [N, ...] and what was opened [R, ...]."""
        if not len(self.env):
            return entered
        if not self.whole_columns:
            return torch.cat([entered[self.going_on], opened])
        if len(self.env) == len(entered):
            return opened
        return entered.index_copy(0, self.env, opened)

    def at_steps(self, each: Tensor) -> Tensor:
        """Return [T, N, ...] of [S, ...]: at each step what is known of its reply."""
        if self.whole_columns:
            return each.expand(len(self.opens), *each.shape)
        return each[self.number]

    def at_step(self, each: Tensor, t: int) -> Tensor:
        """Return [N, ...] of [S, ...] at one step."""
        return each if self.whole_columns else each[self.number[t]]

    def apart(self, x: Tensor) -> Tensor:
        """Return steps [T, N, ...] as [longest, S, ...], a column a reply, with zeros behind."""
        if self.whole_columns:
            return x
        wide = x.new_zeros(self.longest * self.count, *x.shape[2:])
        place = (self.place * self.count + self.number).flatten()
        wide = wide.index_copy(0, place, x.flatten(0, 1))
        return wide.view(self.longest, self.count, *x.shape[2:])

    def together(self, wide: Tensor) -> Tensor:
        """Return [longest, S, ...] as steps [T, N, ...]."""
        return wide if self.whole_columns else wide[self.place, self.number]
