"""What keeps a network from learning its data by heart: penalties, sparse activity, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqrl.core import tree
from seqrl.core.checked import checked_part
from seqrl.core.errors import UsageError
from seqrl.networks.base import Network
from seqrl.networks.latents import divergence

RATE = 0.05  # of activity, by default
AMOUNTS = "l1", "l2", "sparsity", "auxiliary", "input_noise"


@checked_part
@dataclass(frozen=True)
class Regularisation:
    """What is minimised beside the loss, and noise in learning; 0 leaves each out.

    Penalties are on weights with inputs (matrices, kernels, embeddings), not on biases.

    l1: times the sum of the weights' sizes, at least 0.
    l2: times half the sum of the weights' squares, at least 0; before gradients are clipped.
    sparsity: times the Kullback-Leibler divergence of the features' activity, at least 0.
        Of `sparsity_rate` from each feature's mean over a batch, summed over the features, which
        are from 0 to 1, as of a sigmoid (Ng, 2011, CS294A, "Sparse autoencoder").
    sparsity_rate: the activity that features are to have, in (0, 1).
    auxiliary: times what the network learns from observations alone, at least 0.
        As of an autoencoder the error of what it gives back (Jaderberg et al., 2017).
    input_noise: standard deviation of what is added to observed reals in learning, at least 0.
        In their own units; policies are left out, since they learn as they act (Bishop, 1995).
    """

    l1: float = 0.0
    l2: float = 0.0
    sparsity: float = 0.0
    sparsity_rate: float = RATE
    auxiliary: float = 0.0
    input_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in AMOUNTS:
            if not 0 <= getattr(self, name) < math.inf:
                text = "expected a number of at least 0"
                raise UsageError(f"{name} {getattr(self, name)}: {text}")
        if not 0 < self.sparsity_rate < 1:
            raise UsageError(f"sparsity_rate {self.sparsity_rate}: expected a number in (0, 1)")
        if self.sparsity_rate != RATE and not self.sparsity:
            text = "no effect without --sparsity, its weight, above 0"
            raise UsageError(f"sparsity_rate {self.sparsity_rate}: {text}")

    @property
    def used(self) -> Sequence[str]:
        """Return the names of what is not left out."""
        return [name for name in AMOUNTS if getattr(self, name)]

    @torch.no_grad()
    def add_penalties(self, weights: Sequence[Tensor]) -> None:
        """Add to gradients those of l1 times size and l2 times half the square; not of biases."""
        penalised = [w for w in weights if w.ndim > 1 and w.grad is not None]
        grads: list[Any] = [w.grad for w in penalised]
        if self.l2 and penalised:
            torch._foreach_add_(grads, penalised, alpha=self.l2)
        if self.l1 and penalised:
            torch._foreach_add_(grads, torch._foreach_sign(penalised), alpha=self.l1)

    def activity_term(self, features: Tensor, valid: Tensor | None) -> Tensor:
        """Return `sparsity` times the divergence, of features [T, B, F] where valid [T, B]."""
        active = features.flatten(0, 1) if valid is None else features[valid]
        if not len(active):
            return features.new_zeros(())
        low, high = (x.item() for x in active.detach().aminmax())
        if not (low >= 0 and high <= 1):
            got = f"the network's features go from {low:.3g} to {high:.3g}"
            remedy = "take --network-arg activation=Sigmoid"
            raise UsageError(f"sparsity: {got}, and have no rate of activity; {remedy}")
        return self.sparsity * divergence(self.sparsity_rate, active.mean(0)).sum()

    def auxiliary_term(self, network: Network, obs: Any, valid: Tensor) -> Tensor:
        """Return `auxiliary` times what a network learns of observations [T, B, ...] alone."""
        return self.auxiliary * sum(network.auxiliary(obs, valid).values(), torch.zeros(()))

    def noisy(self, obs: Any) -> Any:
        """Return observations with noise on every real number, drawn from torch's generator."""
        if not any(leaf.is_floating_point() for leaf in tree.leaves(obs)):
            remedy = "leave it out"
            raise UsageError(f"input_noise: no observed number is real, to take noise; {remedy}")
        return tree.map(self._with_noise, obs)

    def _with_noise(self, leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        return leaf + self.input_noise * torch.randn_like(leaf)
