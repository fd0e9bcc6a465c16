"""Action values on any network: acting on them, target network, the loss of a batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.network_agent import NetworkAgent, check_finite
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.outputs import Outputs, Part
from seqrl.agents.deep.targets import Loss
from seqrl.agents.tabular.policy import EPSILON, TEMPERATURE, Exploration, explore
from seqrl.core import action_mask, schema, tree
from seqrl.core.checked import checked_part
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.saved import Kept, plain
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch, Decision, DeferredChecks, Metrics, State, Transition
from seqrl.networks.base import copied
from seqrl.networks.batch_norm import update_statistics

NUMBERS = ("loss", "td_error", "grad_norm")
LOSSES = ("huber", "squared")
ROW, NEXT = slice(0, 1), slice(1, 2)  # of a batch of single steps


@checked_part
@dataclass(frozen=True)
class TargetNetwork:
    """A copy of the network that values are bootstrapped from, and that follows it.

    target_every: env steps from one move to the next; 0 for none.
    target_rate: share of the way to the network that it moves, in (0, 1].
    """

    target_every: int
    target_rate: float = 1.0

    def __post_init__(self) -> None:
        check_whole("target_every", self.target_every, 0)
        check_target_rate(self.target_rate)


@checked_part
@dataclass(frozen=True)
class Updates:
    """How often is learned, and from how much.

    batch_size: steps a gradient step, or sequences with memory; at least 1.
    train_every: env steps from one learning to the next, at least 1.
    updates: gradient steps each time, on policy passes over the steps; at least 1.
    """

    batch_size: int
    train_every: int
    updates: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "train_every", "updates"):
            check_whole(name, getattr(self, name))


class Regression(NamedTuple):
    """What values are moved towards, and how: arguments that the subclasses share."""

    gamma: float
    n_step: int
    loss: str
    rescale: bool
    dueling: bool


class Step(NamedTuple):
    """What a gradient step gave; its numbers are worked out when they are logged."""

    loss: Loss
    norm: Tensor | float  # of the gradient

    def numbers(self) -> dict[str, float]:
        """Return loss, mean size of the error, norm of the gradient."""
        error, valid = self.loss.error, self.loss.valid
        assert error is not None
        mean = abs(error).mean() if valid is None else targets.mean(abs(error), valid)
        loss = (self.loss.total / self.loss.count).item()
        return {"loss": loss, "td_error": float(mean), "grad_norm": float(self.norm)}


def move(target: Part, part: Part, share: float) -> None:
    """Move the weights of a target network a share of the way to a network's; copy the rest."""
    part.refresh()
    target.refresh()
    frozen, trained = target.module, part.module
    pairs = list(zip(frozen.parameters(), trained.parameters(), strict=True))
    with torch.no_grad():
        torch._foreach_lerp_([old for old, _ in pairs], [new for _, new in pairs], share)
        for old, new in zip(frozen.buffers(), trained.buffers(), strict=True):
            old.copy_(new)


def check_target_rate(share: float) -> float:
    """Return a share of the way that a target network moves; refuse one outside (0, 1]."""
    if not 0 < share <= 1:
        raise UsageError(f"target_rate {share}: expected a number in (0, 1]")
    return share


