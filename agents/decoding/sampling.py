"""Drawing tokens from a policy's distribution, sharpened or cut to its likeliest."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.decoding.decoding import Decoding
from seqrl.agents.decoding.distribution import tempered, top_k, top_p
from seqrl.agents.deep.heads import log_softmax
from seqrl.core.arrays import host, like
from seqrl.core.checks import check_amount, check_unit, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Decision, State


class Sampling(Decoding):
    """Draws each token, also where nothing is to be explored: a sample is what it is asked for.

    First the policy is sharpened by the temperature, then cut to its `top_k` tokens, then to the
    nucleus of `top_p` of what is left. A latent is drawn too, as in training.

    agent: see `Decoding`.
    temperature: divides the logits, at least 0; 0 is greedy.
    top_k: how many of the likeliest tokens may be drawn; None for all.
    top_p: probability of the nucleus, above 0 and up to 1; None for all.
    """

    def __init__(
        self,
        agent: Any,
        temperature: float = 1.0,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: Seed = None,
    ):
        super().__init__(agent, seed)
        check_amount("temperature", temperature)
        if top_k is not None:
            check_whole("top_k", top_k)
        if top_p is not None:
            check_unit("top_p", top_p)
            if not top_p:
                raise UsageError("top_p 0: expected above 0; temperature 0 is greedy")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return tokens [N] that were drawn, and memory."""
        noise = self.noise(len(start))
        out, state = self.agent.logits(obs, start, state, noise)
        logs = self.distribution(host(out))
        chance = logs - np.log(self.rng.standard_exponential(logs.shape))  # Gumbel-max
        return Decision(like(chance.argmax(-1) + self.first, start), state, noise=noise)

    def distribution(self, logits: np.ndarray) -> np.ndarray:
        """Return the log-probabilities [N, V] that tokens are drawn with."""
        logs = tempered(log_softmax(logits.astype(np.float64)), self.temperature)
        if self.top_k is not None:
            logs = top_k(logs, self.top_k)
        return logs if self.top_p is None else top_p(logs, self.top_p)
