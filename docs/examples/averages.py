"""A memory core without gates: an exponential average of the features (Mozer, 1992)."""

from __future__ import annotations

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.types import State
from seqrl.networks.base import Core
from seqrl.networks.encoders import as_source


class Averages(Core):
    """The features, and averages of them: h <- h + rate (x - h), where rate = sigmoid(weight).

    encoder: an observation space, a network, a plain module, or a number of features.
    Output [T, N, 2 F].  Memory: h [N, F].
    """

    has_own_memory = True

    def __init__(self, encoder: Space | nn.Module | int) -> None:
        super().__init__(as_source(encoder))
        self.build_once()

    def build(self, features: int) -> None:
        """Make one rate a feature, from fast to slow."""
        self.rate = nn.Parameter(torch.linspace(2.0, -4.0, features))
        self.features = 2 * features

    def own_initial_state(self, n: int) -> State:
        """Return zeros [N, F]."""
        return self.rate.new_zeros(n, len(self.rate))

    def run(self, x: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
        """Map [T, N, F] to [T, N, 2 F]."""
        found = []
        for features, begins in zip(x, start, strict=True):
            state = state.masked_fill(begins[:, None], 0.0)
            state = state + torch.sigmoid(self.rate) * (features - state)
            found.append(state)
        return torch.cat([x, torch.stack(found)], -1), state
