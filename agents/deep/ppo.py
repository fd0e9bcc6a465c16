"""PPO: the clipped policy gradient on any network, with memory or without."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.policy_agent import PolicyAgent
from seqrl.agents.deep.targets import Loss
from seqrl.agents.deep.warm_start import WarmStart
from seqrl.agents.experience.rollout import Rollout
from seqrl.agents.schedules import Rate, schedule
from seqrl.core import team
from seqrl.core.arrays import on_device
from seqrl.core.checks import check_unit, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.moments import measured
from seqrl.core.picking import rows_where, taken
from seqrl.core.seeding import Seed
from seqrl.core.types import Batch, Metrics

NO_CLIP = 1e30  # in place of infinity, so that no advantage gives no gain


class PPO(PolicyAgent):
    """Proximal policy optimisation (Schulman et al., 2017), with generalised advantages.

    A rollout of so many turns of all environments is learned from in some passes, each in as many
    minibatches, and is then gone: single steps, or with memory whole columns from the memory that
    entered them. A truncated episode goes on with the value of what followed it. With one pass, one
    minibatch and `clip` infinite it is the synchronous advantage actor-critic, A2C (Mnih et al.,
    2016).

    Args:
        network: a Network or any module from [B, ...] to [B, F]; the value network is another one
            like it, so both may have memory.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        observation_space: lets lazy layers be built at once; without it at the first observation.
        optim: learning rate, clipping of the gradients of each network, optimiser.
        gamma: discount in [0, 1].
        gae_lambda: of the advantages, in [0, 1]: 0 one step, 1 the whole return.
        rollout: turns before each learning, at least 1.
        epochs: passes over a rollout, at least 1.
        minibatches: gradient steps a pass, at least 1; with memory one a column at most.
        clip: how far a ratio may leave 1 before its gain is cut, above 0; inf for no clipping.
        value_coef: weight of the value network's squared error, above 0.
        entropy_coef: weight of the entropy bonus, at least 0, a number or a schedule.
        target_kl: nats from the policy that acted, above 0, after which a rollout is left.
        share: values come from the policy's own network, by a row of its last layer.
        normalize_reward: divide rewards by the running spread of their discounted sums.
        warm_start: how what another run has learned is kept.
        backend: "torch", "numpy" or "auto": in what plain networks act.
        device: "auto", "cpu", "cuda" or "cuda:0".
        seed: of the agent's own random numbers.
    """

    learns_turns = True
    data_parallel = True
    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:1e-4:3e-2}:0",
        "entropy_coef": "linear:{log:1e-4:0.3}:0",
        "gamma": "choice:0.98,0.99,0.995,0.999",
        "gae_lambda": "uniform:0.8:1",
    }

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        optim: Optim = Optim("linear:0.003:0", max_grad_norm=0.5, adam_eps=1e-5),
        gamma: float = 0.99,
        gae_lambda: float = 0.9,
        rollout: int = 128,
        epochs: int = 4,
        minibatches: int = 4,
        clip: float = 0.2,
        value_coef: float = 0.5,
        entropy_coef: Rate = "linear:0.06:0",
        target_kl: float = math.inf,
        share: bool = False,
        normalize_reward: bool = False,
        warm_start: WarmStart = WarmStart(),
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        for name, number in (("clip", clip), ("value_coef", value_coef), ("target_kl", target_kl)):
            if not number > 0 or (name == "value_coef" and number == math.inf):
                raise UsageError(f"{name} {number}: expected a number above 0")
        if target_kl < math.inf and epochs == minibatches == 1:
            found = "with one epoch and one minibatch nothing is left to be left out"
            raise UsageError(f"target_kl {target_kl}: {found}; leave it out, or take more --epochs")
        check_unit("gae_lambda", gae_lambda)
        self.gae_lambda, self.rollout = gae_lambda, check_whole("rollout", rollout)
        self.epochs = check_whole("epochs", epochs)
        self.passes = float(epochs)
        self.minibatches = check_whole("minibatches", minibatches)
        self.clip, self.value_coef, self.target_kl = clip, value_coef, target_kl
        self.entropy_coef = schedule("entropy_coef", entropy_coef, 0.0, math.inf)
        self.newest: tuple[Loss, Any] | None = None  # minibatch: its loss, its gradient's norm
        self.of_rollout: dict[str, Any] = {}  # metrics of the newest rollout
        self.shares_network = share
        parts = optim, gamma, True, 1.0
        others = normalize_reward, backend, device, seed
        super().__init__(
            network, action_space, observation_space, *parts, *others, warm_start=warm_start
        )

    def make_store(self) -> Rollout:
        """Return turns of a fixed number."""
        return Rollout(self.rollout, self.gamma, self.value_after)

    @property
    def turns_ahead(self) -> int:
        """Turns until the rollout is full: none before is learned from."""
        return max(1, self.rollout - len(self.store or ()))

    def batches(self) -> Iterator[Batch]:
        """Yield a full rollout's minibatches, pass after pass, with advantages and returns."""
        if not self.store.full:
            return
        whole = on_device(self.in_reward_units(self.store.take()), self.device)
        if not whole.valid_count:
            return
        self.follow_warm_up(whole)
        with self.studying(whole):
            value = self.critic_values(whole.obs, whole.start, whole.state, whole.noise)
        leaves = whole.reward, whole.discount, whole.final, whole.extra["over"], value
        advantage = targets.gae(*leaves, whole.extra["bootstrap"], self.gae_lambda)
        returns, rows = advantage + value, rows_where(whole.valid, whole.valid_count)
        learned = taken(returns, rows)
        self.follow_returns(measured(learned))
        explained = targets.explained_variance(taken(value, rows), learned)
        self.of_rollout = {"train/explained_variance": explained}
        extra = {
            "advantage": targets.normalized(advantage, whole.valid, whole.valid_count),
            "return": (returns - self.returns.mean) / self.returns.std,
            **self.anchored(whole),
        }
        # what returns and advantages were made of is not learned from
        whole = whole._replace(reward=None, discount=None, final=None, extra=extra)
        parts = whole if self.memory else whole.steps()._replace(valid=None)  # all of them are
        ahead = self.epochs if self.target_kl == math.inf else 1  # one pass may be the last
        for minibatch in (
            x
            for _ in range(0, self.epochs, ahead)
            for x in parts.split(self.minibatches, self.rng, ahead)
        ):
            yield minibatch
            if "train/first_ratio" not in self.of_rollout:
                self.of_rollout["train/first_ratio"] = self.numbers()["train/max_ratio"]
            if self.target_kl < math.inf and self.numbers()["train/approx_kl"] > self.target_kl:
                break
        self.update_statistics(whole)

    def loss(self, batch: Batch) -> Loss:
        """Return the clipped gain, the error of the values and the entropy bonus (eq. 9).

        With `kl_coef` also KL to the policy it came from; in the critic's warm-up the error alone.
        """
        count = targets.count(batch.start, batch.valid)  # of all, before each process takes its own
        batch = team.share(batch)
        out, value = self.learn_both(batch)
        valid, advantage = batch.valid, batch.extra["advantage"]
        log_prob, entropy = self.head.evaluate(out, batch.action)
        log_ratio = targets.kept(log_prob - batch.log_prob, valid)
        ratio = log_ratio.exp()
        # min(r A, clip(r) A) in fewer operations: a gain is only ever cut from above
        most = advantage + min(self.clip, NO_CLIP) * advantage.abs()
        gain = torch.minimum(ratio * advantage, most)
        error = (batch.extra["return"] - value).square()
        divergence = self.divergence(out, batch)
        each = self.value_coef * error
        if not self.warming:
            each = each - gain - self.now(self.entropy_coef) * entropy
            if divergence is not None:
                each = each + self.now(self.kl_coef) * divergence

        @torch.no_grad()
        def metrics() -> dict[str, Tensor]:
            numbers = {
                "policy_loss": -gain,
                "value_loss": error,
                "entropy": entropy,
                "approx_kl": ratio - 1 - log_ratio,
                "clip_fraction": ((ratio - 1).abs() > self.clip).float(),
            }
            if divergence is not None:
                numbers["anchor_kl"] = divergence
            sums = torch.stack([targets.kept(x, valid).sum() for x in numbers.values()])
            tags = [*(f"train/{name}" for name in numbers), "train/max_ratio"]
            largest = team.largest((ratio - 1).abs().max()) + 1
            return dict(zip(tags, [*(team.total(sums) / count), largest], strict=True))

        return Loss(targets.kept(each, valid).sum(), count, metrics=metrics)

    def update(self, batch: Batch) -> Callable[[], Metrics]:
        """Take a gradient step."""
        self.newest = None  # where the step fails, nothing is left that could not be copied
        with self.studying(batch):
            loss = self.loss(batch)
            norm = self.gradient_step(loss, *(self.parts[name] for name in self.learning))
        self.newest = loss, norm
        self.updates += 1
        return self.numbers

    def numbers(self) -> Metrics:
        """Return what the newest minibatch gave."""
        assert self.newest is not None
        loss, norm = self.newest
        return {
            "train/loss": team.total((loss.total / loss.count).detach()),
            "train/grad_norm": norm,
            "train/learning_rate": self.now(self.learning_rate),
            **self.head.metrics(),
            **loss.metrics(),
            **self.of_rollout,
        }

    def end_turn(self) -> None:
        """Forget the graph of the newest minibatch, which nothing could copy."""
        self.newest = None
