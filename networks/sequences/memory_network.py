"""Memory networks: a question is answered from facts, in several looks at them."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.tokens import PAD
from seqrl.networks.base import Encoder
from seqrl.networks.sequences.attend import OUTSIDE
from seqrl.networks.sequences.spaces import vocabulary_parts


class MemoryNetwork(Encoder):
    """The end-to-end memory network (Sukhbaatar et al. 2015), of `hops` looks at the facts.

    In a look each fact is weighed by how well it fits what is asked, and their weighted sum is
    added to that: the next look asks for more. The embeddings that are weighed in a look are those
    summed in the look before (adjacent tying, section 2.2); words count by their place in a fact
    (section 4.1), facts by how late they are told.

    space: a Dict of "facts", MultiDiscrete [F, W] of tokens, and "question", [Q], padded with 0
        behind; a fact of padding alone is none.
    size: of an embedding, and the number of features.
    """

    def __init__(self, space: Space, size: int = 32, *, hops: int = 3) -> None:
        super().__init__()
        parts = vocabulary_parts(space, "MemoryNetwork", ("facts", "question"))
        count = max(tokens for tokens, _ in parts)
        self.features = check_whole("size", size)
        facts = int(space["facts"].nvec.size // parts[0][1])  # type: ignore[index]
        layers = check_whole("hops", hops) + 1
        self.tables = nn.ModuleList(nn.Embedding(count, size) for _ in range(layers))
        self.late = nn.ParameterList(torch.zeros(facts, size) for _ in range(layers))
        for times in self.late:
            nn.init.normal_(times, 0.0, 0.1)

    def encode(self, obs: Any) -> Tensor:
        """Map facts [B, F, W] and question [B, Q] to what was found for it, [B, size]."""
        facts, question = obs["facts"].long(), obs["question"].long()
        told = (facts != PAD).any(-1)
        asked = self._meaning(self.tables[0], question)
        told_of = self._told(0, facts)
        for hop in range(1, len(self.tables)):
            fit = (told_of @ asked[..., None]).squeeze(-1)
            weight = fit.masked_fill(~told, OUTSIDE).softmax(-1)
            told_of = self._told(hop, facts)
            asked = asked + (weight[..., None] * told_of).sum(1)
        return asked

    def _told(self, layer: int, facts: Tensor) -> Tensor:
        """Return what each fact says [B, F, size], by the embedding of a layer, and when."""
        return self._meaning(self.tables[layer], facts) + self.late[layer]

    def _meaning(self, table: nn.Module, tokens: Tensor) -> Tensor:
        """Return the sum [..., size] of tokens [..., W], each weighed by its place."""
        words, size = tokens.shape[-1], self.features
        place = torch.arange(1, words + 1, device=tokens.device)[:, None] / words
        number = torch.arange(1, size + 1, device=tokens.device) / size
        weight = (1 - place) - number * (1 - 2 * place)
        there = (tokens != PAD)[..., None]
        meaning: Tensor = (table(tokens) * there * weight).sum(-2)
        return meaning
