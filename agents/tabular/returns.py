"""Returns as pure functions, worked out by hand in the tests."""

from __future__ import annotations

import numpy as np


def n_step_return(rewards: np.ndarray, i: int, n: int, bootstrap: float, gamma: float) -> float:
    """R_1 + gamma R_2 + ... + gamma^n `bootstrap` of the first n rewards [N, L] of env i.

    `bootstrap` is the value of what follows. Sutton & Barto (2018), eq. 7.1, p. 143 (the n-step
    return), worked out from the end.
    """
    total = bootstrap
    for k in range(n - 1, -1, -1):
        total = rewards[i, k] + gamma * total
    return total
