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
from torch.nn.parameter import is_lazy

from seqrl.agents.episodes import Batch, EpisodeStore, check_episodes
from seqrl.agents.heads import make_head
from seqrl.agents.schedules import Rate, Schedule, rate, schedule
from seqrl.agents.torch_tools import (
    NumpyDraw,
    TorchDraw,
    descend,
    drawing_from,
    load_optimizer_state,
    load_weights,
    make_optimizer,
    optimizer_state,
    pick_device,
    to_numpy,
    to_tensor,
)
from seqrl.core import (
    Array,
    Decision,
    Metrics,
    RunError,
    State,
    Transition,
    UsageError,
    forms,
    generator,
    get_rng_state,
    set_rng_state,
    tree,
)
from seqrl.core.seeding import Seed
from seqrl.networks import as_network, numpy_forward, probe
from seqrl.networks.base import check_output

LOG = logging.getLogger("seqrl")
RNG_SIZES = (16, 5056)  # bytes of a torch generator's state on a GPU, on a CPU
BASELINES = ("value", "mean", "none")
NOTHING: Metrics = {}


class Reinforce:
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
        self.device, self.device_reason = pick_device(device)
        self.network = as_network(network).to(self.device)
        self.head = make_head(action_space)
        self.learning_rate = schedule("learning_rate", learning_rate, 0.0, math.inf)
        self.gamma, self.baseline, self.batch_episodes = gamma, baseline, batch_episodes
        self.entropy_coef = schedule("entropy_coef", entropy_coef, 0.0, math.inf)
        self.value_passes = value_passes
        self.max_grad_norm, self.temperature = max_grad_norm, temperature
        self.optimizer, self.weight_decay = optimizer, weight_decay
        self.horizon: int | None = None
        self.steps = self.updates = 0
        self.store = EpisodeStore()
        self.returns = RunningMoments()
        self.built = self.checked = False  # are the layers there; has the network been tried
        self.told = False  # that cut episodes end where they were cut
        self.reseed(seed)
        make_optimizer(optimizer, [nn.Parameter(torch.zeros(1))], 0.0, weight_decay)  # known?
        if observation_space is not None:
            probe(self.network, observation_space)
            self.checked = True
        if self.network.features and not any(map(is_lazy, self.network.parameters())):
            self._build()

    def reseed(self, seed: Seed) -> None:
        """Draw from a new stream from now on."""
        self.rng = generator(seed)
        self.torch_rng = torch.Generator(self.device)
        self.torch_rng.manual_seed(int(self.rng.integers(2**62)))

    def _build(self) -> None:
        """Heads, value network and optimisers, once the number of features is known."""
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
            self.critic.to(self.device)
        self.policy_optimizer = self._optimizer(self.policy)
        self.critic_optimizer = self._optimizer(self.critic) if len(self.critic) else None
        self.fast = None
        if self.device.type == "cpu":
            self.fast = numpy_forward(self.network, policy)
        self.built = True

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        start = self.learning_rate.start
        return make_optimizer(self.optimizer, module.parameters(), start, self.weight_decay)

    # acting

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Actions and the memory they leave with; the mode where nothing is to be explored."""
        on_host = isinstance(next(tree.leaves(obs)), np.ndarray)
        if not self.checked:
            self._check(obs, start)
        if self.fast is not None and on_host:
            out, state = self.fast.step(obs, start, state)
        else:
            features, state = self._forward(obs, start, state)
            with torch.inference_mode():
                out = self.policy["policy"](features[0])
            out = to_numpy(out) if on_host else out
        if not math.isfinite(float(out.sum())):
            raise RunError(f"the network gave {out.ravel()[:4].tolist()} ... at {obs}"[:200])
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

    def _check(self, obs: Array, start: Array) -> None:
        """Try the network on the first observations; they build what is lazy."""
        features, state = self._forward(obs, start, None)
        check_output(self.network, features, state, (1, len(start)))
        self.network.features = features.shape[-1]
        if not self.built:
            self._build()
        self.checked = True

    def _forward(self, obs: Array, start: Array, state: State) -> tuple[Tensor, State]:
        """One step of the network: features [1, N, F] and memory."""
        rolled = tree.map(lambda leaf: leaf[None], to_tensor((obs, start), self.device))
        self.network.eval()
        with torch.inference_mode():
            return self.network(*rolled, to_tensor(state, self.device))

    # learning

    def learn(self, step: Transition) -> Metrics:
        """Keep the turn; update when enough episodes are over."""
        self.steps += int(step.valid.sum())
        self.store.add(step)
        if len(self.store) < self.batch_episodes:
            return NOTHING
        with drawing_from(self.torch_rng):
            return self._update(self.store.take())

    def _update(self, batch: Batch) -> Metrics:
        self._set_learning_rate()
        batch = Batch(*to_tensor(tuple(batch), self.device))
        rolled, start = sequence(batch)
        mask = valid_steps(batch.length, len(batch.reward))  # [T, B]
        self.policy.train()
        values = self._values(rolled, start)  # [T + 1, B]
        tail = torch.where(batch.terminated, 0.0, at_end(values, batch.length))
        if self.baseline != "value":
            tail = tail * 0.0
            self._tell(batch)
        returns = discounted(batch.reward.float(), tail, batch.length, self.gamma)
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

    def _tell(self, batch: Batch) -> None:
        if not self.told and not bool(batch.terminated.all()):
            self.told = True
            LOG.warning("seqrl: episodes are cut off; without a value network returns end there")

    def _set_learning_rate(self) -> None:
        now = self._now(self.learning_rate)
        for optimizer in filter(None, (self.policy_optimizer, self.critic_optimizer)):
            for group in optimizer.param_groups:
                group["lr"] = now

    def _now(self, number: Schedule) -> float:
        """What a scheduled number is at this env step."""
        return rate(*number.bind(self.horizon), self.steps)

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
        self, batch: Batch, start: Tensor, mask: Tensor, advantage: Tensor
    ) -> dict[str, Any]:
        features, _ = self.network(batch.obs, start)
        out = self.policy["policy"](features) / self.temperature
        log_prob = self.head.log_prob(out, batch.action)
        entropy = mean(self.head.entropy(out), mask)
        loss = -mean(log_prob * advantage, mask)
        total = loss - self._now(self.entropy_coef) * entropy
        norm = self._descend(self.policy, self.policy_optimizer, total, "policy loss")
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
            loss = mean(error.square(), mask)
            assert self.critic_optimizer is not None
            self._descend(self.critic, self.critic_optimizer, loss, "value loss")
        return loss.detach()

    def _descend(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, name: str
    ) -> Tensor:
        """One step; refused, with the weights as they were, where a number is not finite."""
        return descend(module, optimizer, loss, self.max_grad_norm, name, self.updates + 1)

    # state

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, episodes under way, counters and random numbers."""
        modules = {"policy": self.policy, "critic": self.critic} if self.built else {}
        optimizers = {"policy": self.policy_optimizer} if self.built else {}
        if self.built and self.critic_optimizer is not None:
            optimizers["critic"] = self.critic_optimizer
        return {
            "modules": {name: to_numpy(dict(m.state_dict())) for name, m in modules.items()},
            "optimizers": {name: optimizer_state(o) for name, o in optimizers.items()},
            "store": self.store.state_dict(),
            "returns": vars(self.returns).copy(),
            "steps": self.steps,
            "updates": self.updates,
            "horizon": self.horizon,
            "rng": get_rng_state(self.rng),
            "torch_rng": self.torch_rng.get_state().numpy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; refuses what is not of this agent's form."""
        with forms.taking("agent"):
            forms.check("agent", state, self._form(bool(state["modules"])))
            set_rng_state(self.rng, state["rng"])
            drawn = torch.tensor(state["torch_rng"])
            if drawn.shape == self.torch_rng.get_state().shape:  # else of another kind of device
                self.torch_rng.set_state(drawn)
            if state["modules"]:
                self._load_modules(state)
            self.store.load_state_dict(state["store"])
            vars(self.returns).update(state["returns"])
            self.steps, self.updates = state["steps"], state["updates"]
            self.horizon = state["horizon"]

    def _form(self, built: bool) -> dict[str, Any]:
        """What a saved state of this agent looks like, with a built network or without."""
        if built and not self.built:
            raise UsageError("the network is not built yet: give Reinforce the observation_space")
        own = self.state_dict()
        checked = {  # the rest when it is loaded
            part: dict.fromkeys(own[part] if built else (), forms.anything)
            for part in ("modules", "optimizers")
        }
        return {
            **own,
            **checked,
            "store": check_episodes,
            "returns": {"mean": 0.0, "variance": check_variance, "count": 0},
            "horizon": forms.maybe(0),
            "rng": forms.anything,
            "torch_rng": check_torch_rng,
        }

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


class RunningMoments:
    """Mean and spread of all returns so far, weighted by how many there were (Welford)."""

    def __init__(self) -> None:
        self.mean, self.variance, self.count = 0.0, 1.0, 0

    @property
    def std(self) -> float:
        """The spread, never 0."""
        return math.sqrt(self.variance) + 1e-6

    def update(self, values: Tensor) -> None:
        """Take more values [B] in."""
        n, new = len(values), float(values.mean())
        spread = float(values.var(correction=0))
        total = self.count + n
        if self.count == 0:
            self.mean, self.variance = new, spread
        else:
            gap = new - self.mean
            self.mean += gap * n / total
            between = gap * gap * self.count * n / total
            self.variance = (self.variance * self.count + spread * n + between) / total
        self.count = total


def sequence(batch: Batch) -> tuple[Any, Tensor]:
    """The observations with what followed the last one behind them [T + 1, B, ...]; the starts."""

    def behind(obs: Tensor, last: Tensor) -> Tensor:
        longer = torch.cat([obs, obs[:1] * 0])
        longer[batch.length, torch.arange(len(last), device=last.device)] = last
        return longer

    start = torch.zeros((len(batch.reward) + 1, len(batch.length)), dtype=torch.bool)
    start[0] = True
    return tree.map(behind, batch.obs, batch.last), start.to(batch.reward.device)


def valid_steps(length: Tensor, longest: int) -> Tensor:
    """bool [T, B]: where an episode still is."""
    return torch.arange(longest, device=length.device)[:, None] < length


def at_end(values: Tensor, length: Tensor) -> Tensor:
    """values [T + 1, B] at each episode's end [B]."""
    return values.gather(0, length[None].long())[0]


def discounted(reward: Tensor, tail: Tensor, length: Tensor, gamma: float) -> Tensor:
    """G_t = R_{t+1} + gamma G_{t+1}, from `tail` [B] at each episode's end; [T, B], 0 behind it.

    Sutton & Barto (2018), eq. 3.9, p. 55.
    """
    inside = valid_steps(length, len(reward))
    total, totals = tail, []
    for t in range(len(reward) - 1, -1, -1):
        total = torch.where(inside[t], reward[t] + gamma * total, total)
        totals.append(total)
    return torch.stack(totals[::-1]) * inside


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid steps."""
    return (values * mask).sum() / mask.sum()


def check_numbers(gamma: float, baseline: str, batch_episodes: int, value_passes: int) -> None:
    """Refuse numbers out of their range."""
    if not 0 <= gamma <= 1:
        raise UsageError(f"gamma {gamma}: expected a number from 0 to 1")
    if baseline not in BASELINES:
        raise UsageError(f"baseline {baseline!r}: expected one of {', '.join(BASELINES)}")
    for name, number in (("batch_episodes", batch_episodes), ("value_passes", value_passes)):
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"{name} {number!r}: expected a whole number of at least 1")


def check_torch_rng(name: str, saved: Any) -> None:
    """Refuse what is no state of a torch generator on any device."""
    if not hasattr(saved, "dtype") or saved.shape not in [(size,) for size in RNG_SIZES]:
        forms.refuse(name, saved, f"uint8 {' or '.join(map(str, RNG_SIZES))}")
    forms.check(name, saved, np.zeros(saved.shape, np.uint8))


def check_variance(name: str, saved: Any) -> None:
    """Refuse what has no square root."""
    forms.check(name, saved, 0.0)
    if saved < 0:
        forms.refuse(name, saved, "at least 0")


def check_positive(**numbers: float) -> None:
    """Refuse numbers that are not above 0."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise UsageError(f"{name} {number}: expected a number above 0")
