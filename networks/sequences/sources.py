"""Sources of tokens as networks may read them."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.core.tokens import BEGIN, PAD
from seqrl.networks.base import Network, refuse


def check_sources(network: Network, source: Tensor, previous: Tensor, count: int) -> None:
    """Refuse tokens [R, L] that are not below `count` or behind padding, and empty sources.

    The zeros by which a network is tried have no BEGIN in `previous` [R].
    """
    blank = source == PAD
    unknown = (source < 0) | (source >= count)
    late = blank[:, :-1] & ~blank[:, 1:]
    empty = blank.all(1) & (previous == BEGIN)
    faults = torch.stack([unknown.any(), late.any(), empty.any()])
    if not bool(faults.any()):
        return
    if bool(faults[0]):
        token = int(source[unknown][0])
        refuse(network, f"token {token} in a source: unknown, expected 0 to {count - 1}")
    if bool(faults[1]):
        refuse(network, f"padding ({PAD}) before a token of a source; expected it behind the last")
    refuse(network, f"an empty source, nothing but padding ({PAD}); expected a token at least")
