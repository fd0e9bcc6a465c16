"""Layers as NumPy functions, each made from a copy of the torch layer's weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from seqrl.networks import layers
from seqrl.networks.normalize import Normalize
from seqrl.networks.vectors import Numbers, OneHot

Forward = Callable[[np.ndarray], np.ndarray]
Memory = tuple[np.ndarray, ...]  # (h,) or (h, c), each [N, H]
Cell = Callable[[np.ndarray, Memory], Memory]


def relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0)."""
    return np.maximum(x, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function, by tanh, which cannot overflow."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def _linear(layer: nn.Linear) -> Forward:
    weight, bias = _transposed(layer.weight), 0.0 if layer.bias is None else _copy(layer.bias)

    def forward(x: np.ndarray) -> np.ndarray:
        y = x @ weight
        y += bias
        return y

    return forward


def _normalize(layer: Normalize) -> Forward:
    mean, scale = _copy(layer.mean), _copy(torch.rsqrt(layer.var + layer.epsilon))
    limit = layer.limit
    return lambda x: np.clip((x - mean) * scale, -limit, limit)


def _numbers(layer: Numbers) -> Forward:
    features, scale = layer.features, _copy(layer.scale)[()]

    def forward(obs: np.ndarray) -> np.ndarray:
        x = obs.reshape(len(obs), features).astype(scale.dtype, copy=False)
        return x / scale if layer.scaled else x

    return forward


def _one_hot(layer: OneHot) -> Forward:
    features, shift, dtype = layer.features, _copy(layer.shift), _copy(layer.like).dtype

    def forward(obs: np.ndarray) -> np.ndarray:
        x = np.zeros((len(obs), features), dtype)
        x[np.arange(len(x))[:, None], obs.reshape(len(obs), -1) + shift] = 1.0
        return x

    return forward


def _elman(function: Forward) -> Callable[[layers.Layer], Cell]:
    def make(layer: layers.Layer) -> Cell:
        project = _projection(layer)
        return lambda x, memory: (function(project(x, memory[0])),)

    return make


def _lstm(layer: layers.LSTMLayer) -> Cell:
    project, size = _projection(layer), layer.weight_hh.shape[1]

    def cell(x: np.ndarray, memory: Memory) -> Memory:
        gates = project(x, memory[0])
        g = np.tanh(gates[:, 2 * size : 3 * size])
        gates = sigmoid(gates)
        i, f, o = gates[:, :size], gates[:, size : 2 * size], gates[:, 3 * size :]
        c = f * memory[1] + i * g
        return o * np.tanh(c), c

    return cell


def _gru(layer: layers.GRULayer) -> Cell:
    w, u = _transposed(layer.weight_ih), _transposed(layer.weight_hh)
    b, d, size = _copy(layer.bias_ih), _copy(layer.bias_hh), layer.weight_hh.shape[1]

    def cell(x: np.ndarray, memory: Memory) -> Memory:
        (h,) = memory
        from_x, from_h = x @ w + b, h @ u + d
        rz = sigmoid(from_x[:, : 2 * size] + from_h[:, : 2 * size])
        n = np.tanh(from_x[:, 2 * size :] + rz[:, :size] * from_h[:, 2 * size :])
        return (n + rz[:, size:] * (h - n),)

    return cell


def _projection(layer: layers.Layer) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    w, u = _transposed(layer.weight_ih), _transposed(layer.weight_hh)
    bias = _copy(layer.bias_ih + layer.bias_hh)

    def project(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        gates = x @ w
        gates += h @ u
        gates += bias
        return gates

    return project


def _copy(tensor: torch.Tensor) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy())


def _transposed(weight: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(weight.detach().cpu().numpy().T)


def _without_weights(function: Forward) -> Callable[[nn.Module], Forward]:
    return lambda layer: function


FORWARDS: dict[type[nn.Module], Callable[..., Forward]] = {
    nn.Linear: _linear,
    Normalize: _normalize,
    Numbers: _numbers,
    OneHot: _one_hot,
    nn.Tanh: _without_weights(np.tanh),
    nn.ReLU: _without_weights(relu),
    nn.Sigmoid: _without_weights(sigmoid),
    nn.Identity: _without_weights(lambda x: x),
    nn.Flatten: _without_weights(lambda x: x.reshape(len(x), -1)),
}
CELLS: dict[type[nn.Module], Callable[..., Cell]] = {
    layers.TanhLayer: _elman(np.tanh),
    layers.ReluLayer: _elman(relu),
    layers.SigmoidLayer: _elman(sigmoid),
    layers.IdentityLayer: _elman(lambda x: x),
    layers.LSTMLayer: _lstm,
    layers.GRULayer: _gru,
}
