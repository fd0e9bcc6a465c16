"""Attention from what is written to what was read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqrl.networks.options import lookup

NONE = "none"
SCORES = (NONE, "dot", "general", "additive")
OUTSIDE = -1e30  # the score of padding: no weight at all, and no NaN where there is nothing else


class Attend(nn.Module):
    """The features of each step, from the decoder's output and the source it looks at.

    In the order of Luong, Pham and Manning (2015): the output asks, so that all steps ask at once.
    Their equation 5 gives the features, tanh(W [context; output]).

    score: "dot", of output and token as they are; "general", with weights in between; or
        "additive" (Bahdanau, Cho and Bengio 2015).
    """

    def __init__(self, hidden: int, score: str) -> None:
        super().__init__()
        self.score = lookup("attention", score, SCORES[1:])
        self.mix = nn.Linear(2 * hidden, hidden)
        if self.score != "dot":
            self.ask = nn.Linear(hidden, hidden, bias=False)
        if self.score == "additive":
            self.show, self.weigh = nn.Linear(hidden, hidden), nn.Linear(hidden, 1, bias=False)

    def scores(self, y: Tensor, seen: Tensor) -> Tensor:
        """Return [S, T, L] for outputs [S, T, H] and sources [S, L, H]."""
        if self.score == "additive":
            both = torch.tanh(self.ask(y)[:, :, None] + self.show(seen)[:, None])
            return self.weigh(both)[..., 0]
        asked = y if self.score == "dot" else self.ask(y)
        return asked @ seen.transpose(1, 2)

    def weights(self, y: Tensor, seen: Tensor, length: Tensor) -> Tensor:
        """Return weights [T, S, L] of the tokens within the lengths [S], for outputs [T, S, H]."""
        outside = torch.arange(seen.shape[1], device=seen.device) >= length[:, None]
        scores = self.scores(y.transpose(0, 1), seen).masked_fill(outside[:, None], OUTSIDE)
        return scores.softmax(-1).transpose(0, 1)

    def forward(self, y: Tensor, seen: Tensor, length: Tensor) -> Tensor:
        """Map outputs [T, S, H], looking at sources [S, L, H], to features [T, S, H]."""
        context = self.weights(y, seen, length).transpose(0, 1) @ seen
        return torch.tanh(self.mix(torch.cat([context.transpose(0, 1), y], -1)))
