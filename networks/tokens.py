"""The encoder of observations that are sequences of tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.networks.base import Encoder, Network
from seqrl.networks.bidirectional import Bidirectional, at
from seqrl.networks.options import initialise
from seqrl.networks.recurrent import GRU


class Tokens(Encoder):
    """A MultiDiscrete of one vocabulary: token embeddings through a core, the last output.

    size: of an embedding.  core: built as core(size, hidden_size), such as GRU or Attention.
    bidirectional: another one reads from the last token to the first (see Bidirectional).
    pad: the token that fills the end of shorter sequences, and is not read; None for none.
    This memory lives inside one observation; put a core on top for memory between steps.
    """

    def __init__(
        self,
        space: Space,
        size: int = 32,
        hidden_size: int = 64,
        *,
        core: Callable[[int, int], Network] = GRU,
        bidirectional: bool = False,
        pad: int | None = None,
        init: str | float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(space, spaces.MultiDiscrete) or np.ptp(space.nvec):
            raise UsageError(f"Tokens: expected MultiDiscrete with equal counts, got {space}")
        self.register_buffer("first", torch.as_tensor(np.ravel(space.start)), persistent=False)
        self.table = nn.Embedding(int(space.nvec.flat[0]), check_whole("size", size))
        initialise(self.table.weight, init)
        self.pad = pad
        self.core = (partial(Bidirectional, core=core) if bidirectional else core)(
            size, hidden_size
        )
        self.features = self.core.features

    first: Tensor

    def encode(self, obs: Tensor) -> Tensor:
        """Map integers [B, L] to features [B, hidden_size]."""
        tokens = obs.flatten(1).t()
        x, length = self.table(tokens.long() - self.first[:, None]), self._length(tokens)
        if isinstance(self.core, Bidirectional):
            return self.core.summary(x, length)
        start = torch.zeros_like(tokens, dtype=torch.bool)
        start[0] = True
        out = self.core(x, start)[0]
        return out[-1] if self.pad is None else at(out, length - 1)

    def _length(self, tokens: Tensor) -> Tensor:
        """Return the length [B] of tokens [L, B] up to their padding; at least 1."""
        place = torch.arange(1, len(tokens) + 1, device=tokens.device)[:, None].expand_as(tokens)
        read = place if self.pad is None else place * (tokens != self.pad)
        return read.amax(0).clamp(min=1)
