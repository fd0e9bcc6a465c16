"""Where a network looks in its source while it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.core.tokens import BEGIN, PAD
from seqrl.networks.base import Network
from seqrl.networks.sequences.attend import Attend


@torch.no_grad()
def reading(network: Network, obs: Any, start: Tensor) -> np.ndarray | None:
    """Return the weights [T, L] of the source's L tokens as the first reply of T tokens is said.

    obs: [steps, 1, ...], one episode.  start: [steps, 1]. None for a network without attention to
    a source.
    """
    calls: list[Tensor] = []

    def record(part: nn.Module, args: Any, out: Tensor) -> None:
        assert isinstance(part, Attend)
        calls.append(part.weights(*args))

    looks = [part for part in network.modules() if isinstance(part, Attend)]
    hooks = [part.register_forward_hook(record) for part in looks]
    if not hooks:
        return None
    network(obs, start)
    for hook in hooks:
        hook.remove()
    again = (obs["previous"][1:, 0] == BEGIN).nonzero()
    steps = int(again[0]) + 1 if len(again) else len(start)
    length = int((obs["source"][0, 0] != PAD).sum())
    return torch.cat(calls)[:steps, 0, :length].cpu().numpy()
