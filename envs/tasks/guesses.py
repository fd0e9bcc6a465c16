"""What replies score that are guessed: by a policy without memory, or at random."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from seqrl.core.tokens import BEGIN, END, PAD
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.replies import Replies
from seqrl.envs.tasks.rewards import REWARDS

SAMPLED = 10_000  # episodes of a fixed seed, where there are too many to go through


def reactive(right: np.ndarray) -> np.ndarray:
    """Return the best chance [M] of saying replies [M, R] by what was said last, and no memory.

    The best policy draws what follows a token as often as it follows it in the reply: that is the
    greatest likelihood of a Markov chain. Where no token comes twice it is certain.
    """
    before = np.concatenate([np.full_like(right[:, :1], BEGIN), right[:, :-1]], 1)
    there = right != PAD
    same = before[:, :, None] == before[:, None, :]  # no token stands behind END or padding
    often = (same & (right[:, :, None] == right[:, None, :])).sum(2)
    share = np.where(there, often / np.maximum(same.sum(2), 1), 1.0)
    found: np.ndarray = share.prod(1)
    return found


@lru_cache(32)
def random_score(rules: Replies) -> float:
    """Return the mean return of random tokens; exact for the reward "exact", else estimated."""
    draws = Draws()
    draws.seed(np.random.default_rng(0))
    episodes, rng = rules.drawn(draws, SAMPLED), np.random.default_rng(1)
    total = np.zeros(SAMPLED)
    for turn in range(rules.turns):
        there = turn < episodes["length"]
        said = random_replies(rng, SAMPLED, rules.room, len(rules.vocabulary))
        judged = REWARDS[rules.reward](np, said, episodes["right"][:, turn])
        total += np.where(there, judged, 0.0)
    return float((total / episodes["length"]).mean())


def random_replies(rng: np.random.Generator, n: int, room: int, tokens: int) -> np.ndarray:
    """Return replies [n, room] of random tokens up to END, as a task keeps what is said."""
    said = rng.integers(tokens, size=(n, room))
    ended = (said == END).cumsum(1) - (said == END)
    return np.where(ended > 0, PAD, np.where(said == PAD, BEGIN, said))
