"""Plain layers in NumPy, forward and backward: several times faster than torch if small."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from seqrl.agents.torch_tools import to_numpy
from seqrl.core import State
from seqrl.networks import numpy_forward
from seqrl.networks.numpy_layers import STEPS, Step
from seqrl.networks.vectors import Numbers, OneHot

Slope = Callable[[np.ndarray, np.ndarray], Any]
Pair = tuple[nn.Linear, type[nn.Module]]  # and the function behind it


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0, out=x)


def _tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(x, out=x)


def _same(x: np.ndarray) -> np.ndarray:
    return x


# what each does to x, in place, and from its result y and dL/dy to dL/dx
FUNCTIONS: dict[type[nn.Module], tuple[Step, Slope]] = {
    nn.Identity: (_same, lambda y, d: d),
    nn.ReLU: (_relu, lambda y, d: np.multiply(d, y > 0.0, out=d)),
    nn.Tanh: (_tanh, lambda y, d: np.multiply(d, 1.0 - y * y, out=d)),
}


class Layer:
    """y = f(x W^T + b), and where the gradient of W and b is to be written."""

    def __init__(
        self, layer: nn.Linear, function: type[nn.Module], weight: np.ndarray, bias: np.ndarray
    ):
        self.layer, self.weight, self.bias = layer, to_numpy(layer.weight), to_numpy(layer.bias)
        self.turned = self.weight.T
        self.function, self.slope = FUNCTIONS[function]
        self.weight_slope, self.bias_slope = weight, bias

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x [B, F] -> y [B, G]."""
        y = x @ self.turned
        y += self.bias
        return self.function(y)

    def backward(self, x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
        """dL/dy [B, G] -> dL/d(xW^T + b), from which the weights' slopes follow."""
        d = self.slope(y, d)
        np.matmul(d.T, x, out=self.weight_slope)
        np.add.reduce(d, 0, out=self.bias_slope)
        if not self.layer.weight.requires_grad:
            self.weight_slope[...] = 0.0
        if not self.layer.bias.requires_grad:
            self.bias_slope[...] = 0.0
        return d


class Chain:
    """Linear layers with functions between them, forward and backward in NumPy.

    The layers' parameters become views of the array `weights` [P], so that one array is descended
    and whoever reads or writes the parameters sees the same numbers. `slopes` [P] is the gradient.
    Results equal torch's up to rounding.
    """

    def __init__(self, encoder: nn.Module, pairs: list[Pair]):
        self.enter: Step = STEPS[type(encoder)](encoder)
        self.parameters = [weight for layer, _ in pairs for weight in (layer.weight, layer.bias)]
        ends = list(itertools.accumulate(weight.numel() for weight in self.parameters))
        self.ranges = [slice(a, b) for a, b in itertools.pairwise([0, *ends])]
        joined = torch.cat([weight.detach().flatten() for weight in self.parameters])
        self.weights: np.ndarray = joined.numpy()
        for weight, part in zip(self.parameters, self.parts(self.weights), strict=True):
            weight.data = torch.from_numpy(part)
        self.slopes = np.zeros_like(self.weights)
        parts = self.parts(self.slopes)
        self.layers = [
            Layer(*pair, *parts[2 * i : 2 * i + 2])  # its weight's, its bias's
            for i, pair in enumerate(pairs)
        ]

    def trace(self, obs: np.ndarray) -> list[np.ndarray]:
        """The inputs of the first layer and the outputs of every one."""
        found = [self.enter(obs)]
        for layer in self.layers:
            found.append(layer.forward(found[-1]))
        return found

    def backward(self, trace: list[np.ndarray], d: np.ndarray) -> np.ndarray:
        """The gradient of a loss from that by the output [B, F], which is written over."""
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            d = layer.backward(trace[i], trace[i + 1], d)
            if i:
                d = d @ layer.weight
        return self.slopes

    def step(self, obs: np.ndarray, start: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """As NumpyForward has it."""
        return self.trace(obs)[-1], None

    def refresh(self) -> None:
        """Nothing: the weights are no copy."""

    def parts(self, whole: np.ndarray) -> list[np.ndarray]:
        """Each parameter's part of a flat array, in its shape."""
        pairs = zip(self.ranges, self.parameters, strict=True)
        return [whole[part].reshape(weight.shape) for part, weight in pairs]


def chain_of(network: nn.Module, layer: nn.Linear) -> Chain | None:
    """The network and the layer behind it as a chain; None where they are not plain.

    Plain are an MLP on a Box, Discrete, MultiDiscrete or MultiBinary space whose activation is
    ReLU, Tanh or Identity, without LayerNorm, dropout and normalisation, on the CPU.
    """
    weights = [*network.parameters(), *layer.parameters()]
    if len({(weight.device.type, weight.requires_grad, weight.dtype) for weight in weights}) > 1:
        return None
    forward = numpy_forward(network, layer) if weights[0].device.type == "cpu" else None
    if forward is None or type(forward.layers[0]) not in (Numbers, OneHot):
        return None
    pairs = paired(forward.layers[1:])
    alone = len(weights) == 2 * len(pairs)  # no layer comes twice
    return Chain(forward.layers[0], pairs) if pairs and alone else None


def paired(layers: list[nn.Module]) -> list[Pair]:
    """Every linear layer with what comes behind it; [] where there is something else."""
    pairs: list[Pair] = []
    for layer in layers:
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            pairs.append((layer, nn.Identity))
        elif type(layer) in FUNCTIONS and pairs and pairs[-1][1] is nn.Identity:
            pairs[-1] = pairs[-1][0], type(layer)
        else:
            return []
    return pairs
