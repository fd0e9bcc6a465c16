"""Batch norm as agents use it: its running statistics normalise, and move once a batch.

So acting and learning are one policy, and padding is never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from seqrl.core import tree
from seqrl.core.types import State
from seqrl.networks.base import Network


def batch_norms(module: nn.Module) -> list[_NormBase]:
    """Return the layers of a module that keep running statistics."""
    return [part for part in module.modules() if isinstance(part, _NormBase)]


def keep_statistics(module: nn.Module) -> None:
    """Let `update_statistics` leave those of a module, and of all in it, as they are."""
    module.keeps_statistics = True  # type: ignore[assignment]


def kept_statistics(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return the running statistics that are to be left as they are, each with a copy."""
    kept = [part for part in network.modules() if getattr(part, "keeps_statistics", False)]
    return [(buffer, buffer.clone()) for part in kept for buffer in part.buffers()]


@torch.no_grad()
def update_statistics(
    network: Network, obs: Any, start: Tensor, valid: Tensor, state: State = None
) -> None:
    """Show the valid steps of [T, N, ...] to all of a network's running statistics, once."""
    kept = kept_statistics(network)
    network.update(obs, valid)
    if norms := batch_norms(network):
        show(network, norms, obs, start, valid, state)
    for buffer, before in kept:
        buffer.copy_(before)


def show(
    network: Network, norms: list[_NormBase], obs: Any, start: Tensor, valid: Tensor, state: State
) -> None:
    """Let layers that normalise by running statistics see their inputs, each once."""
    training = network.training
    network.eval()
    hooks = [norm.register_forward_pre_hook(observer(valid)) for norm in norms]
    try:  # copies, as a module of the user's may write to what it is given
        network(*tree.map(torch.clone, (obs, start, state)))
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)


def observer(valid: Tensor) -> Callable[[Any, tuple[Tensor]], None]:
    """Return a hook by which a layer's statistics see the valid steps [T, N] of its inputs.

    Inputs are [T * N, ...], or [N, ...] of one step after the other; of any other shape all counts.
    Fewer than two rows have no variance and are left out.
    """
    steps = cycle(valid)

    def observe(norm: Any, args: tuple[Tensor]) -> None:
        (x,) = args
        if len(x) == valid.numel():
            x = x[valid.flatten()]
        elif len(x) == valid.shape[1]:
            x = x[next(steps)]
        if len(x) > 1:
            norm.train()
            norm.forward(x)
            norm.eval()

    return observe
