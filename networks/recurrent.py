"""Recurrent networks on any encoder: RNN, LSTM, GRU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from gymnasium import Space
from torch import Tensor, nn
from torch.nn import functional

from seqrl.core import State
from seqrl.networks.base import Core
from seqrl.networks.encoders import as_source
from seqrl.networks.layers import ELMAN, GRULayer, Layer, LSTMLayer, Memory, PeepholeLayer
from seqrl.networks.options import lookup, number, share, whole
from seqrl.networks.stretch import stretch


class Recurrent(Core):
    """Layers of one kind, each fed by the one below; memory [N, layers, H], one or two tensors.

    A rollout goes through one fused call a layer, whatever episodes start inside it (see
    `stretch`); a single step (T = 1) goes through torch's cell. With `shortcut` the features are
    the memory's output and, beside it, its input: what is seen now need not pass through what
    is remembered (Ni, Eysenbach and Salakhutdinov 2022, "Recurrent Model-Free RL Can Be a Strong
    Baseline for Many POMDPs").
    """

    remembers = True
    parts = 1  # tensors of memory

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int,
        make: Callable[[int, int], Layer],
        layers: int,
        dropout: float,
        shortcut: bool,
    ) -> None:
        super().__init__(as_source(encoder))
        self.hidden, self.shortcut = whole("hidden_size", hidden_size), shortcut
        self.depth, self.dropout = whole("layers", layers), share("dropout", dropout)
        self.make = make
        self.layers = nn.ModuleList()
        self.ready()

    def build(self, features: int) -> None:
        """The layers; the first takes `features` inputs."""
        for i in range(self.depth):
            self.layers.append(self.make(self.hidden if i else features, self.hidden))
        self.features = self.hidden + (features if self.shortcut else 0)

    def fresh(self, n: int) -> State:
        """Zeros [N, layers, H]: h, or (h, c)."""
        like = self.layers[0].get_parameter("weight_hh")
        zeros = tuple(like.new_zeros(n, self.depth, self.hidden) for _ in range(self.parts))
        return zeros if self.parts > 1 else zeros[0]

    def run(self, x: Tensor, start: Tensor, own: State) -> tuple[Tensor, State]:
        """[T, N, F] -> [T, N, H], or [T, N, H + F] with the shortcut."""
        entering = cleared(own if self.parts > 1 else (own,), start[0])
        plan = stretch(start) if len(start) > 1 else None
        seen, leaving = x, []
        for i, layer in enumerate(cast("list[Layer]", self.layers)):
            memory = tuple(part[:, i] for part in entering)
            if i:
                x = functional.dropout(x, self.dropout, self.training)
            if len(start) == 1:
                memory = layer.step(x[0], memory)
                x = memory[0][None]
            else:
                x, memory = layer.sequence(x, start, plan, memory)
            leaving.append(memory)
        parts = tuple(_layered(part) for part in zip(*leaving, strict=True))
        x = torch.cat([x, seen], -1) if self.shortcut else x
        return x, parts if self.parts > 1 else parts[0]


def cleared(memory: Memory, opening: Tensor) -> Memory:
    """Memory [N, ...] with the rows where `opening` [N] holds set to 0."""
    if not opening.is_cuda and not opening.any():  # the usual step; a GPU would have to wait
        return memory
    return tuple(part.masked_fill(opening[:, None, None], 0.0) for part in memory)


def _layered(parts: tuple[Tensor, ...]) -> Tensor:
    """[N, H] of every layer -> [N, layers, H]; of a single one without a copy."""
    return torch.stack(parts, 1) if len(parts) > 1 else parts[0].unsqueeze(1)


class RNN(Recurrent):
    """Elman's recurrent network (Elman 1990).

    encoder: an observation space, a network, a plain module, or a number of features.
    nonlinearity: "tanh", "relu", "sigmoid" or "identity"; the last two loop over time.
    init: see `initialise`; "irnn" and "identity" are the identity for the recurrent weights, biases
        0 and input weights of spread 0.001 (Le, Jaitly and Hinton 2015, for relu) or 0.2 (tanh).
    dropout: between layers.  shortcut: see `Recurrent`.  Memory: h [N, layers, hidden_size].
    """

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int = 64,
        *,
        layers: int = 1,
        nonlinearity: str = "tanh",
        dropout: float = 0.0,
        init: str | float | None = None,
        shortcut: bool = False,
    ) -> None:
        kind = ELMAN[lookup("nonlinearity", nonlinearity, ELMAN)]
        super().__init__(encoder, hidden_size, partial(kind, init=init), layers, dropout, shortcut)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997).

    encoder: an observation space, a network, a plain module, or a number of features.
    forget_bias: the forget gate's bias, 1 to remember from the start; None as torch draws it.
    peephole: gates see the cell (Gers et al. 2002); loops over time.
    dropout: between layers.  init: see `initialise`.  shortcut: see `Recurrent`.
    Memory: (h, c), each [N, layers, hidden_size].
    """

    parts = 2

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int = 64,
        *,
        layers: int = 1,
        forget_bias: float | None = 1.0,
        peephole: bool = False,
        dropout: float = 0.0,
        init: str | float | None = None,
        shortcut: bool = False,
    ) -> None:
        kind = PeepholeLayer if peephole else LSTMLayer
        make = partial(kind, init=init, forget_bias=number("forget_bias", forget_bias))
        super().__init__(encoder, hidden_size, make, layers, dropout, shortcut)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), in torch's convention.

    encoder: an observation space, a network, a plain module, or a number of features.
    keep_bias: the update gate's bias, above 0 to remember from the start; None as torch draws it.
    dropout: between layers.  init: see `initialise`.  shortcut: see `Recurrent`.
    Memory: h [N, layers, hidden_size].
    """

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int = 64,
        *,
        layers: int = 1,
        keep_bias: float | None = None,
        dropout: float = 0.0,
        init: str | float | None = None,
        shortcut: bool = False,
    ) -> None:
        make = partial(GRULayer, init=init, keep_bias=number("keep_bias", keep_bias))
        super().__init__(encoder, hidden_size, make, layers, dropout, shortcut)
