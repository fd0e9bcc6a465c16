"""The distribution that a token is drawn from: sharpened, and cut to its likeliest tokens.

Log-probabilities [N, V] in and out, -inf where a token is left out.
"""

from __future__ import annotations

import numpy as np

from seqrl.agents.deep.heads import log_softmax


def tempered(logs: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(logs / temperature); at 0 the first of the likeliest tokens is certain."""
    if temperature > 0:
        with np.errstate(over="ignore"):  # to -inf, beside the likeliest at 0
            return log_softmax((logs - logs.max(-1, keepdims=True)) / temperature)
    return np.where(logs.argmax(-1)[:, None] == np.arange(logs.shape[-1]), 0.0, -np.inf)


def top_k(logs: np.ndarray, k: int) -> np.ndarray:
    """Return the distribution over the k likeliest tokens (Fan et al. 2018, section 5)."""
    return kept(logs, ranks(logs) < k)


def top_p(logs: np.ndarray, p: float) -> np.ndarray:
    """Return the distribution over the nucleus (Holtzman et al. 2020, section 3.1).

    That is the fewest likeliest tokens whose probabilities sum to at least p.
    """
    order = np.argsort(-logs, -1, kind="stable")
    chance = np.exp(np.take_along_axis(logs, order, -1))
    before = chance.cumsum(-1) - chance  # of all that are likelier
    return kept(logs, np.take_along_axis(before, ranks(logs), -1) < p)


def ranks(logs: np.ndarray) -> np.ndarray:
    """Return the place of each token from the likeliest on, the first of equals before."""
    return np.argsort(-logs, -1, kind="stable").argsort(-1)


def kept(logs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the distribution over the tokens that are inside [N, V]."""
    return log_softmax(np.where(inside, logs, -np.inf))
