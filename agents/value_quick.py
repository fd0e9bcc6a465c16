"""Q-learning on a plain network without torch's overhead: the whole gradient step in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.agents.action_values import ActionValues
from seqrl.agents.items import Sequences, Steps
from seqrl.agents.torch_tools import clip_gradients
from seqrl.agents.value_chain import Chain, chain_of
from seqrl.agents.value_learner import Outcome, ValueLearner
from seqrl.agents.value_settings import Rule
from seqrl.core import RunError


class QuickLearner(ValueLearner):
    """A ValueLearner for single steps, whose values are a chain and whose optimiser is Adam.

    It takes the same steps up to rounding, and its state is of the same form.
    """

    def __init__(
        self,
        values: ActionValues,
        optimizer: torch.optim.Optimizer,
        rule: Rule,
        chain: Chain,
        *,
        slow: bool,
    ):
        super().__init__(values, optimizer, rule, slow=slow)
        self.chain: Chain = chain
        other = chain_of(self.target.network, self.target.layer) if slow else chain
        assert other is not None
        self.slow_chain = other
        self.adam = FlatAdam(optimizer, chain)

    @np.errstate(all="ignore")  # what is not finite is refused by name
    def update(
        self, batch: Steps | Sequences, weight: Tensor | None, learning_rate: float, explored: float
    ) -> Outcome:
        """One gradient step; weights [B] of the items."""
        assert isinstance(batch, Steps)
        obs, action, total, discount, after = (leaf.numpy()[0] for leaf in batch[:5])
        each = np.arange(len(action))
        target = total + discount * self._best(after, each)
        trace = self.chain.trace(obs)
        action = action - self.rule.first_action
        error = target - trace[-1][each, action]
        share = 1.0 / len(error) if weight is None else weight.numpy() / len(error)
        loss, slope = self._penalty(error)
        size = float((loss * share).sum())
        self.updates += 1
        if not math.isfinite(size):
            raise RunError(f"the loss is {size} at update {self.updates}")
        d = np.zeros_like(trace[-1])
        d[each, action] = -slope * share
        norm = self._descend(self.chain.backward(trace, d), learning_rate)
        return Outcome(size, norm, torch.from_numpy(error)[None], None)

    def _best(self, after: np.ndarray, each: np.ndarray) -> np.ndarray:
        """What the rows that follow are worth [B]."""
        q = self.slow_chain.trace(after)[-1]
        if not self.rule.double:
            return q.max(-1)
        return q[each, self.chain.trace(after)[-1].argmax(-1)]

    def _penalty(self, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`targets.penalty` of errors, and its slope."""
        if self.rule.loss == "squared":
            return 0.5 * error * error, error
        slope = np.minimum(np.maximum(error, -1.0), 1.0)
        return slope * (error - 0.5 * slope), slope

    def _descend(self, slopes: np.ndarray, learning_rate: float) -> float:
        """As `torch_tools.descend` does it; the norm of the gradient before it was cut."""
        norm, most = math.sqrt(slopes @ slopes), self.rule.max_grad_norm
        if not math.isfinite(norm):
            for weight, part in zip(self.chain.parameters, self.chain.parts(slopes), strict=True):
                weight.grad = torch.from_numpy(part)
            clip_gradients(self.values, most)  # refuses it by name
        if norm > most:
            slopes *= most / norm
        self.adam.step(slopes, learning_rate)
        return norm

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As ValueLearner has it."""
        super().load_state_dict(state)
        self.adam.adopt()


class FlatAdam:
    """Adam (Kingma and Ba, 2015) on a chain's weights; torch's optimiser keeps the moments.

    optimizer: one of torch over the chain's parameters; what it gathers for each becomes a view.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, chain: Chain):
        self.optimizer, self.chain = optimizer, chain
        group = optimizer.param_groups[0]
        (self.first, self.second), self.epsilon = group["betas"], group["eps"]
        self.mean, self.square = np.zeros_like(chain.weights), np.zeros_like(chain.weights)
        self.count = np.zeros(len(chain.parameters), np.float32)
        self.adopt()

    def adopt(self) -> None:
        """Take over what torch's optimiser has gathered, and let it keep views from now on."""
        means, squares = self.chain.parts(self.mean), self.chain.parts(self.square)
        for i, weight in enumerate(self.chain.parameters):
            state = self.optimizer.state[weight]
            own = {"step": self.count[i, ...], "exp_avg": means[i], "exp_avg_sq": squares[i]}
            for name, part in own.items():
                part[...] = state[name].numpy() if name in state else 0.0
                state[name] = torch.from_numpy(part)

    def step(self, slopes: np.ndarray, learning_rate: float) -> None:
        """Move the weights."""
        mean, square = self.mean, self.square
        self.count += 1.0
        count = int(self.count[0])
        mean += (1.0 - self.first) * (slopes - mean)
        square *= self.second
        square += (1.0 - self.second) * (slopes * slopes)
        spread = np.sqrt(square)
        spread *= 1.0 / math.sqrt(1.0 - self.second**count)
        spread += self.epsilon
        np.divide(mean, spread, out=spread)
        spread *= learning_rate / (1.0 - self.first**count)
        self.chain.weights -= spread


def learner_of(
    values: ActionValues, optimizer: torch.optim.Optimizer, rule: Rule, *, slow: bool
) -> ValueLearner:
    """The quick one where it knows the network, the optimiser and the rule.

    slow: with a target network.
    """
    adam = type(optimizer) is torch.optim.Adam and not optimizer.param_groups[0]["weight_decay"]
    if adam and rule.target == "q-learning" and not rule.rescale and not values.dueling:
        chain = chain_of(values.network, values.layer)
        if chain is not None:
            return QuickLearner(values, optimizer, rule, chain, slow=slow)
    return ValueLearner(values, optimizer, rule, slow=slow)
