"""Soft actor-critic: a policy of real actions and the values of these, learned from a replay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.deep_q import ReplaySettings, draws
from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.outputs import Outputs, Part
from seqrl.agents.deep.policy_agent import PolicyAgent
from seqrl.agents.deep.squashed import Squashed
from seqrl.agents.deep.targets import Loss
from seqrl.agents.deep.value_agent import NEXT, ROW, Updates, check_target_rate, move
from seqrl.agents.deep.warm_start import WarmStart, units_of_rewards
from seqrl.agents.experience.replay import Replay
from seqrl.agents.schedules import Rate, schedule
from seqrl.core import tree
from seqrl.core.arrays import check_memory, host
from seqrl.core.checks import check_numbers, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch, Decision, Metrics, State
from seqrl.networks.base import copied, name_of

MOST_NATS = 1e6  # of a target entropy
LEARNED = "auto"  # an entropy_coef that is learned


class SoftPolicy(Squashed):
    """The head of a policy, with the logarithm of the entropy's coefficient that it learns."""

    def __init__(self, space: spaces.Box, learned: bool):
        super().__init__(space)
        if learned:
            self.log_coef = nn.Parameter(torch.zeros(()))


class Twins(nn.Module):
    """Two values of an action by the numbers h [..., 2 H] that a network gives of the state.

    Q_i(s, a) = w_i . relu(h_i(s) + U_i a) + b_i: what is learned of states serves both values.
    """

    def __init__(self, dimensions: int, hidden: int):
        super().__init__()
        self.inward = nn.Linear(dimensions, 2 * hidden, bias=False)
        self.outward = nn.Linear(hidden, 2)

    def forward(self, numbers: Tensor, action: Tensor, *, fixed: bool = False) -> Tensor:
        """Map h [..., 2 H] and actions [..., D] to values [2, ...].

        fixed: without a gradient by the weights.
        """
        weights = self.inward.weight, self.outward.weight, self.outward.bias
        inward, outward, bias = (x.detach() for x in weights) if fixed else weights
        rows, done = numbers.flatten(0, -2), action.flatten(0, -2).to(inward.dtype)
        hidden = torch.addmm(rows, done, inward.T).relu_()
        each = hidden.unflatten(-1, outward.shape).transpose(0, 1)  # [2, R, H]
        values = torch.baddbmm(bias[:, None, None], each, outward[..., None])
        return values.view(2, *numbers.shape[:-1])