class ValueAgent(NetworkAgent):
    """The base of Q-learning, SARSA and Monte Carlo on a network (Sutton & Barto, 2018, ch. 9, 10).

    Half the squared error to a target is descended, so that SGD on a one-hot linear network is a
    table. A subclass yields its batches and says what a row is worth (`next_value`). All take:

    Args:
        network: a Network or any module from [B, ...] to [B, F].
        action_space: Discrete.
        observation_space: lets lazy layers be built at once; without it at the first observation.
        optim: learning rate, clipping and optimiser.
        gamma: discount in [0, 1].
        exploration: `EpsilonGreedy(epsilon)` or `Boltzmann(temperature)`.
        dueling: the values of states and the advantages of actions apart.
        loss: "squared", or "huber", which is linear beyond 1.
        rescale: learn the values squashed, where returns are large (Pohlen et al., 2018).
        updates: how often is learned, from how much.
        normalize_reward: divide rewards by the running spread of their discounted sums.
        backend: "torch", "numpy" or "auto": in what plain networks act and learn.
        device: "auto", "cpu", "cuda" or "cuda:0".
        seed: of the agent's own random numbers.
    """

    burn_in = 0  # rows of a sequence that only bring the memory up to date

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None,
        optim: Optim,
        exploration: Exploration,
        regression: Regression,
        updates: Updates,
        target: TargetNetwork,
        normalize_reward: bool,
        backend: str,
        device: str,
        seed: Seed,
    ):
        if not isinstance(action_space, spaces.Discrete):
            text = (
                "action values take Discrete actions; for real ones there are --agent sac and ppo"
            )
            raise UsageError(f"action space {action_space}: {text}")
        others = normalize_reward, backend, device, seed
        super().__init__(network, action_space, optim, regression.gamma, *others)
        if regression.loss not in LOSSES:
            raise UsageError(f"loss {regression.loss!r} is not one of {', '.join(LOSSES)}")
        self.exploration, self.updating, self.target = exploration, updates, target
        self.loss_kind, self.rescale = regression.loss, regression.rescale
        self.dueling, self.n_step = regression.dueling, check_whole("n_step", regression.n_step)
        self.actions, self.first_action = int(action_space.n), int(action_space.start)
        self.last: Step | None = None  # the newest gradient step
        self.last_numbers: dict[str, float] | None = None  # of one before an interruption
        name = "exploration_rate" if exploration.kind == EPSILON else "temperature"
        self.last_metrics: Metrics = {
            **{f"train/{part}": partial(self._number, part) for part in NUMBERS},
            "train/learning_rate": partial(self.now, self.learning_rate),
            f"rollout/{name}": partial(self.now, exploration.rate),
        }
        self._prepare(observation_space)

    def _build(self) -> None:
        """Make values, target network and store."""
        layer = nn.Linear(self.network.features, self.actions + self.dueling)
        options: dict[str, Any] = {"dueling": self.dueling, "choices": [self.actions]}
        values = Outputs(self.network, layer, **options).to(self.device)
        args = values, self.optim, self.device, self.backend
        self.values_part = Part(*args, numpy=not self.rescale)
        self.parts = {"values": self.values_part}
        self.target_part = self.values_part
        if self.target.target_every:
            same = copied(self.network), copy.deepcopy(layer)
            frozen = Outputs(*same, **options).eval().requires_grad_(False)
            self.target_part = Part(frozen, None, self.device, self.backend)
            self.parts["target"] = self.target_part
        self.store = self.make_store(None if self.values_part.learns_in_numpy else self.device)

    def make_store(self, device: torch.device | None) -> Any:
        """Return what is learned from; its batches are on the device, without one NumPy arrays."""
        raise NotImplementedError

    def next_value(self, q: Array, online: Callable[[], Array], batch: Batch, rows: slice) -> Array:
        """Return what rows of a batch are worth [...], by the target network's Q [..., A].

        `online` works out [..., A] of the network itself, squashed where it learns them so.
        """
        raise NotImplementedError

    @property
    def beside_actions(self) -> int:
        """One where states have a value of their own."""
        return int(self.dueling)

    def begin_others(self, weights: Any, saved: Any, *, whole: bool) -> None:
        """Let the target network be the same."""
        if self.target_part is not self.values_part:
            self.target_part.module.load_state_dict(self.values_part.module.state_dict())

    # acting

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return actions and memory; the first maximum where nothing is to be explored."""
        self._try_once(obs, start)
        legal = action_mask.split(obs)[1]
        action: Array = self._random(start, legal) if explore else None
        checks: DeferredChecks = ()
        if action is None:
            out, state = self.values_part.act(obs, start, state)
            checks = check_finite(out, obs)
            action = self._explore(out, legal) if explore else out.argmax(-1)
        action = action + self.first_action if self.first_action else action
        action = action if isinstance(start, np.ndarray) else action.to(start.device)
        return Decision(action, state, checks=checks)

    def greedy(self, out: Array) -> Array:
        """Return the first action of the highest value."""
        return out.argmax(-1) + self.first_action

    def values(self, obs: Array, start: Array) -> np.ndarray:
        """Return the best action's value of N observations that open episodes [N]."""
        self._try_once(obs, start)
        best = torch.as_tensor(self.values_part.act(obs, start, None)[0]).amax(-1)
        return np.asarray(self._unscaled(best).cpu()) * self.reward_unit

    def _random(self, start: Array, legal: Array | None) -> np.ndarray | None:
        """Return random actions [N] where every environment is to take one, else draw nothing.

        The draws are those of `explore`. Only for networks whose turn costs more than the look.
        """
        costly = not self.memory and self.values_part.plain is None
        if not (costly and self.exploration.kind == EPSILON and isinstance(start, np.ndarray)):
            return None
        now, rng, actions = self.now(self.exploration.rate), self.rng, []
        before = rng.bit_generator.state
        for choices in self._choices(len(start), legal):
            if rng.random() >= now:
                rng.bit_generator.state = before
                return None
            actions.append(choices[int(rng.random() * len(choices))])
        return np.array(actions)

    def _choices(self, n: int, legal: Array | None) -> list[Sequence[int]]:
        """Return the actions that each of N environments may take, on the host."""
        if legal is None:
            return [range(self.actions)] * n
        return [np.flatnonzero(row).tolist() for row in legal]

    def _explore(self, out: Array, legal: Array | None) -> Array:
        """Draw actions from the policy: on the host by the very function of the tables."""
        kind, now = self.exploration.kind, self.now(self.exploration.rate)
        if isinstance(out, np.ndarray):
            table: Any = memoryview(out.data)
            rng, choices = self.rng, enumerate(self._choices(len(out), legal))
            return np.array([explore(kind, table, (i,), own, now, rng) for i, own in choices])
        draw = Draw(self.torch_rng)
        if kind == TEMPERATURE:
            return (out / now - draw.exponential(out.shape).log()).argmax(-1)
        chance = draw.uniform(out.shape[:1])
        if legal is None:
            anything = (chance * self.actions).long()
        else:
            before = legal.to(out.device).cumsum(-1)
            anything = (before > chance[:, None] * before[:, -1:]).long().argmax(-1)
        return torch.where(draw.uniform(out.shape[:1]) < now, anything, out.argmax(-1))

    # learning

    def learn(self, step: Transition) -> Metrics:
        """Keep the turn, learn from the batches that are due, move the target network."""
        super().learn(step)
        return {} if self.last is None and self.last_numbers is None else self.last_metrics

    @property
    def due(self) -> int:
        """How often it is to be learned after the newest turn."""
        return self.passed(self.updating.train_every)

    def end_turn(self) -> None:
        """Move the target network where it is due."""
        if self.target.target_every and self.passed(self.target.target_every):
            self._move_target()

    def update(self, batch: Batch) -> Metrics:
        """Take one gradient step."""
        on_host = isinstance(batch.reward, np.ndarray)
        # what is not finite is refused by name
        with np.errstate(all="ignore") if on_host else self.studying(batch):
            loss = self.loss(batch)
            norm = self.gradient_step(loss, self.values_part)
            self.updates += 1
            total = loss.total if on_host else loss.total.detach()  # without the graph
            self.last = Step(loss._replace(total=total), norm)
        return self.last_metrics

    def update_statistics(self, batch: Batch) -> None:
        """Show a batch to the network's running statistics, after the last pass over it."""
        if isinstance(batch.reward, np.ndarray):  # of plain layers, which have none
            return
        timed = slice(None) if self.memory else slice(1)
        leaves = action_mask.split(batch.obs)[0], batch.start, batch.valid
        obs, start, valid = tree.map(lambda leaf: leaf[timed], leaves)
        update_statistics(self.network, obs, start, valid, batch.state)

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of Q(s, a) against the targets of a batch."""
        q, target = self._of_sequences(batch) if self.memory else self._of_steps(batch)
        rows = slice(self.burn_in, -1)
        valid = batch.valid[rows] if self.memory else None
        action = self.index(batch.action[rows])
        target = targets.squash(target) if self.rescale else target
        return targets.regression(self.loss_kind, q, action, target, valid, batch.weight)

    def _of_steps(self, batch: Batch) -> tuple[Array, Array]:
        """Return Q of row 0 [1, B, A] and its target; the target network sees row 1 alone."""
        first, after = (tree.map(lambda x, part=part: x[part], batch.obs) for part in (ROW, NEXT))
        start, own = batch.start[ROW], self.target_part is self.values_part
        q = self.target_part.evaluate(after, start)
        online = (lambda: q) if own else partial(self.values_part.evaluate, after, start)
        worth = self.next_value(self._unscaled(q), online, batch, NEXT)
        target = batch.reward[ROW] + batch.discount[ROW] * worth
        return self.values_part.learn(first, start, None, batch.valid[ROW]), target

    def _of_sequences(self, batch: Batch) -> tuple[Array, Array]:
        """Return Q of the rows behind the burn-in [T, B, A] and their targets."""
        rows = slice(self.burn_in, None)
        q = self._unroll(self.values_part, batch, grad=True)
        with torch.no_grad():
            own = self.target_part is self.values_part
            frozen = q if own else self._unroll(self.target_part, batch, grad=False)
            worth = self.next_value(self._unscaled(frozen), lambda: q, batch, rows)
            reward, discount, final = batch.reward[rows], batch.discount[rows], batch.final[rows]
            target = targets.n_step(reward, discount, final, worth, self.n_step)
        return q[:-1], target[:-1]

    def _unroll(self, part: Part, batch: Batch, grad: bool) -> Array:
        """Return Q of the rows behind the burn-in, which only brings the memory up to date."""
        first, state = self.burn_in, batch.state
        obs, start, valid = batch.obs, batch.start, batch.valid[first:]
        if first:
            early = tree.map(lambda leaf: leaf[:first], obs)
            state = part.memory_after(early, start[:first], state)
            obs, start = tree.map(lambda leaf: leaf[first:], obs), start[first:]
        return part.learn(obs, start, state, valid) if grad else part.evaluate(obs, start, state)

    def policy_value(self, q: Array) -> Array:
        """Return sum_a pi(a|s) Q(s, a) [...] of the exploring policy, Q in units of returns."""
        now = self.now(self.exploration.rate)
        if self.exploration.kind == TEMPERATURE:
            preferred = targets.squash(q) if self.rescale else q
            return targets.expected_softmax(q, preferred, now)
        return targets.expected_greedy(q, now)

    def index(self, action: Array) -> Array:
        """Return actions, as the environment counts them, as indices from 0."""
        return action - self.first_action if self.first_action else action

    def _unscaled(self, value: Array) -> Array:
        return targets.unsquash(value) if self.rescale else value

    def _move_target(self) -> None:
        move(self.target_part, self.values_part, self.target.target_rate)

    def _number(self, name: str) -> float:
        """Return what the newest gradient step gave, be it before an interruption."""
        numbers = self.last_numbers if self.last is None else self.last.numbers()
        return (numbers or {}).get(name, math.nan)

    # state

    SAVED: ClassVar[dict[str, Kept]] = {
        **NetworkAgent.SAVED,
        "last_numbers": plain(schema.maybe(dict.fromkeys(NUMBERS, 0.0))),
    }

    def state_dict(self) -> dict[str, Any]:
        """Return weights, moments, store, counters, random numbers and what was logged last."""
        numbers = self.last_numbers if self.last is None else self.last.numbers()
        return {**super().state_dict(), "last_numbers": numbers}

    def load_state_dict(self, state: dict[str, Any], name: str = "agent") -> None:
        """Continue where `state` was taken; refuse what is not of this agent's form."""
        super().load_state_dict(state, name)
        self.last = None
