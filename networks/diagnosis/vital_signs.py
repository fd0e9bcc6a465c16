"""Vital signs of a network on observations: numbers that show whether it can learn."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqrl.core import tree
from seqrl.networks.base import Network, name_of
from seqrl.networks.batch_norm import update_statistics

# the layers of torch that multiply their inputs by weights
WEIGHTED_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)
DEAD = 1e-6  # a feature with a smaller relative range is dead


class VitalSigns(NamedTuple):
    """The vital signs of a network on observations [T, N, ...], in eval mode."""

    inputs: float  # of the first layer: the largest root mean square of a column
    dead: float  # share of the features that are the same at every step
    gradients: dict[str, float]  # norm by weight matrix, for a random sum of all features


def vital_signs(network: Network, obs: Any, start: Tensor) -> VitalSigns:
    """Return the vital signs, after an update of the running statistics."""
    update_statistics(network, obs, start, torch.ones_like(start))
    network.eval()
    inputs: list[Tensor] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, args: inputs.append(args[0].detach()))
        for part in network.modules()
        if isinstance(part, WEIGHTED_LAYERS)
    ]
    out, _ = network(obs, start)
    for hook in hooks:
        hook.remove()
    size = max(map(column_size, inputs[:1]), default=0.0)
    features = out.detach().flatten(0, 1)
    relative_range = (features.amax(0) - features.amin(0)) / features.abs().amax(0).clamp(min=1.0)
    return VitalSigns(size, float((relative_range < DEAD).float().mean()), gradients(network, out))


def column_size(x: Tensor) -> float:
    """Return the largest root mean square of a column of x [..., F]."""
    x = x.flatten(0, -2) if x.ndim > 1 else x[None]
    return float(x.float().square().mean(0).sqrt().max())


def gradients(network: Network, out: Tensor) -> dict[str, float]:
    """Return the norm of each weight matrix's gradient; 0 where there is none."""
    weights = {n: w for n, w in network.named_parameters() if w.requires_grad and w.ndim > 1}
    if not weights or not out.requires_grad:
        return dict.fromkeys(weights, 0.0)
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(out.shape, generator=generator).to(out) / math.sqrt(out.numel())
    grads = torch.autograd.grad((out * mixture).sum(), list(weights.values()), allow_unused=True)
    norms = [0.0 if grad is None else float(grad.double().norm()) for grad in grads]
    return dict(zip(weights, norms, strict=True))


@torch.no_grad()
def first_not_finite(network: Network, obs: Any, start: Tensor) -> str:
    """Return the weight, else the module, where NaN or infinity first appears; "" if none."""
    for name, weight in network.named_parameters():
        if not bool(weight.isfinite().all()):
            return f"its weight {name}"
    sources: list[str] = []

    def record(name: str, part: nn.Module, args: Any, out: Any) -> None:
        if finite(args) and not finite(out):
            sources.append(f"{name} ({type(part).__name__})" if name else name_of(network))

    network.eval()
    parts = network.named_modules()
    hooks = [part.register_forward_hook(partial(record, name)) for name, part in parts]
    try:
        network(obs, start)
    finally:
        for hook in hooks:
            hook.remove()
    return sources[0] if sources else ""


def finite(values: Any) -> bool:
    """Return whether all tensors in a tree are finite; other leaves are ignored."""
    leaves = (leaf for leaf in tree.leaves(values) if isinstance(leaf, Tensor))
    return all(bool(leaf.isfinite().all()) for leaf in leaves)
