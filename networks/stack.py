"""Memory without learning: the last k observations side by side."""

from __future__ import annotations

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core import State
from seqrl.networks.base import Core
from seqrl.networks.encoders import as_source
from seqrl.networks.options import whole


class FrameStack(Core):
    """The encoder's features of the last k steps, newest last; zeros before the episode began.

    encoder: an observation space, a network, a plain module, or a number of features;
        `FrameStack(flat(space))` stacks the observations themselves.
    Output [T, N, k * F].  Memory: the k - 1 steps before, [N, k - 1, F].
    """

    remembers = True

    def __init__(self, encoder: Space | nn.Module | int, k: int = 4) -> None:
        super().__init__(as_source(encoder))
        self.k = whole("k", k)
        self.register_buffer("unit", torch.ones(()), persistent=False)
        self.ready()

    unit: Tensor

    def build(self, features: int) -> None:
        """Nothing to learn."""
        self.width = features
        self.features = self.k * features

    def fresh(self, n: int) -> State:
        """Zeros [N, k - 1, F]."""
        return self.unit.new_zeros(n, self.k - 1, self.width)

    def run(self, x: Tensor, start: Tensor, own: State) -> tuple[Tensor, State]:
        """[T, N, F] -> [T, N, k * F]."""
        steps, before = len(x), self.k - 1
        frames = torch.cat([own.transpose(0, 1), x])  # [k - 1 + T, N, F]
        episode = start.cumsum(0)
        owner = torch.cat([episode.new_zeros(before, start.shape[1]), episode])
        lags = [
            frames[i : i + steps].masked_fill((owner[i : i + steps] != episode)[..., None], 0.0)
            for i in range(self.k)
        ]
        stale = (owner[steps:] != episode[-1])[..., None]
        return torch.cat(lags, -1), frames[steps:].masked_fill(stale, 0.0).transpose(0, 1)