class SAC(PolicyAgent):
    """Soft actor-critic (Haarnoja et al., 2018, arXiv 1812.05905) for real actions.

    Batches of single steps are drawn from a replay. One loss moves the policy towards actions of
    high value and high entropy, the values towards rewards and what the policy finds behind them,
    and the weight of the entropy, where it is learned, towards a target entropy. All three steps
    begin from the weights before them.

    Args:
        network: a Network or any module from [B, ...] to [B, F], without memory; the values have
            another one like it, and a layer each.
        action_space: Box; see `Squashed` for dimensions without two bounds.
        observation_space: lets lazy layers be built at once; without it at the first observation.
        optim: learning rate, clipping of the gradients of policy and of values, optimiser.
        gamma: discount in [0, 1].
        n_step: rewards before bootstrapping, at least 1 (uncorrected, entropies between left out).
        entropy_coef: weight of the entropy, at least 0: a number, a schedule, or "auto": learned.
        target_entropy: of the policy, nats a step, where its weight is learned; by default minus
            the number of the action's dimensions that have more than one value.
        noise_correlation: of the noise of an action and the next one's, in [0, 1).
            What is drawn in a state stays what the policy says; an episode is explored further.
        target_rate: share of the way to the values that the target values move an update, (0, 1].
        value_hidden: units of each value's own layer, where the action comes in, at least 1.
            By default half the features of the network. More need fewer env steps, and more time.
        updates: how often is learned, from how much.
        replay: what batches are drawn from.
        normalize_reward: divide rewards by the running spread of their discounted sums.
        backend: "torch", "numpy" or "auto": in what plain networks act.
        device: "auto", "cpu", "cuda" or "cuda:0".
        seed: of the agent's own random numbers.
    """

    learns_from_others = True
    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "log:1e-4:3e-3",
        "gamma": "choice:0.98,0.99,0.995",
        "target_rate": "choice:0.005,0.01,0.02",
        "updates": "choice:1,2,4",
    }

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        optim: Optim = Optim(3e-4, max_grad_norm=math.inf),
        gamma: float = 0.99,
        n_step: int = 1,
        entropy_coef: Rate = LEARNED,
        target_entropy: float | None = None,
        noise_correlation: float = 0.0,
        target_rate: float = 0.005,
        value_hidden: int | None = None,
        updates: Updates = Updates(batch_size=256, train_every=1, updates=1),
        replay: ReplaySettings = ReplaySettings(buffer_size=300_000),
        normalize_reward: bool = False,
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        self.learned = isinstance(entropy_coef, str) and entropy_coef == LEARNED
        if not self.learned:
            self.entropy_coef = schedule("entropy_coef", entropy_coef, 0.0, math.inf)
            if target_entropy is not None:
                remedy = f"leave it out, or take entropy_coef {LEARNED}"
                raise UsageError(f"target_entropy: no effect on a given entropy_coef; {remedy}")
        if target_entropy is not None and not abs(target_entropy) <= MOST_NATS:
            raise UsageError(f"target_entropy {target_entropy}: expected a number of nats")
        if not 0 <= noise_correlation < 1:
            raise UsageError(f"noise_correlation {noise_correlation}: expected a number in [0, 1)")
        self.noise_correlation, self.target_rate = noise_correlation, check_target_rate(target_rate)
        self.n_step, self.updating, self.replay = check_whole("n_step", n_step), updates, replay
        if value_hidden is not None:
            check_whole("value_hidden", value_hidden)
        self.value_hidden = value_hidden
        self.importance = schedule("importance", replay.importance)
        self.passes = updates.updates * updates.batch_size / updates.train_every
        replay.check_space(observation_space, updates.batch_size)
        numbers = optim, gamma, False, 1.0
        others = normalize_reward, backend, device, seed
        super().__init__(
            network, action_space, observation_space, *numbers, *others, warm_start=WarmStart()
        )
        given = target_entropy is not None
        self.target_entropy = target_entropy if given else -float(self.head.degrees)
        if (most := self.head.most_entropy) < self.target_entropy:
            text = f"expected at most {most:.3g} nats, of actions that are all equally likely"
            raise UsageError(f"target_entropy {target_entropy}: {text}")

    def make_head(self, space: gym.Space) -> SoftPolicy:
        """Return the squashed normal distribution; refuse other spaces than Box."""
        check_numbers("action", space)
        if not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)):
            shown = " ".join(str(space).split())
            remedy = "for others there are --agent ppo and q-learning"
            raise UsageError(f"action space {shown}: sac takes a Box of real numbers; {remedy}")
        return SoftPolicy(space, self.learned)

    def _build(self) -> None:
        """Make policy, values, target values and store."""
        if self.memory or self.network.noise:
            found = "has memory" if self.memory else "draws as it acts"
            remedy = "take one that does not, such as mlp, or --agent ppo"
            problem = f"{found}, and sac learns from single steps"
            raise UsageError(f"network {name_of(self.network)}: {problem}; {remedy}")
        features = self.network.features
        layer = nn.Linear(features, self.head.size)
        nn.init.orthogonal_(layer.weight, 0.01)
        nn.init.zeros_(layer.bias)
        hidden = self.value_hidden or (features + 1) // 2
        # two values; weights and what is gathered of them, gradient and target; float32
        needed = 2 * hidden * (features + self.head.dimensions) * 5 * 4
        check_memory(needed, f"value_hidden {hidden:,}", "take a smaller --value-hidden")
        twins = Twins(self.head.dimensions, hidden)
        layer_of_values = nn.Linear(features, twins.inward.out_features)
        values = Outputs(copied(self.network), layer_of_values, head=twins)
        frozen = copied(values).eval().requires_grad_(False).to(self.device)
        self.policy = self._part(Outputs(self.network, layer, head=self.head), draws=False)
        self.critic = self._part(values)
        self.target_part = Part(frozen, None, self.device, self.backend)
        self.parts = {"policy": self.policy, "critic": self.critic, "target": self.target_part}
        self.store = self.make_store()

    def make_store(self) -> Replay:
        """Return a replay of single steps."""
        size, priority = self.replay.buffer_size, self.replay.priority
        numbers: dict[str, Any] = {"n_step": self.n_step, "gamma": self.gamma}
        return Replay(size, **numbers, priority=priority, device=self.device)

    # acting

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return actions, the mode where nothing is to be explored; its noise is the memory."""
        out, _, checks = self._decide(obs, start, None, None)
        noise = self._noise(start, state) if explore else out[..., : self.head.dimensions] * 0
        with torch.no_grad():
            action = self.head.made_of(out, noise)
        kept = noise if self.noise_correlation else None
        action = action if isinstance(start, np.ndarray) else action.to(start.device)
        return Decision(action, kept, checks=checks)

    def _noise(self, start: Array, before: Array | None) -> Array:
        """Return normal numbers [N, D], correlated with those before them within an episode."""
        draw = Draw(self.rng if isinstance(start, np.ndarray) else self.torch_rng)
        drawn = draw.normal((len(start), self.head.dimensions))
        if before is None:
            return drawn
        share = self.noise_correlation
        mixed = share * before + math.sqrt(1 - share * share) * drawn
        if isinstance(start, np.ndarray):
            return np.where(start[:, None], drawn, mixed)
        return torch.where(start.to(drawn.device)[:, None], drawn, mixed)

    def values(self, obs: Array, start: Array) -> np.ndarray:
        """Return the lower value of the mode at N observations that open episodes [N]."""
        out, _ = self.logits(obs, start)
        numbers, _ = self.critic.act(obs, start, None)
        with torch.no_grad():
            done, seen = (torch.as_tensor(x).to(self.device) for x in (self.greedy(out), numbers))
            value = self.critic.module.head(seen, self.head.units(done)).amin(0)
        return host(value) * self.reward_unit

    # learning

    def batches(self) -> Iterator[Batch]:
        """Yield draws from the replay, with the numbers that the policy's actions are made of."""
        for batch in draws(self):
            noise = Draw(self.torch_rng).normal((*batch.start.shape, self.head.dimensions))
            yield batch._replace(noise=noise)

    def loss(self, batch: Batch) -> Loss:
        """Return the losses of values, policy and entropy's weight (eq. 5, 9 and 18)."""
        first, noise = tree.map(lambda leaf: leaf[ROW], (batch.obs, batch.noise))
        start, valid = batch.start[ROW], batch.valid[ROW]
        with torch.no_grad():
            coef = self.coefficient()
            target = self.target(batch, coef)
        numbers = self.critic.learn(first, start, None, valid)
        twins = self.critic.module.head
        error = target - twins(numbers, self.head.units(batch.action[ROW]))
        value_loss = 0.5 * error.square().sum(0)
        out = self.policy.learn(first, start, None, valid)
        action, log_prob = self.head.drawn(out, noise)
        value = twins(numbers.detach(), action, fixed=True).amin(0)
        policy_loss = coef * log_prob - value
        each = value_loss + policy_loss
        if self.learned:
            each = each - self.head.log_coef * (log_prob.detach() + self.target_entropy)
        each = each if batch.weight is None else each * batch.weight

        @torch.no_grad()
        def metrics() -> dict[str, Tensor]:
            numbers = {
                "value_loss": value_loss,
                "policy_loss": policy_loss,
                "value": value,
                "entropy": -log_prob,
            }
            rows = targets.kept(torch.stack([*numbers.values()]), valid).sum((1, 2))
            means = zip(numbers, rows / targets.count(value, valid), strict=True)
            told = {f"train/{name}": mean for name, mean in means}
            return {**told, "train/entropy_coef": torch.as_tensor(coef)}

        total, count = targets.kept(each, valid).sum(), targets.count(each, valid)
        return Loss(total, count, error.detach().abs().mean(0), valid, metrics=metrics)

    def target(self, batch: Batch, coef: Any) -> Tensor:
        """Return what the values of row 0 move towards [1, B] (eq. 2 and 3).

        Rewards, then the target values of what the policy draws there and its entropy; behind an
        episode that terminated neither.
        """
        leaves = batch.obs, batch.noise, batch.start
        after, noise, start = tree.map(lambda leaf: leaf[NEXT], leaves)
        out = self.policy.evaluate(after, start)
        action, log_prob = self.head.drawn(out, noise)
        numbers = self.target_part.evaluate(after, start)
        value = self.target_part.module.head(numbers, action).amin(0)
        return batch.reward[ROW] + batch.discount[ROW] * (value - coef * log_prob)

    def coefficient(self) -> Any:
        """Return the weight of the entropy now."""
        return self.head.log_coef.exp() if self.learned else self.now(self.entropy_coef)

    def update(self, batch: Batch) -> Callable[[], Metrics]:
        """Take a gradient step, move the target values, give what was drawn new priorities."""
        with self.studying(batch):
            loss = self.loss(batch)
            norm = self.gradient_step(loss, self.policy, self.critic)
        self.updates += 1
        self.update_statistics(batch)
        move(self.target_part, self.critic, self.target_rate)
        if batch.indices is not None:
            self.store.prioritise(batch.indices, host(loss.error)[0])
        rate = self.now(self.learning_rate)
        return lambda: {**loss.metrics(), "train/grad_norm": norm, "train/learning_rate": rate}

    # what another agent has learned

    def begin_others(
        self, weights: Mapping[str, Any], saved: Mapping[str, Any], *, whole: bool
    ) -> None:
        """Let values and target values begin from another agent's, or the policy's body."""
        super().begin_others(weights, saved, whole=whole)
        if not self.normalize_reward and self.learned and "head.log_coef" in weights:
            with torch.no_grad():
                self.head.log_coef += math.log(units_of_rewards(saved).std)
        self.target_part.module.load_state_dict(self.critic.module.state_dict())

    def _take_units(self, saved: Mapping[str, Any]) -> None:
        """Let values stay what they were in units of another agent's rewards."""
        if not self.normalize_reward:
            last = self.critic.module.head.outward
            with torch.no_grad():
                last.weight *= units_of_rewards(saved).std
                last.bias *= units_of_rewards(saved).std
