"""Word2Vec: words as numbers by which it is told what stands near them."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.tokens import PAD
from seqrl.networks.base import Encoder
from seqrl.networks.options import initialise
from seqrl.networks.sequences.spaces import vocabulary_parts


class Word2Vec(Encoder):
    """How well words fit what is given (Mikolov et al. 2013; skip-gram and CBOW alike).

    The mean of the vectors of what is given, times the vector that each word has as a context. An
    agent whose answers are yes or no, one a word, takes these numbers as they are: imitation is
    negative sampling then, but for one number more, which is how rare a yes is.

    space: a Dict of "given" and "words", MultiDiscrete of the same tokens; 0 is padding.
    size: of a word's vector.
    The vectors of words are `table`, those as contexts `context`.
    """

    def __init__(self, space: Space, size: int = 32) -> None:
        super().__init__()
        (count, _), (others, shown) = vocabulary_parts(space, "Word2Vec", ("given", "words"))
        self.table = nn.Embedding(count, check_whole("size", size))
        self.context = nn.Embedding(others, size)
        for table in (self.table, self.context):
            initialise(table.weight, f"uniform:{0.5 / size}")
        self.features = shown
        self.same = nn.Parameter(torch.eye(shown), requires_grad=False)

    def encode(self, obs: Any) -> Tensor:
        """Map tokens [B, C] and [B, M] to how well each of M words fits, [B, M]."""
        given = obs["given"].long()
        there = (given != PAD)[..., None]
        mean = (self.table(given) * there).sum(1) / there.sum(1).clamp(min=1)
        fit = self.context(obs["words"].long()) @ mean[..., None]
        return fit.squeeze(-1)

    def output_weight(self) -> Tensor:
        """Return the identity: its features are what an agent's answers are drawn by."""
        return self.same
