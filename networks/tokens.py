"""The encoder of observations that are sequences of tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.networks.base import Encoder, Network
from seqrl.networks.options import initialise
from seqrl.networks.recurrent import GRU


class Tokens(Encoder):
    """A MultiDiscrete of one vocabulary: token embeddings through a core, the last output.

    size: of an embedding.  core: built as core(size, hidden_size), such as GRU or Attention.
    This memory lives inside one observation; put a core on top for memory between steps.
    """

    def __init__(
        self,
        space: Space,
        size: int = 32,
        hidden_size: int = 64,
        *,
        core: Callable[[int, int], Network] = GRU,
        init: str | float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(space, spaces.MultiDiscrete) or np.ptp(space.nvec):
            raise UsageError(f"Tokens: expected MultiDiscrete with equal counts, got {space}")
        self.register_buffer("first", torch.as_tensor(np.ravel(space.start)), persistent=False)
        self.table = nn.Embedding(int(space.nvec.flat[0]), check_whole("size", size))
        initialise(self.table.weight, init)
        self.core = core(size, hidden_size)
        self.features = self.core.features

    first: Tensor

    def encode(self, obs: Tensor) -> Tensor:
        """Map integers [B, L] to features [B, hidden_size]."""
        tokens = (obs.flatten(1).long() - self.first).t()
        start = torch.zeros_like(tokens, dtype=torch.bool)
        start[0] = True
        return self.core(self.table(tokens), start)[0][-1]
