"""PPO in its shortest form: a clipped ratio on rollouts with generalised advantages.

It shows that an algorithm is its `batches` and its `loss`; tests and the pages on design use it.
"""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import torch
from torch import nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.policy_agent import PolicyAgent
from seqrl.agents.deep.targets import Loss
from seqrl.agents.experience.rollout import Rollout
from seqrl.core.arrays import on_device
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch, Metrics, State


class PPO(PolicyAgent):
    """Proximal policy optimisation (Schulman et al., 2017) with a critic of its own.

    turns: of a rollout. epochs: passes over it. minibatches: gradient steps a pass, in whole
    columns with memory. decay: lambda of the advantages. clip: of the ratio.
    """

    carries_critic = keeps_log_prob = True

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        optim: Optim = Optim("linear:0.002:0", max_grad_norm=0.5),
        gamma: float = 0.99,
        turns: int = 128,
        epochs: int = 4,
        minibatches: int = 4,
        decay: float = 0.95,
        clip: float = 0.2,
        entropy_coef: float = 0.01,
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        self.turns, self.epochs, self.minibatches = turns, epochs, minibatches
        self.decay, self.clip, self.entropy_coef = decay, clip, entropy_coef
        parts = optim, gamma, True, 1.0
        super().__init__(network, action_space, observation_space, *parts, backend, device, seed)

    def make_store(self) -> Rollout:
        """Return turns of a fixed number."""
        return Rollout(self.turns, self.gamma, self.value_after)

    def value_after(self, obs: Array, start: Array, state: State) -> Array:
        """Return the critic's values [N] of what followed a turn."""
        out, _ = self.critic.act(obs, start, state[1] if self.memory else None)
        return self.in_units(out[..., 0])

    def batches(self) -> Iterator[Batch]:
        """Yield minibatches of a full rollout in each epoch, advantages in running units."""
        if not self.store.full:
            return
        whole = on_device(self.store.take(), self.device)
        state = None if whole.state is None else whole.state[1]
        with self.drawing():
            value = self.critic_values(whole.obs, whole.start, state)
        leaves = whole.reward, whole.discount, whole.final, whole.extra["over"], value
        advantage = targets.gae(*leaves, whole.extra["bootstrap"], self.decay)
        returns = advantage + value
        self.returns.update(returns[whole.valid])
        spread = advantage[whole.valid].std() + 1e-8
        extra = {"advantage": advantage / spread, "return": returns}
        whole = whole._replace(extra=extra)
        flat = whole if self.memory else whole.steps()
        size = -(-flat.reward.shape[1] // self.minibatches)
        for _ in range(self.epochs):
            yield from flat.minibatches(size, self.rng)
        self.update_statistics(whole)

    def loss(self, batch: Batch) -> Loss:
        """Return the clipped surrogate (eq. 7) and the entropy bonus of the valid steps."""
        state = None if batch.state is None else batch.state[0]
        out = self.policy.learn(batch.obs, batch.start, state)
        ratio = (self.head.log_prob(out, batch.action) - batch.log_prob).exp()
        advantage = batch.extra["advantage"]
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        each = -gain - self.entropy_coef * self.head.entropy(out)
        total = torch.where(batch.valid, each, 0.0).sum()
        count = batch.valid.sum().clamp(min=1)
        gap = torch.where(batch.valid, (ratio - 1).abs(), 0.0).max().detach()
        return Loss(total, count, metrics={"train/ratio_gap": gap})

    def value_loss(self, batch: Batch) -> Loss:
        """Return the critic's squared error, in units of the returns' running spread."""
        state = None if batch.state is None else batch.state[1]
        out = self.critic.learn(batch.obs, batch.start, state)[..., 0]
        error = (batch.extra["return"] - self.returns.mean) / self.returns.std - out
        total = torch.where(batch.valid, error.square(), 0.0).sum()
        return Loss(total, batch.valid.sum().clamp(min=1))

    def update(self, batch: Batch) -> Metrics:
        """Take a step of the policy and one of the critic."""
        with self.drawing():
            loss, error = self.loss(batch), self.value_loss(batch)
            norm = self.gradient_step(self.policy, loss, "policy loss")
            self.gradient_step(self.critic, error, "value loss")
        self.updates += 1
        size = loss.total.detach() / loss.count
        return {"train/loss": size, "train/grad_norm": norm, **loss.metrics}
