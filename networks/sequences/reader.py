"""What reads a source: every token in the light of the others, and a summary."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.networks.attention import Block
from seqrl.networks.base import Network
from seqrl.networks.bidirectional import Bidirectional, at
from seqrl.networks.options import initialise_layer
from seqrl.networks.recurrent import GRU, LSTM, RNN

RECURRENT: dict[str, type[RNN] | type[LSTM] | type[GRU]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
ATTENTION = "attention"
CORES = (*RECURRENT, ATTENTION)
Init = str | float | None


def make_reader(
    size: int, hidden: int, core: str, layers: int, bidirectional: bool, heads: int, init: Init
) -> Reader:
    """Return a reader of embeddings of this size by the name of its core."""
    if core == ATTENTION:
        return AttentionReader(size, hidden, layers, heads, init)
    return RecurrentReader(size, hidden, core, layers, bidirectional, init)


class Reader(nn.Module):
    """From embedded tokens [L, B, E] of `length` [B] to outputs [B, L, H] and a summary [B, H].

    Behind its length a sequence is padding, which changes nothing.
    """


class RecurrentReader(Reader):
    """A recurrent core from the front, and of half the units each from both ends if asked.

    The summary is what was read last (Sutskever et al. 2014), from each end (Schuster and Paliwal
    1997).
    """

    def __init__(
        self, size: int, hidden: int, core: str, layers: int, both: bool, init: Init
    ) -> None:
        super().__init__()
        if both and check_whole("hidden_size", hidden) % 2:
            raise UsageError(f"hidden_size {hidden}: expected an even number for two directions")

        def make(features: int, units: int) -> Network:
            return RECURRENT[core](features, units, layers=layers, init=init)

        self.core: Network
        if both:
            self.core = Bidirectional(size, hidden // 2, core=make)
        else:
            self.core = make(size, hidden)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Read."""
        length = length.clamp(min=1)
        if isinstance(self.core, Bidirectional):
            out = self.core.read(x, length)
            return out.transpose(0, 1), self.core.ends(out, length)
        start = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        start[0] = True
        out, _ = self.core(x, start)
        return out.transpose(0, 1), at(out, length - 1)


class AttentionReader(Reader):
    """The encoder of a transformer: every token attends to all (Vaswani et al. 2017).

    The summary is the mean over the tokens.
    """

    def __init__(self, size: int, hidden: int, layers: int, heads: int, init: Init) -> None:
        super().__init__()
        if check_whole("hidden_size", hidden) % check_whole("heads", heads) or hidden % 2:
            raise UsageError(f"hidden_size {hidden}: expected an even multiple of heads = {heads}")
        self.enter, self.norm = nn.Linear(size, hidden), nn.LayerNorm(hidden)
        initialise_layer(self.enter, init)
        self.blocks = nn.ModuleList(
            Block(hidden, heads, 0.0, init) for _ in range(check_whole("layers", layers))
        )

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Read."""
        whole = WholeSequence(len(x), length.clamp(min=1))
        x = self.enter(x).transpose(0, 1)
        x = x + positions(x.shape[1], x)
        nothing = x.new_zeros(len(x), 0, 2 * x.shape[2])
        for block in self.blocks:
            x, _ = block(x, nothing, whole)
        x = self.norm(x)
        inside = whole.mask[:, 0, 0, :, None]
        return x, (x * inside).sum(1) / inside.sum(1)


class WholeSequence:
    """Attention from every token to all within the length [B], for `Block` in place of a window."""

    def __init__(self, steps: int, length: Tensor) -> None:
        self.steps = steps
        every = torch.arange(steps, device=length.device)
        self.mask = (every < length[:, None])[:, None, None]  # [B, 1, 1, L]

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, heads: int, dropout: float
    ) -> Tensor:
        """Return [B, L, H] for queries, keys and values [B, L, H]."""
        three = (queries, keys, values)
        q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in three)
        out = nn.functional.scaled_dot_product_attention(q, k, v, self.mask, dropout)
        return out.transpose(1, 2).flatten(2)


def positions(steps: int, like: Tensor) -> Tensor:
    """Return the sinusoidal encoding [L, H] of places in a sequence."""
    size = like.shape[-1]
    exponents = torch.arange(size // 2, device=like.device) * (-2 * math.log(10_000.0) / size)
    angles = torch.arange(steps, device=like.device)[:, None] * exponents.exp()
    return torch.cat([angles.sin(), angles.cos()], -1).to(like.dtype)
