"""Policies on any network: acting, the critic, returns in running units."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from seqrl.agents.deep.warm_start import (
    WarmStart,
    body_of,
    take_weights,
    units_of_rewards,
    weights_of,
)
from seqrl.agents.schedules import schedule
from seqrl.core import action_mask, tree
from seqrl.core.deferred import run_checks
from seqrl.core.errors import UsageError
from seqrl.core.moments import Measured, RunningMoments
from seqrl.core.saved import PART, Kept
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch, Decision, DeferredChecks, State
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
    draws_actions = True  # whether actions are drawn where it explores, else the mode is taken
    warming = False  # whether from the newest batch the critic learns alone

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
        warm_start: WarmStart,
    ):
        if not 1e-6 <= temperature <= 1e6:  # a mask's numbers stay finite, and forbidding
            raise UsageError(f"temperature {temperature}: expected a number from 1e-6 to 1e6")
        numbers = optim, gamma, normalize_reward, backend, device, seed
        super().__init__(network, action_space, *numbers)
        self.head = self.make_head(action_space)
        self.temperature, self.has_critic = temperature, critic
        self.returns = RunningMoments()
        warm_start.check(critic, self.shares_network)
        self.warm_start = warm_start
        self.kl_coef = schedule("kl_coef", warm_start.kl_coef, 0.0, math.inf)
        self._prepare(observation_space)

    def make_head(self, space: gym.Space) -> Any:
        """Return what makes actions of the policy's numbers."""
        return make_head(space)

    def _build(self) -> None:
        """Make policy, critic and store."""
        features = self.network.features
        brought = self.brought_layer()
        policy, value = nn.Linear(features, self.head.size), nn.Linear(features, 1)
        for layer, gain in ((policy, 0.01), (value, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        if self.shares_network:
            policy = joined(policy, value)
        elif brought is not None:
            policy = brought
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
        if self.warm_start.anchored:
            frozen = copied(outputs).requires_grad_(False)
            self.anchor = Part(frozen, None, self.device, self.backend)
            self.parts["anchor"] = self.anchor
        self.store = self.make_store()

    def brought_layer(self) -> Any:
        """Return the network's own last layer for these actions (see Network.answering)."""
        return None

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
        draw = Draw(self.rng if on_host else self.torch_rng)
        drawn = self.network.noise if explore else 0
        noise = draw.normal((len(start), drawn)) if drawn else None
        out, state, checks = self._decide(obs, start, state, noise)
        with torch.no_grad():  # the spread of continuous actions is a parameter
            if explore and self.draws_actions:
                action = self.head.sample(out, draw)
            else:
                action = self.head.mode(out)
            log_prob = self.head.log_prob(out, action) if self.learns_turns and explore else None
        if not on_host:
            made = action, log_prob, noise
            action, log_prob, noise = tree.map(lambda leaf: leaf.to(start.device), made)
        return Decision(action, state, log_prob, noise=noise, checks=checks)

    def _carried(self, own: State, obs: Array, start: Array, state: State, noise: Any) -> State:
        """Return the memory that a decision carries: the policy's `own`, with others beside it."""
        if not self.carries_several:
            return own
        after = [own]
        for name in list(self.parts)[1:]:
            handed = noise if name == "anchor" else None  # which draws as the policy does
            after.append(self.parts[name].act(obs, start, self.memory_of(name, state), handed)[1])
        return tuple(after)

    def logits(
        self, obs: Array, start: Array, state: State = None, noise: Array | None = None
    ) -> tuple[Array, State]:
        """Return what the head takes [N, K], of choices their logits, and memory after the step.

        noise: [N, noise] for a network that draws; None for its likeliest.
        """
        out, state, checks = self._decide(obs, start, state, noise)
        run_checks(checks)
        return out, state

    def _decide(
        self, obs: Array, start: Array, state: State, noise: Array | None
    ) -> tuple[Array, State, DeferredChecks]:
        """Return `logits`, and their deferred checks."""
        self._try_once(obs, start)
        out, own = self.policy.act(obs, start, self.memory_of("policy", state), noise)
        out = self.preferences(out)
        checks = check_finite(out, obs)
        return out, self._carried(own, obs, start, state, noise), checks

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
    def carries_several(self) -> bool:
        """Whether decisions carry a memory of each part, not the policy's alone."""
        return self.learns_turns and self.memory and len(self.parts) > 1

    def memory_of(self, name: str, state: State) -> State:
        """Return the memory of a part, or of the "critic", of what a decision carried."""
        name = "policy" if name == "critic" and self.shares_network else name
        if self.carries_several:
            return None if state is None else state[list(self.parts).index(name)]
        return state if name == "policy" else None

    def values(self, obs: Array, start: Array) -> np.ndarray | None:
        """Return the critic's values of N observations that open episodes [N]; None without one."""
        if not self.has_critic:
            return None
        self._try_once(obs, start)
        found = torch.as_tensor(self.value_after(obs, start, None)).cpu()
        return np.asarray(found) * self.reward_unit

    def value_after(self, obs: Array, start: Array, state: State) -> Array:
        """Return the critic's values [N] of observations, with the memory before them."""
        out, _ = self.critic.act(obs, start, self.memory_of("critic", state))
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
        out = self.critic.evaluate(obs, start, self.memory_of("critic", state), drawn)
        return self.in_units(out[..., -1])

    def learn_both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the policy's numbers [T, B, K] and the critic's [T, B] of a batch's rows.

        In the critic's warm-up the policy's are without a gradient.
        """
        own, other = (self.memory_of(name, batch.state) for name in ("policy", "critic"))
        if self.warming:
            out = self.policy.evaluate(batch.obs, batch.start, own, batch.noise)
        else:
            out = self.policy.learn(batch.obs, batch.start, own, batch.valid, batch.noise)
        if self.shares_network:
            return out[..., :-1], out[..., -1]
        value = self.critic.learn(batch.obs, batch.start, other, batch.valid)
        return out, value.squeeze(-1)

    def follow_returns(self, returns: Measured) -> None:
        """Learn values in the units of more returns; the critic's values stay what they are.

        van Hasselt et al. (2016), section 2.2.
        """
        mean, std = self.returns.mean, self.returns.std
        self.returns.add(returns)
        layer, scale = self.critic.module.layer, std / self.returns.std
        with torch.no_grad():
            layer.weight[-1:] *= scale
            layer.bias[-1:] *= scale
            layer.bias[-1:] += (mean - self.returns.mean) / self.returns.std

    def update_statistics(self, batch: Batch) -> None:
        """Show a batch to the networks' running statistics, after the last pass over it."""
        leaves = action_mask.split(batch.obs)[0], batch.start, batch.valid
        for name in self.learning:
            state = self.memory_of(name, batch.state)
            update_statistics(self.parts[name].module.network, *leaves, state)

    # from imitation to reward

    def follow_warm_up(self, batch: Batch) -> None:
        """Note whether the steps of the newest batch began in the critic's warm-up."""
        if self.warm_start.critic_warmup:
            before = self.steps - (batch.valid_count or 0)
            self.warming = before < self.warm_start.critic_warmup

    @property
    def learning(self) -> list[str]:
        """Return the names of the parts that learn now."""
        if self.warming:
            return ["critic"]
        return [name for name, part in self.parts.items() if part.optim is not None]

    def anchored(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the policy that this one came from gives at a batch's rows, in one call.

        As a leaf "anchor" [T, B, K] for the batch's extra ones; none where `kl_coef` is 0.
        """
        if not self.warm_start.anchored:
            return {}
        state = self.memory_of("anchor", batch.state)
        out = self.anchor.evaluate(batch.obs, batch.start, state, batch.noise)
        return {"anchor": self.preferences(out)}

    def divergence(self, out: Tensor, batch: Batch) -> Tensor | None:
        """Return KL(policy || the one it came from) [T, B] of the policy's numbers [T, B, K].

        None where `kl_coef` is 0.
        """
        if "anchor" not in batch.extra:
            return None
        return self.head.divergence(out, batch.extra["anchor"], self.anchor.module.head)

    @property
    def beside_actions(self) -> int:
        """One where the values are a row of the policy's layer."""
        return int(self.shares_network)

    def begin_others(
        self, weights: Mapping[str, Any], saved: Mapping[str, Any], *, whole: bool
    ) -> None:
        """Let the critic begin from another agent's, or its policy's body; set the anchor.

        The units of values are taken with a critic that fits whole.
        """
        own, there = self.parts.get("critic"), weights_of(saved["parts"], "critic")
        if own is not None and isinstance(there, dict):
            if not take_weights(own.module, there, lambda leaf, _: leaf).left:
                self._take_units(saved)
        elif own is not None and (body := body_of(weights)):
            take_weights(own.module, body, lambda leaf, _: leaf)
        if self.shares_network and whole:
            self._take_units(saved)
        if "anchor" in self.parts:
            same = self.policy.module.state_dict()
            take_weights(self.anchor.module, same, lambda leaf, _: leaf)

    def _take_units(self, saved: Mapping[str, Any]) -> None:
        """Let values stay what they were: in units of another agent's returns, and its rewards."""
        self.returns.load_state_dict(saved["returns"], "agent/returns")
        if not self.normalize_reward:
            self.returns.scale(units_of_rewards(saved).std)

    SAVED: ClassVar[dict[str, Kept]] = {**NetworkAgent.SAVED, "returns": PART}
