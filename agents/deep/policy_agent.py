"""Policies on any network: acting, the critic, returns in running units."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.heads import make_head
from seqrl.agents.deep.network_agent import NetworkAgent, check_finite
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.outputs import Outputs, Part
from seqrl.core import action_mask, tree
from seqrl.core.errors import UsageError
from seqrl.core.moments import RunningMoments
from seqrl.core.saved import PART, Kept
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch, Decision, State
from seqrl.networks.base import copied
from seqrl.networks.batch_norm import update_statistics


def joined(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return one layer that gives the numbers of both."""
    layer = nn.Linear(first.in_features, first.out_features + second.out_features)
    with torch.no_grad():
        layer.weight[:] = torch.cat([first.weight, second.weight])
        layer.bias[:] = torch.cat([first.bias, second.bias])
    return layer


class PolicyAgent(NetworkAgent):
    """The base of agents whose network gives a distribution over actions.

    The critic, where there is one, is another network like the policy's, so both may have memory;
    it learns values in units of the returns' running mean and spread.
    """

    # Whether it learns from turns, not whole episodes: then decisions tell the log-probability of
    # their actions, and a critic's memory is carried beside the policy's.
    learns_turns = False
    shares_network = False  # whether the values are one more number of the policy's network
    draws_in_learning = False  # whether layers such as dropout draw where the policy learns

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None,
        optim: Optim,
        gamma: float,
        critic: bool,
        temperature: float,
        normalize_reward: bool,
        backend: str,
        device: str,
        seed: Seed,
    ):
        if not 1e-6 <= temperature <= 1e6:  # a mask's numbers stay finite, and forbidding
            raise UsageError(f"temperature {temperature}: expected a number from 1e-6 to 1e6")
        numbers = optim, gamma, normalize_reward, backend, device, seed
        super().__init__(network, action_space, *numbers)
        self.head = make_head(action_space)
        self.temperature, self.has_critic = temperature, critic
        self.returns = RunningMoments()
        self._prepare(observation_space)

    def _build(self) -> None:
        """Make policy, critic and store."""
        features = self.network.features
        policy, value = nn.Linear(features, self.head.size), nn.Linear(features, 1)
        for layer, gain in ((policy, 0.01), (value, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        if self.shares_network:
            policy = joined(policy, value)
        elif (weight := self.network.output_weight()) is not None:
            policy.weight = self._shared(weight)
        outputs = Outputs(self.network, policy, head=self.head, choices=self.head.counts)
        self.policy = self._part(outputs, draws=self.draws_in_learning)
        self.parts = {"policy": self.policy}
        if self.shares_network:
            self.critic = self.policy
        elif self.has_critic:
            self.critic = self._part(Outputs(copied(self.network), value))
            self.parts["critic"] = self.critic
        self.store = self.make_store()

    def _shared(self, weight: Tensor) -> nn.Parameter:
        """Return the network's weights that the policy's layer shares; refuse what does not fit."""
        if weight.shape[0] != self.head.size:
            problem = f"the network shares weights for {weight.shape[0]} numbers"
            raise UsageError(
                f"{problem}, {self.action_space} has {self.head.size}; do not tie them"
            )
        return cast("nn.Parameter", weight)

    def _part(self, outputs: Outputs, draws: bool = True) -> Part:
        placed = outputs.to(self.device)
        return Part(placed, self.optim, self.device, self.backend, draws=draws, numpy=True)

    def make_store(self) -> Any:
        """Return what is learned from."""
        raise NotImplementedError

    # acting

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return actions and memory; the mode where nothing is to be explored."""
        on_host = isinstance(start, np.ndarray)
        self._try_once(obs, start)
        draw = Draw(self.rng if on_host else self.torch_rng)
        own, other = self.memories(state)
        drawn = self.network.noise if explore else 0
        noise = draw.normal((len(start), drawn)) if drawn else None
        out, own = self.policy.act(obs, start, own, noise)
        if self.carries_both:
            other = self.critic.act(obs, start, other)[1]
        out = self.preferences(out)
        check_finite(out, obs)
        with torch.no_grad():  # the spread of continuous actions is a parameter
            if explore:
                action = self.head.sample(out, draw)
            else:
                action = self.head.mode(out)
            log_prob = self.head.log_prob(out, action) if self.learns_turns and explore else None
        if not on_host:
            made = action, log_prob, noise
            action, log_prob, noise = tree.map(lambda leaf: leaf.to(start.device), made)
        state = (own, other) if self.carries_both else own
        return Decision(action, state, log_prob, noise=noise)

    def preferences(self, out: Array) -> Array:
        """Return what the head takes [..., K] of the policy network's numbers."""
        if self.shares_network:
            out = out[..., :-1]
        if self.temperature == 1:
            return out
        with np.errstate(all="ignore"):  # what is not finite is refused
            return out / self.temperature

    def greedy(self, out: Array) -> Array:
        """Return the mode by the policy network's numbers."""
        return self.head.mode(self.preferences(out))

    @property
    def carries_both(self) -> bool:
        """Whether decisions carry two memories, the policy's and the critic's."""
        return self.learns_turns and self.memory and not self.shares_network

    def memories(self, state: State) -> tuple[State, State]:
        """Return the policy's and the critic's memory of what a decision carried."""
        if self.carries_both:
            return (None, None) if state is None else state
        return state, state if self.shares_network else None

    def values(self, obs: Array, start: Array) -> np.ndarray | None:
        """Return the critic's values of N observations that open episodes [N]; None without one."""
        if not self.has_critic:
            return None
        self._try_once(obs, start)
        found = torch.as_tensor(self.value_after(obs, start, None)).cpu()
        return np.asarray(found) * self.reward_unit

    def value_after(self, obs: Array, start: Array, state: State) -> Array:
        """Return the critic's values [N] of observations, with the memory before them."""
        out, _ = self.critic.act(obs, start, self.memories(state)[1])
        return self.in_units(out[..., -1])

    def in_units(self, out: Array) -> Array:
        """Return what the critic gives [...] as returns."""
        return self.returns.mean + self.returns.std * out

    def critic_values(
        self, obs: Any, start: Tensor, state: State = None, noise: Tensor | None = None
    ) -> Tensor:
        """Return the critic's values of a batch's rows [T, B], without a gradient.

        noise: what the policy was handed, which it shares with values of its own network.
        """
        drawn = noise if self.shares_network else None
        out = self.critic.evaluate(obs, start, self.memories(state)[1], drawn)
        return self.in_units(out[..., -1])

    def learn_both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the policy's numbers [T, B, K] and the critic's [T, B] of a batch's rows."""
        own, other = self.memories(batch.state)
        out = self.policy.learn(batch.obs, batch.start, own, batch.valid, batch.noise)
        if self.shares_network:
            return out[..., :-1], out[..., -1]
        value = self.critic.learn(batch.obs, batch.start, other, batch.valid)
        return out, value[..., -1]

    def follow_returns(self, returns: Tensor) -> None:
        """Learn values in the units of more returns [B]; the critic's values stay what they are.

        van Hasselt et al. (2016), section 2.2.
        """
        mean, std = self.returns.mean, self.returns.std
        self.returns.update(returns)
        layer, scale = self.critic.module.layer, std / self.returns.std
        with torch.no_grad():
            layer.weight[-1:] *= scale
            layer.bias[-1:] *= scale
            layer.bias[-1:] += (mean - self.returns.mean) / self.returns.std

    def update_statistics(self, batch: Batch) -> None:
        """Show a batch to the networks' running statistics, after the last pass over it."""
        leaves = action_mask.split(batch.obs)[0], batch.start, batch.valid
        for part, state in zip(self.parts.values(), self.memories(batch.state), strict=False):
            update_statistics(part.module.network, *leaves, state)

    SAVED: ClassVar[dict[str, Kept]] = {**NetworkAgent.SAVED, "returns": PART}
