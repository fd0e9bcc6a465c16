"""Monte Carlo control on any network: whole returns, without bootstrapping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import gymnasium as gym
import torch
from torch import nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.targets import Loss
from seqrl.agents.deep.value_agent import Regression, TargetNetwork, Updates, ValueAgent
from seqrl.agents.experience.episodes import Episodes
from seqrl.agents.tabular.policy import EpsilonGreedy, Exploration
from seqrl.core import tree
from seqrl.core.arrays import on_device
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch


class DeepMonteCarlo(ValueAgent):
    """Monte Carlo control on any network (Sutton & Barto, 2018, section 9.3 with control).

    Finished episodes are learned from, each `updates` times. A truncated episode's return goes on
    with the value of what followed it under the exploring policy. It takes what
    every `ValueAgent` takes.
    """

    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:1e-4:0.01}:0",
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
        dueling: bool = False,
        loss: str = "squared",
        rescale: bool = False,
        updates: Updates = Updates(batch_size=64, train_every=200, updates=2),
        normalize_reward: bool = False,
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        regression = Regression(gamma, 1, loss, rescale, dueling)
        parts = optim, exploration, regression, updates, TargetNetwork(target_every=0)
        others = normalize_reward, backend, device, seed
        super().__init__(network, action_space, observation_space, *parts, *others)

    def make_store(self, device: torch.device | None) -> Episodes:
        """Return episodes, kept until they are over."""
        self.on_host = device is None
        return Episodes(self.gamma)

    def batches(self) -> Iterator[Batch]:
        """Yield finished episodes with their returns; without memory as steps, in random order."""
        if not self.due or not len(self.store):
            return
        whole = self.in_reward_units(self.store.take())
        if not self.on_host:
            whole = on_device(whole, self.device)
        leaves = whole.reward, whole.discount, whole.final, self._bootstrap(whole)
        whole = whole._replace(extra={"return": targets.discounted(*leaves)})
        size, count = self.updating.batch_size, whole.reward.shape[1]
        steps = None if self.memory else whole.steps()
        for _ in range(self.updating.updates):
            if steps is None:
                yield from (whole.columns(slice(i, i + size)) for i in range(0, count, size))
            else:
                yield from steps.minibatches(size, self.rng)
        self.update_statistics(steps or whole)

    def _bootstrap(self, whole: Batch) -> Array:
        """Return the value of the row behind each truncated episode, 0 elsewhere [T + 1, B]."""
        bootstrap = whole.reward * 0
        cut = (whole.discount[:-1] > 0) & whole.valid[:-1] & whole.final[1:]
        if not bool(cut.any()):
            return bootstrap
        rows = whole.obs, whole.start
        if not self.memory:  # what followed alone
            rows = tree.map(lambda leaf: leaf[1:][cut][None], rows)
        worth = self.policy_value(self._unscaled(self.values_part.evaluate(*rows)))
        bootstrap[1:][cut] = worth[1:][cut] if self.memory else worth[0]
        return bootstrap

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of Q(s, a) against the returns."""
        q = self.values_part.learn(batch.obs, batch.start, None, batch.valid)
        valid = batch.valid if self.memory else None
        target = batch.extra["return"]
        target = targets.squash(target) if self.rescale else target
        return targets.regression(self.loss_kind, q, self.index(batch.action), target, valid)
