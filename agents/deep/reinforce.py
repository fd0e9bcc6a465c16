"""REINFORCE: the Monte Carlo policy gradient on any network, with memory or without."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.policy_agent import PolicyAgent
from seqrl.agents.deep.targets import Loss
from seqrl.agents.deep.warm_start import WarmStart
from seqrl.agents.experience.episodes import Episodes
from seqrl.agents.schedules import Rate, schedule
from seqrl.core import team, tree
from seqrl.core.arrays import on_device
from seqrl.core.checks import check_choice, check_whole
from seqrl.core.errors import RunError
from seqrl.core.moments import measured
from seqrl.core.picking import rows_where, taken
from seqrl.core.saved import Kept, plain
from seqrl.core.seeding import Seed
from seqrl.core.types import Batch, Metrics

LOG = logging.getLogger("seqrl")
BASELINES = ("value", "mean", "none")
NEW = 0.1  # weight of the newest batch in the running mean of batches' steps


class Reinforce(PolicyAgent):
    """REINFORCE with baseline (Williams, 1992; Sutton & Barto, 2018, the box of 13.4, p. 330).

    Whole episodes are gathered from all environments; when `batch_episodes` are over, one step is
    taken along  sum_t (G_t - b(S_t)) grad log pi(A_t|S_t)  over all of them. The sum is divided by
    the returns' spread and the steps of a batch as the batches before had them: numbers of the
    batch itself would give long episodes less weight. An update waits for the episodes that were
    under way at the one before, so none is older than one update. As is usual the factor gamma^t
    is left out. A truncated episode's return goes on with the value of what followed it where
    there is a value network, else it ends there.

    Args:
        network: a Network or any module from [B, ...] to [B, F]; the value network is another one
            like it, so both may have memory.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        observation_space: lets lazy layers be built at once; without it at the first observation.
        optim: learning rate, clipping and optimiser.
        gamma: discount in [0, 1].
        baseline: "value" network, "mean" of the returns so far, or "none".
        batch_episodes: episodes an update, at least 1.
        value_passes: steps of the value network an update, at least 1.
        entropy_coef: weight of the entropy bonus, at least 0, a number or a schedule.
        temperature: the policy is softmax(out / temperature), above 0.
        normalize_reward: divide rewards by the running spread of their discounted sums.
        warm_start: how what another run has learned is kept.
        backend: "torch", "numpy" or "auto": in what plain networks act.
        device: "auto", "cpu", "cuda" or "cuda:0".
        seed: of the agent's own random numbers.
    """

    data_parallel = True
    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:3e-4:0.03}:0",
        "entropy_coef": "log:1e-4:0.1",
        "batch_episodes": "choice:4,8,16,32",
        "gamma": "choice:0.98,0.99,0.995,0.999",
    }

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        optim: Optim = Optim("linear:0.005:0", max_grad_norm=0.5, adam_eps=1e-5),
        gamma: float = 0.99,
        baseline: str = "value",
        batch_episodes: int = 8,
        value_passes: int = 4,
        entropy_coef: Rate = 0.01,
        temperature: float = 1.0,
        normalize_reward: bool = False,
        warm_start: WarmStart = WarmStart(),
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        check_choice("baseline", baseline, BASELINES)
        self.baseline = baseline
        self.batch_episodes = check_whole("batch_episodes", batch_episodes)
        self.value_passes = check_whole("value_passes", value_passes)
        self.entropy_coef = schedule("entropy_coef", entropy_coef, 0.0, math.inf)
        self.batch_steps = 0.0  # running mean of the steps of a batch
        self.count = 1.0  # what the newest batch's sums are divided by
        self.warned = False  # that cut episodes end where they were cut
        parts = optim, gamma, baseline == "value", temperature
        others = normalize_reward, backend, device, seed
        super().__init__(
            network, action_space, observation_space, *parts, *others, warm_start=warm_start
        )

    def make_store(self) -> Episodes:
        """Return episodes, kept until enough are over."""
        return Episodes(self.gamma)

    def batches(self) -> Iterator[Batch]:
        """Yield all finished episodes, when they are enough, with returns and advantages."""
        if len(self.store) < self.batch_episodes or self.store.waits:
            return
        whole = on_device(self.in_reward_units(self.store.take()), self.device)
        self.follow_warm_up(whole)
        with self.studying(whole):
            values = self._baseline(whole)  # [T + 1, B]
        bootstrap = values if self.has_critic else values * 0.0
        leaves = whole.reward, whole.discount, whole.final, bootstrap
        returns = targets.discounted(*leaves)
        found = measured(taken(returns, rows_where(whole.valid, whole.valid_count)))
        if not math.isfinite(found.mean):
            raise RunError(f"a return is not finite at update {self.updates + 1}")
        spread = self.returns.spread
        self.returns.add(found)
        advantage = (returns - values) * whole.valid / (spread or self.returns.std)
        whole = whole._replace(extra={"return": returns, "advantage": advantage})
        steps = whole.valid_count or 0
        self.count = self.batch_steps or float(steps)
        rows = whole if self.memory else whole.steps()
        yield rows._replace(extra={**rows.extra, **self.anchored(rows)})
        self.batch_steps = self.count + NEW * (steps - self.count)

    def _baseline(self, whole: Batch) -> Tensor:
        """Return the baseline of every step, and of what followed the last ones [T + 1, B]."""
        if not self.has_critic:
            self._warn_of_cuts(whole)
            constant = self.returns.mean if self.baseline == "mean" else 0.0
            return torch.full_like(whole.reward, constant)
        if self.memory:
            return self.critic_values(whole.obs, whole.start)
        seen = whole.valid.clone()
        seen[1:] |= whole.valid[:-1]  # with what followed the last step
        rows = rows_where(seen, (whole.valid_count or 0) + seen.shape[1])
        obs, start = tree.map(lambda leaf: taken(leaf, rows)[None], (whole.obs, whole.start))
        values, empty = self.critic_values(obs, start)[0], torch.zeros_like(whole.reward)
        flat = empty.view(-1).index_copy(0, rows, values.to(empty.dtype))
        return flat.view_as(empty)

    def _warn_of_cuts(self, whole: Batch) -> None:
        cut = (whole.discount[:-1] > 0) & whole.valid[:-1] & whole.final[1:]
        if not self.warned and bool(cut.any()):
            self.warned = True
            LOG.warning("seqrl: episodes are cut off; without a value network returns end there")

    def loss(self, batch: Batch) -> Loss:
        """Return -sum A log pi(a|s) and the entropy bonus of the valid steps.

        With `kl_coef` also KL to the policy it came from.
        """
        valid, advantage = batch.valid, batch.extra["advantage"]
        out = self.policy.learn(batch.obs, batch.start, None, valid, batch.noise)
        out = out / self.temperature
        gain = torch.where(valid, self.head.log_prob(out, batch.action) * advantage, 0.0).sum()
        entropy = torch.where(valid, self.head.entropy(out), 0.0).sum()
        count = team.total(valid.sum()).clamp(min=1)
        metrics = {"train/policy_loss": -gain / count, "train/entropy": entropy / count}
        total = -gain - self.now(self.entropy_coef) * entropy
        if (divergence := self.divergence(out, batch)) is not None:
            divergence = torch.where(valid, divergence, 0.0).sum()
            metrics["train/anchor_kl"] = divergence / count
            total = total + self.now(self.kl_coef) * divergence
        detached = {name: team.total(number.detach()) for name, number in metrics.items()}
        return Loss(total, self.count, metrics=detached)

    def value_loss(self, batch: Batch) -> Loss:
        """Return the squared error of the critic, in units of the returns' running spread."""
        target = (batch.extra["return"] - self.returns.mean) / self.returns.std
        error = target - self.critic.learn(batch.obs, batch.start, None, batch.valid)[..., 0]
        total = torch.where(batch.valid, error.square(), 0.0).sum()
        return Loss(total, self.count)

    def update(self, batch: Batch) -> Metrics:
        """Take a step of the policy, but in the critic's warm-up, and some of the critic."""
        mine = team.share(batch)
        with self.studying(batch):
            metrics: dict[str, Any] = {"train/loss": 0.0}
            if not self.warming:
                loss = self.loss(mine)
                norm = self.gradient_step(loss, self.policy, name="policy loss")
                metrics = {"train/loss": loss.metrics["train/policy_loss"]}
                metrics |= {**loss.metrics, "train/grad_norm": norm}
            metrics["train/learning_rate"] = self.now(self.learning_rate)
            for _ in range(self.value_passes if self.has_critic else 0):
                loss = self.value_loss(mine)
                self.gradient_step(loss, self.critic, name="value loss")
            if self.has_critic:
                metrics["train/value_loss"] = team.total((loss.total / loss.count).detach())
                metrics["train/loss"] = metrics["train/loss"] + metrics["train/value_loss"]
        self.update_statistics(batch)
        self.updates += 1
        return metrics

    SAVED: ClassVar[dict[str, Kept]] = {**PolicyAgent.SAVED, "batch_steps": plain(0.0)}
