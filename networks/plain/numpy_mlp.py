"""A multi-layer perceptron in NumPy, forward and backward: faster than torch if small."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from seqrl.core.arrays import to_numpy
from seqrl.core.types import State
from seqrl.networks.plain.numpy_forward import Addresses, numpy_forward
from seqrl.networks.plain.numpy_layers import FORWARDS, Forward
from seqrl.networks.vectors import Numbers, OneHot

Backward = Callable[[np.ndarray, np.ndarray], Any]
Pair = tuple[nn.Linear, type[nn.Module]]  # a linear layer and its activation


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0, out=x)


def _tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(x, out=x)


def _identity(x: np.ndarray) -> np.ndarray:
    return x


# forward, x to y in place; backward, from y and dL/dy to dL/dx
ACTIVATIONS: dict[type[nn.Module], tuple[Forward, Backward]] = {
    nn.Identity: (_identity, lambda y, grad: grad),
    nn.ReLU: (_relu, lambda y, grad: np.multiply(grad, y > 0.0, out=grad)),
    nn.Tanh: (_tanh, lambda y, grad: np.multiply(grad, 1.0 - y * y, out=grad)),
}


class DenseLayer:
    """y = f(x W^T + b), and the arrays into which the gradients of W and b are written."""

    def __init__(
        self, layer: nn.Linear, activation: type[nn.Module], weight: np.ndarray, bias: np.ndarray
    ):
        self.layer, self.weight, self.bias = layer, to_numpy(layer.weight), to_numpy(layer.bias)
        self.transposed = self.weight.T
        self.activation, self.activation_backward = ACTIVATIONS[activation]
        self.weight_gradient, self.bias_gradient = weight, bias

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Map x [B, F] to y [B, G]."""
        y = x @ self.transposed
        y += self.bias
        return self.activation(y)

    def backward(self, x: np.ndarray, y: np.ndarray, grad: np.ndarray) -> np.ndarray:
        """Write the gradients; return dL/d(xW^T + b) from `grad`, dL/dy [B, G]."""
        grad = self.activation_backward(y, grad)
        np.matmul(grad.T, x, out=self.weight_gradient)
        np.add.reduce(grad, 0, out=self.bias_gradient)
        if not self.layer.weight.requires_grad:
            self.weight_gradient[...] = 0.0
        if not self.layer.bias.requires_grad:
            self.bias_gradient[...] = 0.0
        return grad


