"""Q-learning on a plain network without torch's overhead: the whole gradient step in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.agents.deep.action_values import ActionValues
from seqrl.agents.deep.optim import clip_gradients
from seqrl.agents.deep.value_arguments import TargetArguments
from seqrl.agents.deep.value_learner import UpdateResult, ValueLearner
from seqrl.agents.experience.batches import Sequences, Steps
from seqrl.core import RunError
from seqrl.networks.plain.numpy_mlp import NumpyMLP, numpy_mlp


class NumpyLearner(ValueLearner):
    """A ValueLearner for single steps, whose values are a mlp and whose optimiser is Adam.

    It takes the same steps up to rounding, and its state is of the same form.
    """

    def __init__(
        self,
        values: ActionValues,
        optimizer: torch.optim.Optimizer,
        target_args: TargetArguments,
        mlp: NumpyMLP,
        *,
        target_network: bool,
    ):
        super().__init__(values, optimizer, target_args, target_network=target_network)
        self.mlp: NumpyMLP = mlp
        other = numpy_mlp(self.target.network, self.target.layer) if target_network else mlp
        assert other is not None
        self.target_mlp = other
        self.adam = FlatAdam(optimizer, mlp)

    @np.errstate(all="ignore")  # what is not finite is refused by name
    def update(
        self, batch: Steps | Sequences, weight: Tensor | None, learning_rate: float, epsilon: float
    ) -> UpdateResult:
        """One gradient step; weights [B] of the steps."""
        assert isinstance(batch, Steps)
        obs, action, total, discount, after = (leaf.numpy()[0] for leaf in batch[:5])
        each = np.arange(len(action))
        target = total + discount * self._best(after, each)
        activations = self.mlp.activations(obs)
        action = action - self.target_args.first_action
        error = target - activations[-1][each, action]
        share = 1.0 / len(error) if weight is None else weight.numpy() / len(error)
        loss, gradient = self._elementwise_loss(error)
        size = float((loss * share).sum())
        self.updates += 1
        if not math.isfinite(size):
            raise RunError(f"the loss is {size} at update {self.updates}")
        d = np.zeros_like(activations[-1])
        d[each, action] = -gradient * share
        norm = self._gradient_step(self.mlp.backward(activations, d), learning_rate)
        return UpdateResult(size, norm, torch.from_numpy(error)[None], None)

    def _best(self, after: np.ndarray, each: np.ndarray) -> np.ndarray:
        """What the rows that follow are worth [B]."""
        q = self.target_mlp.activations(after)[-1]
        if not self.target_args.double:
            return q.max(-1)
        return q[each, self.mlp.activations(after)[-1].argmax(-1)]

    def _elementwise_loss(self, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`targets.elementwise_loss` of errors, and its gradient."""
        if self.target_args.loss == "squared":
            return 0.5 * error * error, error
        gradient = np.minimum(np.maximum(error, -1.0), 1.0)
        return gradient * (error - 0.5 * gradient), gradient

    def _gradient_step(self, gradient: np.ndarray, learning_rate: float) -> float:
        """As `optim.gradient_step` does it; the norm of the gradient before it was cut."""
        norm, most = math.sqrt(gradient @ gradient), self.target_args.max_grad_norm
        if not math.isfinite(norm):
            for weight, part in zip(self.mlp.parameters, self.mlp.views(gradient), strict=True):
                weight.grad = torch.from_numpy(part)
            clip_gradients(self.values, most)  # refuses it by name
        if norm > most:
            gradient *= most / norm
        self.adam.step(gradient, learning_rate)
        return norm

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As ValueLearner has it."""
        super().load_state_dict(state)
        self.adam.adopt()


class FlatAdam:
    """Adam (Kingma and Ba, 2015) on a mlp's weights; torch's optimiser keeps the moments.

    optimizer: one of torch over the mlp's parameters; what it gathers for each becomes a view.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, mlp: NumpyMLP):
        self.optimizer, self.mlp = optimizer, mlp
        group = optimizer.param_groups[0]
        (self.first, self.second), self.epsilon = group["betas"], group["eps"]
        self.mean, self.square = np.zeros_like(mlp.weights), np.zeros_like(mlp.weights)
        self.count = np.zeros(len(mlp.parameters), np.float32)
        self.adopt()

    def adopt(self) -> None:
        """Take over what torch's optimiser has gathered, and let it keep views from now on."""
        means, squares = self.mlp.views(self.mean), self.mlp.views(self.square)
        for i, weight in enumerate(self.mlp.parameters):
            state = self.optimizer.state[weight]
            own = {"step": self.count[i, ...], "exp_avg": means[i], "exp_avg_sq": squares[i]}
            for name, part in own.items():
                part[...] = state[name].numpy() if name in state else 0.0
                state[name] = torch.from_numpy(part)

    def step(self, gradient: np.ndarray, learning_rate: float) -> None:
        """Move the weights."""
        mean, square = self.mean, self.square
        self.count += 1.0
        count = int(self.count[0])
        mean += (1.0 - self.first) * (gradient - mean)
        square *= self.second
        square += (1.0 - self.second) * (gradient * gradient)
        spread = np.sqrt(square)
        spread *= 1.0 / math.sqrt(1.0 - self.second**count)
        spread += self.epsilon
        np.divide(mean, spread, out=spread)
        spread *= learning_rate / (1.0 - self.first**count)
        self.mlp.weights -= spread


def make_learner(
    values: ActionValues,
    optimizer: torch.optim.Optimizer,
    target_args: TargetArguments,
    *,
    target_network: bool,
) -> ValueLearner:
    """The quick one where it knows the network, the optimiser and the target_args.

    target_network: with a target network.
    """
    adam = type(optimizer) is torch.optim.Adam and not optimizer.param_groups[0]["weight_decay"]
    if (
        adam
        and target_args.target == "q-learning"
        and not target_args.rescale
        and not values.dueling
    ):
        mlp = numpy_mlp(values.network, values.layer)
        if mlp is not None:
            return NumpyLearner(values, optimizer, target_args, mlp, target_network=target_network)
    return ValueLearner(values, optimizer, target_args, target_network=target_network)
