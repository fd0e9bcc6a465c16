"""Frame stacking: the features of the last k steps, concatenated."""

from __future__ import annotations

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.types import State
from seqrl.networks.base import Core
from seqrl.networks.encoders import as_source


class FrameStack(Core):
    """The encoder's features of the last k steps, newest last; zeros before the episode began.

    encoder: an observation space, a network, a plain module, or a number of features;
        `FrameStack(flat(space))` stacks the observations themselves.
    Output [T, N, k * F].  Memory: the k - 1 steps before, [N, k - 1, F].
    """

    has_own_memory = True

    def __init__(self, encoder: Space | nn.Module | int, k: int = 4) -> None:
        super().__init__(as_source(encoder))
        self.k = check_whole("k", k)
        self.register_buffer("like", torch.ones(()), persistent=False)
        self.build_once()

    like: Tensor  # for the dtype and device of the memory

    def build(self, features: int) -> None:
        """Set the sizes; there are no weights."""
        self.size = features
        self.features = self.k * features

    def own_initial_state(self, n: int) -> State:
        """Return zeros [N, k - 1, F]."""
        return self.like.new_zeros(n, self.k - 1, self.size)

    def run(self, x: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
        """Map [T, N, F] to [T, N, k * F]."""
        steps, past = len(x), self.k - 1
        frames = torch.cat([state.transpose(0, 1), x])  # [k - 1 + T, N, F]
        ids = start.cumsum(0)  # of the episodes
        frame_ids = torch.cat([ids.new_zeros(past, start.shape[1]), ids])
        stacked = [
            frames[i : i + steps].masked_fill((frame_ids[i : i + steps] != ids)[..., None], 0.0)
            for i in range(self.k)
        ]
        expired = (frame_ids[steps:] != ids[-1])[..., None]
        return torch.cat(stacked, -1), frames[steps:].masked_fill(expired, 0.0).transpose(0, 1)
