"""Observation normalisation as a layer: running mean and variance, saved with the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.networks.base import Encoder


class Normalize(Encoder):
    """An encoder's features, normalised to mean 0 and variance 1, clipped at +-`limit`.

    Statistics change only in `update`, which agents call in `learn`; acting, evaluation and
    `forward` leave them alone. Before the first update features are only clipped. Those of a `wide`
    encoder are normalised in float64: in float32 nothing would be left of how they differ.
    """

    mean: Tensor  # [features]
    var: Tensor  # [features], of all samples so far, divided by their number
    count: Tensor  # samples so far; float64, so that it goes on counting

    def __init__(self, source: Encoder, *, limit: float = 10.0, epsilon: float = 1e-8) -> None:
        super().__init__()
        if not isinstance(source, Encoder) or not source.features:
            raise UsageError("Normalize: expected an encoder with known features, without memory")
        self.source, self.limit, self.epsilon = source, limit, epsilon
        self.features = source.features
        if source.wide:
            source.double()
        dtype = torch.float64 if source.wide else torch.get_default_dtype()
        self.register_buffer("mean", torch.zeros(self.features, dtype=dtype))
        self.register_buffer("var", torch.ones(self.features, dtype=dtype))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def encode(self, obs: Any) -> Tensor:
        """Map [B, ...] to normalised features [B, features]."""
        centred = self.source.encode(obs) - self.mean
        out = (centred * torch.rsqrt(self.var + self.epsilon)).clamp(-self.limit, self.limit)
        return out.to(torch.get_default_dtype()) if self.source.wide else out

    def undo(self, out: Tensor) -> Tensor:
        """Map normalised features [B, features] back to what they were, but for what was cut."""
        features = out * (self.var + self.epsilon).sqrt() + self.mean
        return features.to(out.dtype)

    @torch.no_grad()
    def update(self, obs: Any, valid: Tensor) -> None:
        """Merge the valid steps of [T, N, ...] into mean and variance.

        Exact for any split into batches (Chan, Golub and LeVeque 1979, pairwise update).
        """
        self.source.update(obs, valid)
        features = self.source.encode(tree.map(lambda leaf: leaf[valid], obs))
        if not len(features):
            return
        total = self.count + len(features)
        weight = (len(features) / total).to(features.dtype)  # of the new samples
        delta = features.mean(0) - self.mean
        var = features.var(0, correction=0)
        self.var += weight * (var - self.var) + weight * (1 - weight) * delta.square()
        self.mean += weight * delta
        self.count.copy_(total)