class NumpyMLP:
    """Linear layers with activations, forward and backward in NumPy.

    The layers' parameters become views of the array `weights` [P], so that an optimiser steps one
    array and whoever reads or writes the parameters sees the same numbers. `gradient` [P]
    is its gradient. Results equal torch's up to rounding. Where `bound` is False a parameter was
    replaced or moved (assigned, copied with its network): call `bind`.

    head: what torch makes of the outputs. Its own weights, if any, stand behind the layers' in the
        arrays, and torch works out their gradients.
    """

    def __init__(self, encoder: nn.Module, pairs: list[Pair], head: nn.Module):
        self.encoder, self.pairs, self.head = encoder, pairs, head
        self.bind()

    def bind(self) -> None:
        """Make the layers' present parameters views of one array."""
        self.encode: Forward = FORWARDS[type(self.encoder)](self.encoder)
        self.of_head = list(self.head.parameters())
        self.parameters = [
            *(weight for layer, _ in self.pairs for weight in (layer.weight, layer.bias)),
            *self.of_head,
        ]
        stops = list(itertools.accumulate(weight.numel() for weight in self.parameters))
        self.slices = [slice(a, b) for a, b in itertools.pairwise([0, *stops])]
        joined = torch.cat([weight.detach().flatten() for weight in self.parameters])
        self.weights: np.ndarray = joined.numpy()
        for weight, view in zip(self.parameters, self.views(self.weights), strict=True):
            weight.data = torch.from_numpy(view)
        self.gradient = np.zeros_like(self.weights)
        views = self.views(self.gradient)
        self.layers = [
            DenseLayer(*pair, *views[2 * i : 2 * i + 2])  # gradients of weight, bias
            for i, pair in enumerate(self.pairs)
        ]
        self.gradients_of_head = views[2 * len(self.pairs) :]
        self._addresses = Addresses([*(layer for layer, _ in self.pairs), self.head])

    def __getstate__(self) -> dict[str, Any]:
        """Return the layers: functions cannot be pickled, and a copy's parameters are others."""
        return {"encoder": self.encoder, "pairs": self.pairs, "head": self.head}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bind the parameters of the copied layers."""
        self.encoder, self.pairs, self.head = state["encoder"], state["pairs"], state["head"]
        self.bind()

    @property
    def bound(self) -> bool:
        """Whether the layers' parameters are still views of `weights`."""
        return not self._addresses.changed()

    def activations(self, obs: np.ndarray) -> list[np.ndarray]:
        """Return the inputs of the first layer and the outputs of every layer."""
        values = [self.encode(obs)]
        for layer in self.layers:
            values.append(layer.forward(values[-1]))
        return values

    def backward(self, activations: list[np.ndarray], grad: np.ndarray) -> np.ndarray:
        """Return the gradient of a loss, given that by the output [B, F]; overwrites `grad`.

        The head's weights have theirs in `grad`, as torch leaves it; none is 0.
        """
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            grad = layer.backward(activations[i], activations[i + 1], grad)
            if i:
                grad = grad @ layer.weight
        for weight, view in zip(self.of_head, self.gradients_of_head, strict=True):
            view[...] = 0.0 if weight.grad is None else weight.grad.numpy()
        return self.gradient

    def step(self, obs: np.ndarray, start: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return the output for obs [N, ...], as NumpyForward.step."""
        return self.activations(obs)[-1], None

    def refresh(self) -> None:
        """Bind the parameters again where one was replaced."""
        if self._addresses.changed():
            self.bind()

    def views(self, flat: np.ndarray) -> list[np.ndarray]:
        """Return each parameter's view of a flat array [P], in its shape."""
        pairs = zip(self.slices, self.parameters, strict=True)
        return [flat[part].reshape(weight.shape) for part, weight in pairs]


def numpy_mlp(
    network: nn.Module, layer: nn.Linear, head: nn.Module | None = None
) -> NumpyMLP | None:
    """Return the network and the layer after it as a NumpyMLP; None if they are not plain.

    head: what torch makes of the layer's numbers, with weights of its own or without.
    Plain are an MLP on a Box, Discrete, MultiDiscrete or MultiBinary space whose activation is
    ReLU, Tanh or Identity, without LayerNorm, dropout and normalisation, on the CPU.
    """
    head = nn.Module() if head is None else head
    weights = [weight for part in (network, layer, head) for weight in part.parameters()]
    if len({(weight.device.type, weight.requires_grad, weight.dtype) for weight in weights}) > 1:
        return None
    forward = numpy_forward(network, layer) if weights[0].device.type == "cpu" else None
    if forward is None or type(forward.layers[0]) not in (Numbers, OneHot):
        return None
    pairs = layer_pairs(forward.layers[1:])
    own = [weight for linear, _ in pairs for weight in (linear.weight, linear.bias)]
    own += head.parameters()
    distinct = len(own) == len(weights) == len({id(weight) for weight in own})  # none comes twice
    return NumpyMLP(forward.layers[0], pairs, head) if pairs and distinct else None


def layer_pairs(layers: list[nn.Module]) -> list[Pair]:
    """Return every linear layer with its activation; [] if there is any other layer."""
    pairs: list[Pair] = []
    for layer in layers:
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            pairs.append((layer, nn.Identity))
        elif type(layer) in ACTIVATIONS and pairs and pairs[-1][1] is nn.Identity:
            pairs[-1] = pairs[-1][0], type(layer)
        else:
            return []
    return pairs
