"""Acting without torch: one step of a small network on NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from seqrl.core import State
from seqrl.networks.base import Plain
from seqrl.networks.mlp import MLP
from seqrl.networks.normalize import Normalize
from seqrl.networks.numpy_layers import CELLS, STEPS, Cell, Memory, Step
from seqrl.networks.recurrent import GRU, LSTM, RNN, Recurrent


class NumpyForward:
    """Plain layers as NumPy, for one step of N environments.

    It holds a copy of the weights: call `refresh()` after every update of the network. Results
    equal those of torch up to rounding, in the precision of the weights.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        self.layers = layers
        self.refresh()

    def refresh(self) -> None:
        """Copy the weights again."""
        self.steps: list[Any] = [_stage(layer) for layer in self.layers]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Obs [N, ...] -> features [N, F], for a network without memory."""
        for step in self.steps:
            obs = step(obs)
        return obs

    def step(self, obs: np.ndarray, start: np.ndarray, state: State = None) -> tuple[Any, State]:
        """The same for any network: as Network.forward, without the time axis.

        obs [N, ...], start bool [N], state with leaves [N, ...] (None: fresh).
        """
        x = obs
        for step in self.steps:
            if isinstance(step, Remember):
                x, state = step(x, start, state)
            else:
                x = step(x)
        return x, state


class Remember:
    """Recurrent layers as NumPy: x [N, F] and memory [N, layers, H], one or two arrays."""

    def __init__(self, core: Recurrent) -> None:
        self.cells: list[Cell] = [CELLS[type(layer)](layer) for layer in core.layers]
        self.parts, self.size, self.shortcut = core.parts, core.hidden, core.shortcut

    def __call__(self, x: np.ndarray, start: np.ndarray, state: State) -> tuple[Any, State]:
        """One step."""
        seen, before, after = x, self._entering(x, start, state), []
        for i, cell in enumerate(self.cells):
            memory = cell(x, tuple(part[:, i] for part in before))
            x = memory[0]
            after.append(memory)
        parts = tuple(np.stack(part, 1) for part in zip(*after, strict=True))
        x = np.concatenate([x, seen], 1) if self.shortcut else x
        return x, parts if self.parts > 1 else parts[0]

    def _entering(self, x: np.ndarray, start: np.ndarray, state: State) -> Memory:
        if state is None:
            fresh = np.zeros((len(x), len(self.cells), self.size), x.dtype)
            return (fresh,) * self.parts
        parts = state if self.parts > 1 else (state,)
        if not start.any():
            return parts
        zero = x.dtype.type(0)
        return tuple(np.where(start[:, None, None], zero, part) for part in parts)


def numpy_forward(*modules: nn.Module) -> NumpyForward | None:
    """The modules one after the other as NumPy; None if one of them is not plain.

    Plain are MLP on a vector, Discrete or MultiDiscrete space (normalised or not); RNN, LSTM
    without peepholes and GRU on such an encoder; and Linear, Tanh, ReLU, Sigmoid, Identity,
    Flatten and Sequential of these. Anything else, dropout included, acts through torch.
    """
    layers = list(_unfold(modules))
    if layers and all(_is_plain(layer) for layer in layers):
        return NumpyForward(layers)
    return None


def _unfold(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _unfold(module)
        elif type(module) is Plain:
            yield from _unfold([module.module])
        elif type(module) is MLP:
            yield from _unfold([module.source, module.layers])
        elif type(module) is Normalize or isinstance(module, Recurrent):
            yield from _unfold([module.source])
            yield module
        else:
            yield module


def _is_plain(layer: nn.Module) -> bool:
    if type(layer) in (RNN, LSTM, GRU):
        core: Any = layer
        return not core.inner and all(type(part) in CELLS for part in core.layers)
    return type(layer) in STEPS


def _stage(layer: nn.Module) -> Step | Remember:
    return Remember(layer) if isinstance(layer, Recurrent) else STEPS[type(layer)](layer)
