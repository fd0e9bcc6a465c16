"""SARSA on any network: on policy, from each step as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.value_agent import Regression, TargetNetwork, Updates, ValueAgent
from seqrl.agents.experience.on_policy import OnPolicy
from seqrl.agents.tabular.policy import EpsilonGreedy, Exploration
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch


class DeepSarsa(ValueAgent):
    """SARSA on any network (Sutton & Barto, 2018, sections 10.1, 10.2).

    It learns from what was just done, each step `updates` times, without a replay. It takes
    what every `ValueAgent` takes, and:

    Args:
        expected: bootstrap from the policy's expected value, not from the action taken.
        n_step: rewards before bootstrapping, at least 1.
        target: the target network; none by default.
    """

    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:1e-4:0.01}:0",
        "n_step": "choice:1,8,64",
        "updates": "choice:1,2,4,8",
    }

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        optim: Optim = Optim("linear:0.002:0", max_grad_norm=10.0),
        gamma: float = 0.99,
        exploration: Exploration = EpsilonGreedy("linear:1:0.05:0.5"),
        expected: bool = False,
        n_step: int = 64,
        dueling: bool = False,
        loss: str = "squared",
        rescale: bool = False,
        updates: Updates = Updates(batch_size=64, train_every=64, updates=4),
        target: TargetNetwork = TargetNetwork(target_every=0),
        normalize_reward: bool = False,
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        self.expected = expected
        regression = Regression(gamma, n_step, loss, rescale, dueling)
        parts = optim, exploration, regression, updates, target
        others = normalize_reward, backend, device, seed
        super().__init__(network, action_space, observation_space, *parts, *others)

    def make_store(self, device: torch.device | None) -> OnPolicy:
        """Return the newest steps, kept until the action behind them is known."""
        return OnPolicy(
            self.n_step,
            self.gamma,
            waits=not self.expected,
            steps=self.updating.train_every,
            memory=self.memory,
            stored_state=True,
            device=device,
        )

    def batches(self) -> Iterator[Batch]:
        """Yield the steps that are ready, by time, or sequences with memory, `updates` times."""
        if not self.due or not len(self.store):
            return
        ready, size = self.in_reward_units(self.store.take()), self.updating.batch_size
        for _ in range(self.updating.updates):
            for first in range(0, ready.reward.shape[1], size):
                yield ready.columns(slice(first, first + size))
        self.update_statistics(ready)

    def next_value(self, q: Array, online: Callable[[], Array], batch: Batch, rows: slice) -> Array:
        """Return Q of the action taken; the policy's expected value where there was none."""
        mean = self.policy_value(q)
        if self.expected:
            return mean
        where = np.where if isinstance(q, np.ndarray) else torch.where
        taken = targets.chosen(q, self.index(batch.action[rows]))
        return where(batch.final[rows], mean, taken)
