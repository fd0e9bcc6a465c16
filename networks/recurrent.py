"""Recurrent networks on any encoder: RNN, LSTM, GRU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from gymnasium import Space
from torch import Tensor, nn
from torch.nn import functional

from seqrl.core.checks import check_whole
from seqrl.core.types import State
from seqrl.networks.base import Core
from seqrl.networks.encoders import as_source
from seqrl.networks.layers import ELMAN, GRULayer, Layer, LSTMLayer, Memory, PeepholeLayer
from seqrl.networks.options import lookup, number_or_none, probability
from seqrl.networks.resets import reset_layout


class Recurrent(Core):
    """A stack of layers of one kind; memory [N, layers, H], one or two tensors.

    A rollout goes through one fused call a layer, whatever episodes start inside it (see
    `reset_layout`); a single step (T = 1) goes through torch's cell. With `shortcut` the features
    are output and input, concatenated: what is observed need not pass through the memory (Ni et
    al. 2022, "Recurrent Model-Free RL Can Be a Strong Baseline for Many POMDPs").

    dropout: of the numbers that go from layer to layer, others at every step. input_dropout,
    recurrent_dropout: of the inputs, and of the memory that the gates read; the same ones at all
    steps of a call (see `held_mask`), which the latter takes in a loop over time.
    """

    has_own_memory = True
    memory_tensors = 1

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int,
        make_layer: Callable[[int, int], Layer],
        layers: int,
        dropout: float,
        input_dropout: float,
        recurrent_dropout: float,
        shortcut: bool,
    ) -> None:
        super().__init__(as_source(encoder))
        self.hidden, self.shortcut = check_whole("hidden_size", hidden_size), shortcut
        self.depth, self.dropout = check_whole("layers", layers), probability("dropout", dropout)
        self.input_dropout = probability("input_dropout", input_dropout)
        self.recurrent_dropout = probability("recurrent_dropout", recurrent_dropout)
        self.make_layer = make_layer
        self.layers = nn.ModuleList()
        self.build_once()

    def build(self, features: int) -> None:
        """Make the layers; the first takes `features` inputs."""
        for i in range(self.depth):
            self.layers.append(self.make_layer(self.hidden if i else features, self.hidden))
        self.features = self.hidden + (features if self.shortcut else 0)

    def own_initial_state(self, n: int) -> State:
        """Return zeros [N, layers, H]: h, or (h, c)."""
        like = self.layers[0].get_parameter("weight_hh")
        shape = (n, self.depth, self.hidden)
        zeros = tuple(like.new_zeros(shape) for _ in range(self.memory_tensors))
        return zeros if self.memory_tensors > 1 else zeros[0]

    def run(self, x: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
        """Map [T, N, F] to [T, N, H], or to [T, N, H + F] with the shortcut."""
        initial = reset_memory(state if self.memory_tensors > 1 else (state,), start[0])
        layout = reset_layout(start) if len(start) > 1 else None
        inputs, final = x, []
        if self.input_dropout and self.training:
            x = x * held_mask(x[0], self.input_dropout)
        for i, layer in enumerate(cast("list[Layer]", self.layers)):
            memory = tuple(part[:, i] for part in initial)
            if i:
                x = functional.dropout(x, self.dropout, self.training)
            if self.recurrent_dropout and self.training:
                mask = held_mask(memory[0], self.recurrent_dropout)
                x, memory = layer.masked_sequence(x, start, memory, mask)
            elif len(start) == 1:
                memory = layer.step(x[0], memory)
                x = memory[0][None]
            else:
                x, memory = layer.sequence(x, start, layout, memory)
            final.append(memory)
        parts = tuple(map(_stack_layers, zip(*final, strict=True)))
        x = torch.cat([x, inputs], -1) if self.shortcut else x
        return x, parts if self.memory_tensors > 1 else parts[0]


def reset_memory(memory: Memory, start: Tensor) -> Memory:
    """Return memory [N, ...] with 0 in the environments where `start` [N] is True."""
    # any() would let the CPU wait for a GPU, and a trace knows no values
    if not (start.device.type != "cpu" or torch.compiler.is_compiling() or start.any()):
        return memory
    return tuple(part.masked_fill(start[:, None, None], 0.0) for part in memory)


def held_mask(like: Tensor, dropout: float) -> Tensor:
    """Return 0 for numbers [N, F] to drop, else 1 / (1 - dropout): for all steps of a call alike.

    Gal and Ghahramani (2016), section 4.
    """
    return functional.dropout(torch.ones_like(like), dropout)


def _stack_layers(parts: tuple[Tensor, ...]) -> Tensor:
    """Stack [N, H] of every layer to [N, layers, H]; without a copy for a single one."""
    return torch.stack(parts, 1) if len(parts) > 1 else parts[0].unsqueeze(1)


class RNN(Recurrent):
    """Elman's recurrent network (Elman 1990).

    encoder: an observation space, a network, a plain module, or a number of features: RNN(2, 16)
        is the textbook's, 16 units on vectors of 2 numbers.
    nonlinearity: "tanh", "relu", "sigmoid" or "identity"; the last two loop over time.
    init: see `initialise`; "irnn" and "identity" are the identity for the recurrent weights, biases
        0 and input weights of std 0.001 (Le, Jaitly and Hinton 2015, for relu) or 0.2 (tanh).
    dropout, input_dropout, recurrent_dropout, shortcut: see `Recurrent`.
    Memory: h [N, layers, hidden_size].
    """

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int = 64,
        *,
        layers: int = 1,
        nonlinearity: str = "tanh",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        init: str | float | None = None,
        shortcut: bool = False,
    ) -> None:
        kind = ELMAN[lookup("nonlinearity", nonlinearity, ELMAN)]
        dropouts = dropout, input_dropout, recurrent_dropout
        make = partial(kind, init=init)
        super().__init__(encoder, hidden_size, make, layers, *dropouts, shortcut)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997).

    encoder: an observation space, a network, a plain module, or a number of features.
    forget_bias: the forget gate's bias, 1 to remember from the start; None: random as in torch.
    peephole: the gates also read the cell (Gers et al. 2002); loops over time.
    init: see `initialise`.  dropout, input_dropout, recurrent_dropout, shortcut: see `Recurrent`.
    Memory: (h, c), each [N, layers, hidden_size].
    """

    memory_tensors = 2

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int = 64,
        *,
        layers: int = 1,
        forget_bias: float | None = 1.0,
        peephole: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        init: str | float | None = None,
        shortcut: bool = False,
    ) -> None:
        kind = PeepholeLayer if peephole else LSTMLayer
        make = partial(kind, init=init, keep_bias=number_or_none("forget_bias", forget_bias))
        dropouts = dropout, input_dropout, recurrent_dropout
        super().__init__(encoder, hidden_size, make, layers, *dropouts, shortcut)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), in torch's convention.

    encoder: an observation space, a network, a plain module, or a number of features.
    keep_bias: the update gate's bias, above 0 to remember from the start; None: random as in torch.
    init: see `initialise`.  dropout, input_dropout, recurrent_dropout, shortcut: see `Recurrent`.
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
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        init: str | float | None = None,
        shortcut: bool = False,
    ) -> None:
        make = partial(GRULayer, init=init, keep_bias=number_or_none("keep_bias", keep_bias))
        dropouts = dropout, input_dropout, recurrent_dropout
        super().__init__(encoder, hidden_size, make, layers, *dropouts, shortcut)
