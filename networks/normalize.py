"""Observation normalisation as a layer: running mean and variance, saved with the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqrl.core import UsageError, tree
from seqrl.networks.base import Encoder


class Normalize(Encoder):
    """An encoder's rows, shifted and scaled to mean 0 and variance 1, cut at +-`limit`.

    Statistics change only in `update`, which agents call in `learn`; acting, evaluation and
    `forward` leave them alone. Before the first update the rows pass (but for the cut).
    """

    mean: Tensor  # [features]
    var: Tensor  # [features], of all rows seen, divided by their number
    count: Tensor  # rows seen; float64, so that it goes on counting

    def __init__(self, source: Encoder, *, limit: float = 10.0, epsilon: float = 1e-8) -> None:
        super().__init__()
        if not isinstance(source, Encoder) or not source.features:
            raise UsageError("Normalize: expected an encoder with known features, without memory")
        self.source, self.limit, self.epsilon = source, limit, epsilon
        self.features = source.features
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("var", torch.ones(self.features))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def encode(self, obs: Any) -> Tensor:
        """[B, ...] -> [B, features]."""
        centred = self.source.encode(obs) - self.mean
        return (centred * torch.rsqrt(self.var + self.epsilon)).clamp(-self.limit, self.limit)

    @torch.no_grad()
    def update(self, obs: Any, valid: Tensor) -> None:
        """Merge the valid rows of [T, N, ...] into mean and variance.

        Exact for any split into batches (Chan, Golub and LeVeque 1979, pairwise update).
        """
        self.source.update(obs, valid)
        rows = self.source.encode(tree.map(lambda leaf: leaf[valid], obs))
        if not len(rows):
            return
        total = self.count + len(rows)
        share = (len(rows) / total).to(rows.dtype)  # of the new rows among all
        delta = rows.mean(0) - self.mean
        spread = rows.var(0, correction=0)
        self.var += share * (spread - self.var) + share * (1 - share) * delta.square()
        self.mean += share * delta
        self.count.copy_(total)
