"""REINFORCE: the Monte Carlo policy gradient on any network, with memory or without."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.devices import drawing_from
from seqrl.agents.deep.draws import NumpyDraw, TorchDraw
from seqrl.agents.deep.heads import make_head
from seqrl.agents.deep.moments import RunningMoments
from seqrl.agents.deep.network_agent import NetworkAgent, check_finite
from seqrl.agents.deep.optim import (
    gradient_step,
    load_optimizer_state,
    load_weights,
    optimizer_state,
)
from seqrl.agents.experience.episodes import EpisodeBatch, EpisodeStore, check_episodes
from seqrl.agents.experience.whole_episodes import at_end, discounted, sequence, valid_steps
from seqrl.agents.schedules import Rate, schedule
from seqrl.core import (
    Array,
    Decision,
    Metrics,
    RunError,
    State,
    Transition,
    UsageError,
    schema,
    tree,
)
from seqrl.core.arrays import to_numpy, to_tensor
from seqrl.core.seeding import Seed
from seqrl.networks import numpy_forward

LOG = logging.getLogger("seqrl")
BASELINES = ("value", "mean", "none")
NOTHING: Metrics = {}


class Reinforce(NetworkAgent):
    """REINFORCE with baseline (Williams, 1992; Sutton & Barto, 2018, the box of 13.4, p. 330).

    Whole episodes are gathered from all environments; when `batch_episodes` are over, one step is
    taken along  mean_t (G_t - b(S_t)) grad log pi(A_t|S_t),  advantages in units of the returns'
    running spread. As is usual the factor gamma^t is left out. A truncated episode's return goes
    on with the value of what followed it where there is a value network, else it ends there.

    Args:
        network: a Network or any module from [B, ...] to [B, F]; the value network is another one
            like it, so both may have memory.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        observation_space: lets lazy layers be built at once; without it at the first observation.
        learning_rate: of the optimiser, a number or a schedule.
        gamma: discount in [0, 1].
        baseline: "value" network, "mean" of the returns so far, or "none".
        batch_episodes: episodes an update, at least 1.
        value_passes: steps of the value network an update, at least 1.
        entropy_coef: weight of the entropy bonus, at least 0, a number or a schedule.
        max_grad_norm: gradients are scaled down to this norm, above 0.
        temperature: the policy is softmax(out / temperature), above 0.
        optimizer: by torch's name (SGD, Momentum, Nesterov, RMSprop, Adam, AdamW, ...).
        weight_decay: of the optimiser, at least 0.
        device: "auto", "cpu", "cuda" or "cuda:0".
        seed: of the agent's own random numbers.
    """

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        learning_rate: Rate = "linear:0.005:0",
        gamma: float = 0.99,
        baseline: str = "value",
        batch_episodes: int = 8,
        value_passes: int = 4,
        entropy_coef: Rate = 0.01,
        max_grad_norm: float = 0.5,
        temperature: float = 1.0,
        optimizer: str = "Adam",
        weight_decay: float = 0.0,
        device: str = "auto",
        seed: Seed = None,
    ):
        check_numbers(gamma, baseline, batch_episodes, value_passes)
        check_positive(max_grad_norm=max_grad_norm, temperature=temperature)
        super().__init__(network, learning_rate, optimizer, weight_decay, device, seed)
        self.head = make_head(action_space)
        self.gamma, self.baseline, self.batch_episodes = gamma, baseline, batch_episodes
        self.entropy_coef = schedule("entropy_coef", entropy_coef, 0.0, math.inf)
        self.value_passes = value_passes
        self.max_grad_norm, self.temperature = max_grad_norm, temperature
        self.updates = 0
        self.store = EpisodeStore()
        self.returns = RunningMoments()
        self.warned = False  # that cut episodes end where they were cut
        self._prepare(observation_space)

    def _build(self) -> None:
        """Heads, value network and optimisers."""
        features = self.network.features
        policy, value = nn.Linear(features, self.head.size), nn.Linear(features, 1)
        for layer, gain in ((policy, 0.01), (value, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        parts = {"network": self.network, "policy": policy, "head": self.head}
        self.policy = nn.ModuleDict(parts).to(self.device)
        self.critic = nn.ModuleDict()
        if self.baseline == "value":
            self.critic = nn.ModuleDict({"network": copy.deepcopy(self.network), "value": value})
            self.critic.to(
                self.device
            ).train()  # the network has been in eval mode, if it was tried
        self.policy_optimizer = self._optimizer(self.policy)
        self.critic_optimizer = self._optimizer(self.critic) if len(self.critic) else None
        self.fast = None
        if self.device.type == "cpu":
            self.fast = numpy_forward(self.network, policy)

    # acting

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Actions and the memory they leave with; the mode where nothing is to be explored."""
        on_host = isinstance(next(tree.leaves(obs)), np.ndarray)
        self._try_once(obs, start)
        if self.fast is not None and on_host:
            out, state = self.fast.step(obs, start, state)
        else:
            features, state = self._forward(obs, start, state)
            with torch.inference_mode():
                out = self.policy["policy"](features[0])
            out = to_numpy(out) if on_host else out
        check_finite(out, obs)
        out = out / self.temperature
        if explore:
            draw = NumpyDraw(self.rng) if on_host else TorchDraw(self.torch_rng)
            action = self.head.sample(out, draw)
        else:
            action = self.head.mode(out)
        return Decision(action if on_host else action.to(start.device), state)

    def values(self, obs: Array, start: Array) -> np.ndarray | None:
        """The value network's say on N observations that open episodes [N]; None without one.

        Nothing is dropped out, so nothing is drawn.
        """
        if self.critic_optimizer is None:
            return None
        rolled = tree.map(lambda leaf: leaf[None], to_tensor((obs, start), self.device))
        training = self.critic.training
        self.critic.eval()
        found: np.ndarray = to_numpy(self._values(*rolled)[0])
        self.critic.train(training)
        return found

    # learning

    def learn(self, step: Transition) -> Metrics:
        """Keep the turn; update when enough episodes are over."""
        self.steps += int(step.valid.sum())
        self.store.add(step)
        if len(self.store) < self.batch_episodes:
            return NOTHING
        with drawing_from(self.torch_rng):
            return self._update(self.store.take())

    def _update(self, batch: EpisodeBatch) -> Metrics:
        self._set_learning_rate()
        batch = EpisodeBatch(*to_tensor(tuple(batch), self.device))
        rolled, start = sequence(batch)
        mask = valid_steps(batch.length, len(batch.reward))  # [T, B]
        self.policy.train()
        values = self._values(rolled, start)  # [T + 1, B]
        bootstrap = torch.where(batch.terminated, 0.0, at_end(values, batch.length))
        if self.baseline != "value":
            bootstrap = bootstrap * 0.0
            self._warn_of_cuts(batch)
        returns = discounted(batch.reward.float(), bootstrap, batch.length, self.gamma)
        if not bool(torch.isfinite(returns).all()):
            raise RunError(f"a return is not finite at update {self.updates + 1}")
        advantage = (returns - values[:-1]) * mask
        self.returns.update(returns[mask])
        metrics = self._policy_step(batch, start[:-1], mask, advantage / self.returns.std)
        if self.critic_optimizer is not None:
            metrics["train/value_loss"] = self._value_steps(batch.obs, start[:-1], mask, returns)
            metrics["train/loss"] = metrics["train/loss"] + metrics["train/value_loss"]
        parts: Any = (self.policy, self.critic)
        for part in filter(len, parts):  # last: until here the policy is the one that acted
            part["network"].update(batch.obs, mask)
        self.updates += 1
        if self.fast is not None:
            self.fast.refresh()
        return metrics

    def _warn_of_cuts(self, batch: EpisodeBatch) -> None:
        if not self.warned and not bool(batch.terminated.all()):
            self.warned = True
            LOG.warning("seqrl: episodes are cut off; without a value network returns end there")

    def _set_learning_rate(self) -> None:
        now = self._now(self.learning_rate)
        for optimizer in filter(None, (self.policy_optimizer, self.critic_optimizer)):
            for group in optimizer.param_groups:
                group["lr"] = now

    def _values(self, rolled: Any, start: Tensor) -> Tensor:
        """Baseline of every step and of what followed the last one [T + 1, B]."""
        if self.critic_optimizer is None:
            constant = self.returns.mean if self.baseline == "mean" else 0.0
            return torch.full(start.shape, constant, device=self.device)
        with torch.no_grad():
            features, _ = self.critic["network"](rolled, start)
            out = self.critic["value"](features)[..., 0]
        return self.returns.mean + self.returns.std * out

    def _policy_step(
        self, batch: EpisodeBatch, start: Tensor, mask: Tensor, advantage: Tensor
    ) -> dict[str, Any]:
        features, _ = self.network(batch.obs, start)
        out = self.policy["policy"](features) / self.temperature
        log_prob = self.head.log_prob(out, batch.action)
        entropy = targets.mean(self.head.entropy(out), mask)
        loss = -targets.mean(log_prob * advantage, mask)
        total = loss - self._now(self.entropy_coef) * entropy
        norm = self._gradient_step(self.policy, self.policy_optimizer, total, "policy loss")
        return {
            "train/loss": loss.detach(),
            "train/policy_loss": loss.detach(),
            "train/entropy": entropy.detach(),
            "train/grad_norm": norm,
            "train/learning_rate": self.policy_optimizer.param_groups[0]["lr"],
        }

    def _value_steps(self, obs: Any, start: Tensor, mask: Tensor, returns: Tensor) -> Tensor:
        """Regress the value network on the returns, in units of their running spread."""
        target = (returns - self.returns.mean) / self.returns.std
        for _ in range(self.value_passes):
            features, _ = self.critic["network"](obs, start)
            error = self.critic["value"](features)[..., 0] - target
            loss = targets.mean(error.square(), mask)
            assert self.critic_optimizer is not None
            self._gradient_step(self.critic, self.critic_optimizer, loss, "value loss")
        return loss.detach()

    def _gradient_step(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, name: str
    ) -> Tensor:
        """One step; refused, with the weights as they were, where a number is not finite."""
        return gradient_step(module, optimizer, loss, self.max_grad_norm, name, self.updates + 1)

    # state

    def _parts(self) -> dict[str, Any]:
        """Weights, optimisers, episodes under way, the returns' moments."""
        modules = {"policy": self.policy, "critic": self.critic} if self.built else {}
        optimizers = {"policy": self.policy_optimizer} if self.built else {}
        if self.built and self.critic_optimizer is not None:
            optimizers["critic"] = self.critic_optimizer
        return {
            "modules": {name: to_numpy(dict(m.state_dict())) for name, m in modules.items()},
            "optimizers": {name: optimizer_state(o) for name, o in optimizers.items()},
            "store": self.store.state_dict(),
            "returns": vars(self.returns).copy(),
            "updates": self.updates,
        }

    def _parts_form(self, state: dict[str, Any]) -> dict[str, Any]:
        """The weights and optimisers are checked when they are loaded."""
        built = bool(state["modules"])
        if built:
            self._check_built()
        own = self._parts()
        for part in ("modules", "optimizers"):
            own[part] = dict.fromkeys(own[part] if built else (), schema.anything)
        returns = {"mean": 0.0, "variance": check_variance, "count": 0}
        return {**own, "store": check_episodes, "returns": returns}

    def _load_parts(self, state: dict[str, Any]) -> None:
        if state["modules"]:
            self._load_modules(state)
        self.store.load_state_dict(state["store"])
        vars(self.returns).update(state["returns"])
        self.updates = state["updates"]

    def _load_modules(self, state: dict[str, Any]) -> None:
        modules = {"policy": self.policy, "critic": self.critic}
        for name, module in modules.items():
            load_weights(module, state["modules"][name], f"agent/modules/{name}")
        optimizers = {"policy": self.policy_optimizer, "critic": self.critic_optimizer}
        for name, optimizer in optimizers.items():
            if optimizer is not None:
                gathered = state["optimizers"][name]
                load_optimizer_state(optimizer, gathered, f"agent/optimizers/{name}")
        if self.fast is not None:
            self.fast.refresh()


def check_numbers(gamma: float, baseline: str, batch_episodes: int, value_passes: int) -> None:
    """Refuse numbers out of their range."""
    if not 0 <= gamma <= 1:
        raise UsageError(f"gamma {gamma}: expected a number from 0 to 1")
    if baseline not in BASELINES:
        raise UsageError(f"baseline {baseline!r}: expected one of {', '.join(BASELINES)}")
    for name, number in (("batch_episodes", batch_episodes), ("value_passes", value_passes)):
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"{name} {number!r}: expected a whole number of at least 1")


def check_variance(name: str, saved: Any) -> None:
    """Refuse what has no square root."""
    schema.check(name, saved, 0.0)
    if saved < 0:
        schema.refuse(name, saved, "at least 0")


def check_positive(**numbers: float) -> None:
    """Refuse numbers that are not above 0."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise UsageError(f"{name} {number}: expected a number above 0")
