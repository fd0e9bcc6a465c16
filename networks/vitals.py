"""What a network makes of observations: numbers that show whether it can learn at all."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqrl.core import tree
from seqrl.networks.base import Network, name_of

# the layers of torch that multiply what they are given by weights
WEIGHING = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)
STILL = 1e-6  # features that vary by less do not vary


class Vitals(NamedTuple):
    """A network on observations [T, N, ...], in eval mode."""

    inputs: float  # what enters its first layer: the largest root mean square of a column
    still: float  # share of the features that are the same at every step
    gradients: dict[str, float]  # norm, by weight matrix, for a random mix of all features


def vitals(network: Network, obs: Any, start: Tensor) -> Vitals:
    """Look at a network that works; its running statistics see the observations first."""
    network.update(obs, torch.ones_like(start))
    network.eval()
    entered: list[Tensor] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, given: entered.append(given[0].detach()))
        for part in network.modules()
        if isinstance(part, WEIGHING)
    ]
    out, _ = network(obs, start)
    for hook in hooks:
        hook.remove()
    size = max(map(column_size, entered[:1]), default=0.0)
    rows = out.detach().flatten(0, 1)
    spread = (rows.amax(0) - rows.amin(0)) / rows.abs().amax(0).clamp(min=1.0)
    return Vitals(size, float((spread < STILL).float().mean()), gradients(network, out))


def column_size(x: Tensor) -> float:
    """The largest root mean square of a column of numbers [..., F]."""
    rows = x.flatten(0, -2) if x.ndim > 1 else x[None]
    return float(rows.float().square().mean(0).sqrt().max())


def gradients(network: Network, out: Tensor) -> dict[str, float]:
    """The norm of each weight matrix's gradient; 0 where none arrives."""
    weights = {n: w for n, w in network.named_parameters() if w.requires_grad and w.ndim > 1}
    if not weights or not out.requires_grad:
        return dict.fromkeys(weights, 0.0)
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(out.shape, generator=draw).to(out) / math.sqrt(out.numel())
    found = torch.autograd.grad((out * mix).sum(), list(weights.values()), allow_unused=True)
    norms = [0.0 if grad is None else float(grad.double().norm()) for grad in found]
    return dict(zip(weights, norms, strict=True))


@torch.no_grad()
def first_not_finite(network: Network, obs: Any, start: Tensor) -> str:
    """The weight, else the part, that first makes NaN or infinity of finite numbers; "" if none."""
    for name, weight in network.named_parameters():
        if not bool(weight.isfinite().all()):
            return f"its weight {name}"
    sources: list[str] = []

    def look(name: str, part: nn.Module, given: Any, out: Any) -> None:
        if finite(given) and not finite(out):
            sources.append(f"{name} ({type(part).__name__})" if name else name_of(network))

    network.eval()
    hooks = [
        part.register_forward_hook(partial(look, name)) for name, part in network.named_modules()
    ]
    try:
        network(obs, start)
    finally:
        for hook in hooks:
            hook.remove()
    return sources[0] if sources else ""


def finite(values: Any) -> bool:
    """Whether all numbers are, in a tree of tensors and other things."""
    leaves = (leaf for leaf in tree.leaves(values) if isinstance(leaf, Tensor))
    return all(bool(leaf.isfinite().all()) for leaf in leaves)
