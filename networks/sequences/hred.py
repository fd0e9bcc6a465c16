"""Dialogues: a source is read at every turn, and what was read before is remembered."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor

from seqrl.networks.recurrent import GRU
from seqrl.networks.sequences.replies import Replies
from seqrl.networks.sequences.seq2seq import Seq2Seq


class HRED(Seq2Seq):
    """The hierarchical recurrent encoder-decoder (Sordoni et al. 2015; Serban et al. 2016).

    Above the reader a context network takes a step a source, from the episode's start on; a reply
    is about the context. Arguments are those of Seq2Seq; `attention`, which the papers have not,
    looks at the newest source. From token to features it is three cores deep, which orthogonal
    weights make quicker to learn.
    Memory: that of Seq2Seq; "about" is the context [N, hidden_size].
    """

    def __init__(
        self,
        space: Space,
        hidden_size: int = 64,
        *,
        attention: str = "none",
        init: str | float | None = "orthogonal",
        **others: Any,
    ) -> None:
        super().__init__(space, hidden_size, attention=attention, init=init, **others)
        self.context = GRU(hidden_size, hidden_size, init=init)

    def _about(
        self, sources: dict[str, Tensor], replies: Replies, start: Tensor, state: dict[str, Any]
    ) -> Tensor:
        """Return the context [R, H] of the replies that open."""
        summary = sources["summary"]
        before = state["about"][:, None, : self.features]
        if not len(summary):
            return summary
        starts = replies.first(start)
        if replies.whole_columns:
            return self.context(summary[None], starts[None], before[replies.env])[0][0]
        turn = replies.first(replies.opens.cumsum(0)) - 1  # of those of its column that open here
        grid = summary.new_zeros(int(turn.max()) + 1, start.shape[1], self.features)
        begins = torch.zeros(grid.shape[:2], dtype=torch.bool, device=start.device)
        place = turn, replies.env
        out, _ = self.context(
            grid.index_put(place, summary), begins.index_put(place, starts), before
        )
        return out[place]
