"""Tokens of sequence tasks: the first three mean the same everywhere; padding stands behind."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from seqrl.core.errors import UsageError

PAD, BEGIN, END = 0, 1, 2
EXPECTED = 'expected a Dict of "source", a MultiDiscrete [L] of tokens, and "previous", a Discrete'


class TokenSpace(NamedTuple):
    """How many tokens there are in a source and in an answer, and the length of a source, L."""

    source: int
    previous: int
    length: int


def token_space(space: gym.Space, who: str) -> TokenSpace:
    """Return the numbers of a token task's observation space; UsageError for any other space.

    "source" [L] is what is to be answered, padded with PAD behind; "previous" is the agent's own
    last action, BEGIN where a new answer is to begin.
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    for name in ("source", "previous"):
        if name not in parts:
            raise UsageError(f"{who}: no {name!r} in {brief(space)}; {EXPECTED}")
    if len(parts) > 2:
        raise UsageError(f"{who}: more than source and previous in {brief(space)}; {EXPECTED}")
    source, previous = parts["source"], parts["previous"]
    if not isinstance(source, spaces.MultiDiscrete) or source.nvec.ndim != 1:
        raise UsageError(f"{who}: source is {brief(source)}; {EXPECTED}")
    if np.ptp(source.nvec) or np.any(source.start) or source.nvec[0] <= END:
        expected = f"expected one vocabulary of at least {END + 1} tokens, from 0 on"
        raise UsageError(f"{who}: source is {brief(source)}; {expected}")
    if not isinstance(previous, spaces.Discrete) or previous.start or previous.n <= END:
        raise UsageError(f"{who}: previous is {brief(previous)}; {EXPECTED}, from 0 on")
    return TokenSpace(int(source.nvec[0]), int(previous.n), len(source.nvec))


def brief(space: gym.Space) -> str:
    """Return a space as a short text in one line."""
    text = " ".join(str(space).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
