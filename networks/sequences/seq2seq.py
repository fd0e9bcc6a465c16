"""Sequence to sequence: a source is read, and answered token by token."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.tokens import BEGIN, PAD, token_space
from seqrl.core.types import State
from seqrl.networks.attention import Attention
from seqrl.networks.base import Network
from seqrl.networks.options import lookup
from seqrl.networks.sequences.attend import NONE, SCORES, Attend
from seqrl.networks.sequences.reader import ATTENTION, CORES, RECURRENT, Init, make_reader
from seqrl.networks.sequences.replies import Replies
from seqrl.networks.sequences.sources import check_sources


class Seq2Seq(Network):
    """Encoder and decoder with attention (Sutskever et al. 2014; Luong, Pham and Manning 2015).

    Where an episode starts, and wherever `previous` is BEGIN, the source is read and a reply
    begins. At each step the decoder takes the token before and what the reply is about, here the
    source's summary (Cho et al. 2014); its output looks at the source and makes the features. All
    steps go through one call over time, whatever replies begin inside.

    space: a Dict of source and previous (see `token_space`); tokens of both are the same where
        both have as many, and share an embedding then.
    size: of an embedding.  hidden_size: of reader and decoder, and the number of features.
    core: "gru", "lstm", "rnn" or "attention": of both, in so many `layers`. With "attention" it is
        a small transformer, of `heads` heads, whose decoder sees its last `window` tokens.
    bidirectional: recurrent readers read from both ends, with half the units each.
    attention: "dot", "general" or "additive" (see Attend), or "none".
    input_feeding: the decoder also takes the features of the step before (Luong et al., section
        3.3), in a loop over time, which is slower.
    tied: the layer that gives the agent's choices shares the embedding of `previous` (Press and
        Wolf 2017); size must be hidden_size.
    init: of reader and decoder, see `initialise`.
    Memory: a dict, each part with N in front: "about" [N, A], "written" (the decoder's), with
    attention "seen" [N, L, hidden_size] and "length" [N], with input feeding "fed".
    """

    def __init__(
        self,
        space: Space,
        hidden_size: int = 64,
        *,
        size: int = 32,
        core: str = "gru",
        layers: int = 1,
        bidirectional: bool = True,
        attention: str = "dot",
        input_feeding: bool = False,
        tied: bool = False,
        heads: int = 4,
        window: int = 64,
        init: str | float | None = None,
    ) -> None:
        super().__init__()
        self.tokens = token_space(space, f"network {type(self).__name__}")
        self.features, self.size = (
            check_whole("hidden_size", hidden_size),
            check_whole("size", size),
        )
        self.tied, self.input_feeding = tied, input_feeding
        self.core, attention = lookup("core", core, CORES), lookup("attention", attention, SCORES)
        self._check_effect(attention, bidirectional, (heads, window) != (4, 64))
        self.table = self._table(self.tokens.previous)
        same = self.tokens.source == self.tokens.previous
        self.source_table = self.table if same else self._table(self.tokens.source)
        self.reader = make_reader(size, hidden_size, self.core, layers, bidirectional, heads, init)
        self.attend = None if attention == NONE else Attend(hidden_size, attention)
        self.topic = hidden_size + self.noise
        inputs = size + self.topic + (hidden_size if input_feeding else 0)
        self.writer = make_writer(inputs, hidden_size, self.core, layers, heads, window, init)

    def _check_effect(self, attention: str, bidirectional: bool, of_heads: bool) -> None:
        """Refuse options that change nothing, or do not go together."""
        if self.input_feeding and attention == NONE:
            raise UsageError("input_feeding: nothing is fed without attention; leave one out")
        if self.tied and self.size != self.features:
            raise UsageError(f"tied: size {self.size} has to be hidden_size, {self.features}")
        if of_heads and self.core != ATTENTION:
            raise UsageError(f"heads, window: no effect with core {self.core}; leave them out")
        if not bidirectional and self.core == ATTENTION:
            raise UsageError(
                "bidirectional: no effect with core attention, which reads all at once"
            )

    def _table(self, count: int) -> nn.Embedding:
        """Return an embedding; its weights are small where they are an output layer's, too."""
        table = nn.Embedding(count, self.size)
        if self.tied:
            nn.init.normal_(table.weight, 0.0, self.size**-0.5)
        return table

    def output_weight(self) -> Tensor | None:
        """Return the embedding of `previous`, where it is shared."""
        return self.table.weight if self.tied else None

    def initial_state(self, n: int) -> State:
        """Return zeros: nothing was read or written."""
        return self._nothing(n, self.tokens.length)

    def _nothing(self, n: int, length: int) -> dict[str, Any]:
        """Return the memory of n environments whose sources are of a length."""
        zeros = self.table.weight.new_zeros
        state = {"about": zeros(n, self.topic), "written": self.writer.initial_state(n)}
        if self.attend is not None:
            state["seen"] = zeros(n, length, self.features)
            state["length"] = zeros(n, dtype=torch.int64)
        if self.input_feeding:
            state["fed"] = zeros(n, self.features)
        return state

    def forward(self, obs: Any, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map `obs`, tokens [T, N, L] and [T, N], to features [T, N, hidden_size] and memory."""
        replies, state, sources = self._open(obs, start, state)
        about = self._about(sources, replies, start, state)
        return self._write(self._embedded(obs), replies, about, sources, state)

    # reading

    def _open(
        self, obs: Any, start: Tensor, state: State
    ) -> tuple[Replies, dict[str, Any], dict[str, Tensor]]:
        """Return the replies, the memory that enters, and what is read where they open."""
        source, previous = obs["source"], obs["previous"]
        replies = Replies(start | (previous == BEGIN))
        opened = replies.first(source).long()
        if len(opened) and not torch.compiler.is_compiling():
            check_sources(self, opened, replies.first(previous), self.tokens.source)
        state = self._nothing(start.shape[1], source.shape[-1]) if state is None else state
        return replies, state, self._sources(opened)

    def _sources(self, source: Tensor) -> dict[str, Tensor]:
        """Read tokens [R, L]: each as seen [R, L, H], length [R], and the summary [R, H]."""
        length = (source != PAD).sum(1)
        x = self.source_table(source.t()) * self._scale
        return self._read(x, length)

    def _read(self, x: Tensor, length: Tensor) -> dict[str, Tensor]:
        """Read embedded tokens [L, R, E] up to their length [R]."""
        if not len(length):
            seen, summary = x.new_zeros(0, len(x), self.features), x.new_zeros(0, self.features)
        else:
            seen, summary = self.reader(x, length)
        return {"seen": seen, "length": length, "summary": summary}

    def _about(
        self, sources: dict[str, Tensor], replies: Replies, start: Tensor, state: dict[str, Any]
    ) -> Tensor:
        """Return what the replies that open are about [R, H]: the summary of the source."""
        return sources["summary"]

    # writing

    @property
    def _scale(self) -> float:
        return math.sqrt(self.size) if self.tied else 1.0

    def _embedded(self, obs: Any) -> Tensor:
        """Return the embeddings [T, N, E] of the tokens before."""
        return self.table(obs["previous"].long()) * self._scale

    def _write(
        self,
        x: Tensor,
        replies: Replies,
        about: Tensor,
        sources: dict[str, Tensor],
        state: dict[str, Any],
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return features [T, N, H] and memory.

        x: [T, N, E] embeddings of the tokens before.  about: [R, A] of the replies that open.
        """
        opened = {"about": about, **sources}
        kept = [name for name in ("about", "seen", "length") if name in state]
        known: dict[str, Tensor] = {
            name: replies.of_each(state[name], opened[name]) for name in kept
        }
        x = torch.cat([x, replies.at_steps(known["about"])], -1)
        if self.input_feeding:
            out, last = self._write_by_step(x, replies, known, state)
        else:
            out, written = self.writer(x, replies.opens, state["written"])
            last = {"written": written}
            if self.attend is not None:
                looked = self.attend(replies.apart(out), known["seen"], known["length"])
                out = replies.together(looked)
        return out, {name: replies.at_step(part, -1) for name, part in known.items()} | last

    def _write_by_step(
        self, x: Tensor, replies: Replies, known: dict[str, Tensor], state: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Write with the features of the step before as inputs; those before a reply are 0."""
        assert self.attend is not None
        written, fed, outputs = state["written"], state["fed"], []
        for t in range(len(x)):
            opens = replies.opens[t : t + 1]
            fed = fed.masked_fill(opens[0, :, None], 0.0)
            y, written = self.writer(torch.cat([x[t], fed], -1)[None], opens, written)
            looked_at = (replies.at_step(known[name], t) for name in ("seen", "length"))
            fed = self.attend(y, *looked_at)[0]
            outputs.append(fed)
        return torch.stack(outputs), {"written": written, "fed": fed}


def make_writer(
    inputs: int, hidden: int, core: str, layers: int, heads: int, window: int, init: Init
) -> Network:
    """Return a decoder by the name of its core."""
    if core == ATTENTION:
        return Attention(inputs, hidden, layers=layers, heads=heads, window=window, init=init)
    return RECURRENT[core](inputs, hidden, layers=layers, init=init)
