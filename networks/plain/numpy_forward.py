"""The forward pass of a small network in NumPy, one step of N environments a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from seqrl.core.arrays import host
from seqrl.core.types import State
from seqrl.networks.base import ModuleEncoder, is_chain
from seqrl.networks.mlp import MLP
from seqrl.networks.normalize import Normalize
from seqrl.networks.normalized import Normalized
from seqrl.networks.plain.numpy_layers import CELLS, FORWARDS, Cell, Memory
from seqrl.networks.recurrent import GRU, LSTM, RNN, Recurrent


class Addresses:
    """Where the weights and buffers of modules lie, to notice when one is replaced."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.homes: list[tuple[dict[str, Any], str]] = [
            (tensors, name)
            for module in modules
            for part in module.modules()
            for tensors in (part._parameters, part._buffers)
            for name, tensor in tensors.items()
            if tensor is not None
        ]
        self.known = self._now()

    def _now(self) -> list[int]:
        return [t[name].data_ptr() for t, name in self.homes]

    def changed(self) -> bool:
        """Return whether any was, since they were looked up."""
        return self._now() != self.known


class NumpyForward:
    """Layers as NumPy functions, for one step of N environments.

    It holds a copy of the weights, transposed for speed, which `refresh` makes anew where they
    have changed. Results equal those of torch up to rounding, in the precision of the weights.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        self.layers = layers
        self._copy()

    def _copy(self) -> None:
        self.functions: list[Any] = [FUNCTIONS[type(layer)](layer) for layer in self.layers]
        self._addresses = Addresses(self.layers)
        arrays: list[Any] = [host(tensors[name]) for tensors, name in self._addresses.homes]
        self._bytes = [(bytearray(array), memoryview(array)) for array in arrays]

    def __getstate__(self) -> dict[str, Any]:
        """Return the layers: functions cannot be pickled, and a copy's layers are others."""
        return {"layers": self.layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy the weights of the copied layers."""
        self.layers = state["layers"]
        self._copy()

    def refresh(self) -> None:
        """Copy the weights again, if they have changed.

        Their bytes are compared: torch counts no write of a fused optimiser or through `.data`.
        """
        if self._addresses.changed() or any(old != now for old, now in self._bytes):
            self._copy()

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Map obs [N, ...] to features [N, F], for a network without memory."""
        for function in self.functions:
            obs = function(obs)
        return obs

    def step(self, obs: np.ndarray, start: np.ndarray, state: State = None) -> tuple[Any, State]:
        """As Network.forward for one step: obs [N, ...], start bool [N], state [N, ...] or None."""
        x = obs
        for function in self.functions:
            if isinstance(function, NumpyRecurrent):
                x, state = function(x, start, state)
            else:
                x = function(x)
        return x, state


class NumpyRecurrent:
    """Recurrent layers as NumPy: x [N, F] and memory [N, layers, H], one or two arrays."""

    def __init__(self, core: Recurrent) -> None:
        self.cells: list[Cell] = [CELLS[type(layer)](layer) for layer in core.layers]
        self.size, self.shortcut = core.hidden, core.shortcut
        self.memory_tensors = core.memory_tensors

    def __call__(self, x: np.ndarray, start: np.ndarray, state: State) -> tuple[Any, State]:
        """Return the features and the memory after one step."""
        inputs, before, after = x, self._memory_before(x, start, state), []
        for i, cell in enumerate(self.cells):
            memory = cell(x, tuple(part[:, i] for part in before))
            x = memory[0]
            after.append(memory)
        parts = tuple(np.stack(part, 1) for part in zip(*after, strict=True))
        x = np.concatenate([x, inputs], 1) if self.shortcut else x
        return x, parts if self.memory_tensors > 1 else parts[0]

    def _memory_before(self, x: np.ndarray, start: np.ndarray, state: State) -> Memory:
        if state is None:
            zeros = np.zeros((len(x), len(self.cells), self.size), x.dtype)
            return (zeros,) * self.memory_tensors
        parts = state if self.memory_tensors > 1 else (state,)
        if not start.any():
            return parts
        zero = x.dtype.type(0)
        return tuple(np.where(start[:, None, None], zero, part) for part in parts)


def numpy_forward(*modules: nn.Module) -> NumpyForward | None:
    """Return the modules, applied in order, in NumPy; None if one of them is not plain.

    Plain are MLP on a vector, Discrete or MultiDiscrete space (normalised or not); RNN, LSTM
    without peepholes and GRU on such an encoder; and Linear, Tanh, ReLU, Sigmoid, Identity,
    Flatten and Sequential of these. Anything else, dropout and hooks included, acts through torch.
    """
    layers = list(_layers(modules))
    plain = layers and all(_is_plain(layer) for layer in layers)
    return NumpyForward(layers) if plain and not any(map(_has_hooks, modules)) else None


def _layers(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    for module in modules:
        if is_chain(module):
            yield from _layers(module)
        elif type(module) is ModuleEncoder:
            yield from _layers([module.module])
        elif type(module) is MLP:
            yield from _layers([module.source, module.layers])
        elif type(module) is Normalized and module.is_vector:
            yield from _layers([*module.parts, module.network])
        elif type(module) is Normalize or isinstance(module, Recurrent):
            yield from _layers([module.source])
            yield module
        else:
            yield module


def _is_plain(layer: nn.Module) -> bool:
    if type(layer) in (RNN, LSTM, GRU):
        core: Any = layer
        return not core.source_has_memory and all(type(part) in CELLS for part in core.layers)
    wide = isinstance(layer, Normalize) and layer.source.wide  # which takes float64
    return type(layer) in FORWARDS and not wide


def _has_hooks(module: nn.Module) -> bool:
    """Return whether a hook (such as that of weight_norm) or a patched forward has its say."""
    return any(
        part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
        for part in module.modules()
    )


FUNCTIONS: dict[type[nn.Module], Any] = FORWARDS | dict.fromkeys((RNN, LSTM, GRU), NumpyRecurrent)
