"""Adam on the weights of a NumpyMLP."""

from __future__ import annotations

import math

import numpy as np
import torch

from seqrl.networks.plain.numpy_mlp import NumpyMLP

LARGE = 50_000  # weights that torch's kernel, which goes over them once, steps in less time


class NumpyAdam:
    """Adam (Kingma and Ba, 2015) in NumPy; torch's optimiser keeps the moments, as views.

    optimizer: torch.optim.Adam over the parameters of `mlp`, without weight decay.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, mlp: NumpyMLP):
        self.optimizer, self.mlp = optimizer, mlp
        self.bind()

    def bind(self) -> None:
        """Take over what torch's optimiser has gathered, and let it keep views from now on."""
        group = self.optimizer.param_groups[0]
        (self.beta1, self.beta2), self.epsilon = group["betas"], group["eps"]
        weights, parameters = self.mlp.weights, self.mlp.parameters
        self.mean, self.square = np.zeros_like(weights), np.zeros_like(weights)
        self.count = np.zeros(len(parameters), np.float32)
        means, squares = self.mlp.views(self.mean), self.mlp.views(self.square)
        both = zip(group["params"], parameters, strict=True)
        if any(old is not new for old, new in both):  # replaced by one of the same shape
            gathered = [self.optimizer.state.pop(old, {}) for old in group["params"]]
            group["params"] = list(parameters)
            self.optimizer.state.update(zip(parameters, gathered, strict=True))
        for i, weight in enumerate(parameters):
            state = self.optimizer.state[weight]
            views = {"step": self.count[i, ...], "exp_avg": means[i], "exp_avg_sq": squares[i]}
            for name, view in views.items():
                view[...] = state[name].numpy() if name in state else 0.0
                state[name] = torch.from_numpy(view)
        self._parameters, self._kept = parameters, self.optimizer.state[parameters[0]]["exp_avg"]

    @property
    def bound(self) -> bool:
        """Whether torch's optimiser still keeps these moments for these weights."""
        if self.mlp.parameters is not self._parameters:  # bound again
            return False
        return self.optimizer.state[self._parameters[0]].get("exp_avg") is self._kept

    def step(self, gradient: np.ndarray, learning_rate: float) -> None:
        """Step the weights along -gradient [P]; frozen ones stay, as with torch."""
        both = zip(self.mlp.slices, self.mlp.parameters, strict=True)
        frozen = [part for part, weight in both if not weight.requires_grad]
        arrays = self.mlp.weights, self.mean, self.square
        kept = [(array, part, array[part].copy()) for array in arrays for part in frozen]
        self.count += 1.0
        if len(gradient) > LARGE:
            self._step_in_torch(gradient, learning_rate)
        else:
            self._step_in_numpy(gradient, learning_rate)
        for array, part, before in kept:
            array[part] = before

    def _step_in_numpy(self, gradient: np.ndarray, learning_rate: float) -> None:
        mean, square, count = self.mean, self.square, int(self.count[0])
        mean += (1.0 - self.beta1) * (gradient - mean)
        square *= self.beta2
        square += (1.0 - self.beta2) * (gradient * gradient)
        spread = np.sqrt(square)
        spread *= 1.0 / math.sqrt(1.0 - self.beta2**count)
        spread += self.epsilon
        np.divide(mean, spread, out=spread)
        spread *= learning_rate / (1.0 - self.beta1**count)
        self.mlp.weights -= spread

    def _step_in_torch(self, gradient: np.ndarray, learning_rate: float) -> None:
        arrays = self.mlp.weights, gradient, self.mean, self.square, self.count[0, ...]
        weights, grads, means, squares, counts = ([torch.from_numpy(x)] for x in arrays)
        torch._fused_adam_(
            weights,
            grads,
            means,
            squares,
            [],
            counts,
            lr=learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )
