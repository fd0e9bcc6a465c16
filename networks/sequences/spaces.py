"""Spaces of networks that read tokens all at once."""

from __future__ import annotations

import numpy as np
from gymnasium import Space, spaces

from seqrl.core.errors import UsageError
from seqrl.core.tokens import brief


def vocabulary_parts(space: Space, who: str, names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return how many tokens each part of a Dict has, and its length (that of its last axis).

    UsageError, which names the network `who`, unless the parts are these, each MultiDiscrete from
    0 on with equal counts.
    """
    listed = " and ".join(f'"{name}"' for name in names)
    expected = f"expected a Dict of {listed}, MultiDiscrete of tokens from 0 on"
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    if set(parts) != set(names):
        raise UsageError(f"network {who}: no {listed} in {brief(space)}; {expected}")
    found = []
    for name in names:
        part = parts[name]
        if not isinstance(part, spaces.MultiDiscrete) or np.ptp(part.nvec) or part.start.any():
            raise UsageError(f"network {who}: {name} is {brief(part)}; {expected}")
        found.append((int(part.nvec.flat[0]), part.nvec.shape[-1]))
    return found
