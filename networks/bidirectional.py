"""A core that reads whole sequences from both ends: for encoders, as nothing acts by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqrl.core.types import State
from seqrl.networks.base import Network, refuse
from seqrl.networks.recurrent import GRU

ENDS = "it reads what is yet to come, so that nothing can act by it step by step"


class Bidirectional(Network):
    """Two cores over a sequence, one from each end (Schuster and Paliwal 1997).

    core: built as core(features, hidden_size), such as GRU or LSTM. It is refused as an agent's
    network; `Tokens(bidirectional=True)` reads one observation by it.
    """

    def __init__(
        self, features: int, hidden_size: int = 64, *, core: Callable[[int, int], Network] = GRU
    ) -> None:
        super().__init__()
        self.ahead, self.back = core(features, hidden_size), core(features, hidden_size)
        self.features = self.ahead.features + self.back.features

    def initial_state(self, n: int) -> State:
        """Refuse to act."""
        refuse(self, f"{ENDS}; use it within an encoder, such as Tokens(bidirectional=True)")

    def forward(self, obs: Any, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Read whole sequences [L, B, F]; `start` and `state` are ignored."""
        return self.read(obs), None

    def read(self, x: Tensor, length: Tensor | None = None) -> Tensor:
        """Map [L, B, F] to [L, B, 2 H]: at each step what was read before it, and behind it.

        length: int [B] of each sequence, the rest is padding; None: L.
        """
        start = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        start[0] = True
        order = reversal(len(x), length, x)[..., None]
        turned = x.gather(0, order.expand_as(x))
        back, _ = self.back(turned, start)
        back = back.gather(0, order.expand_as(back))
        return torch.cat([self.ahead(x, start)[0], back], -1)

    def summary(self, x: Tensor, length: Tensor) -> Tensor:
        """Return what each core has read in the end [B, 2 H], for [L, B, F] and lengths [B]."""
        return self.ends(self.read(x, length), length)

    def ends(self, out: Tensor, length: Tensor) -> Tensor:
        """Return of what was read [L, B, 2 H] what each core gave last [B, 2 H]."""
        own = self.ahead.features
        return torch.cat([at(out, length - 1)[:, :own], out[0, :, own:]], -1)


def reversal(steps: int, length: Tensor | None, like: Tensor) -> Tensor:
    """Return indices [L, B] that turn each sequence around and leave its padding where it is."""
    time = torch.arange(steps, device=like.device)[:, None].expand(like.shape[:2])
    turned = (steps if length is None else length) - 1 - time
    return torch.where(turned < 0, time, turned)


def at(x: Tensor, index: Tensor) -> Tensor:
    """Return [B, F] of [L, B, F] at each column's own index [B]."""
    return x[index, torch.arange(x.shape[1], device=x.device)]
