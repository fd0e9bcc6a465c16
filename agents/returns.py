"""Returns as pure functions, worked out by hand in the tests."""

from __future__ import annotations

import numpy as np


def discounted(rewards: np.ndarray, tail: float, gamma: float) -> float:
    """R_1 + gamma R_2 + ... + gamma^n `tail`, where `tail` is the value of what follows.

    Sutton & Barto (2018), eq. 7.1, p. 143 (the n-step return), worked out from the end.
    """
    total = tail
    for k in range(len(rewards) - 1, -1, -1):
        total = rewards[k] + gamma * total
    return total
