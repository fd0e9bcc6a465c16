"""Q-learning, SARSA and Monte Carlo with any network as the action-value function."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.action_values import ActionValues, Actor
from seqrl.agents.deep.devices import drawing_from
from seqrl.agents.deep.draws import TorchDraw
from seqrl.agents.deep.network_agent import NetworkAgent, check_finite
from seqrl.agents.deep.numpy_learner import make_learner
from seqrl.agents.deep.value_arguments import TargetArguments, UpdateArguments, settled
from seqrl.agents.deep.value_experience import Experience
from seqrl.agents.deep.value_learner import UpdateResult
from seqrl.agents.experience.columns import check_replay_memory
from seqrl.agents.experience.episodes import EpisodeBatch as Episodes
from seqrl.agents.schedules import Rate, schedule
from seqrl.agents.tabular.policy import EPSILON, TEMPERATURE, Exploration, explore
from seqrl.core import Array, Decision, Metrics, State, Transition, UsageError, schema, tree
from seqrl.core.arrays import to_numpy
from seqrl.core.seeding import Seed
from seqrl.networks.base import dummy, has_memory

NOTHING: Metrics = {}
NUMBERS = ("loss", "td_error", "grad_norm")


class ValueAgent(NetworkAgent):
    """Action values on any network, with memory or without (Sutton & Barto, 2018, chapters 9, 10).

    Q-learning draws from a replay and bootstraps from a target network (Mnih et al., 2015); one
    with memory draws sequences with the memory that entered them (Kapturowski et al., 2019).
    SARSA and Monte Carlo learn from what was just done, each step `updates` times. What is
    descended is half the squared error to the target, so that SGD on a one-hot linear network is
    a table.

    Args:
        network: a Network or any module from [B, ...] to [B, F].
        action_space: Discrete.
        observation_space: lets lazy layers be built at once; without it at the first observation.
        target: "q-learning", "sarsa" or "monte-carlo"; what is None below follows it.
        learning_rate: of the optimiser, a number or a schedule.
        gamma: discount in [0, 1].
        exploration: `EpsilonGreedy(epsilon)` or `Boltzmann(temperature)`.
        expected: SARSA bootstraps from the policy's expected value, not from the action taken.
        n_step: rewards before bootstrapping, at least 1 (Q-learning: uncorrected).
        double: Q-learning's action is picked by the one network, its value taken from the other.
        dueling: the values of states and the advantages of actions apart.
        loss: "huber" or "squared".
        rescale: learn the values squashed, where returns are large (Pohlen et al., 2018).
        batch_size: steps a gradient step, or sequences with memory; at least 1.
        train_every: env steps from one learning to the next, at least 1.
        updates: gradient steps each time, on policy passes over the steps; at least 1.
        buffer_size: rows of the replay; 0 learns on policy, from each step as it comes.
        learning_starts: env steps before the first gradient step.
        target_every: env steps from one move of the target network to the next; 0 for none.
        target_rate: share of the way to the network that it moves, in (0, 1].
        priority: alpha in [0, 1] of prioritised replay, 0 for uniform (Schaul et al., 2016).
        importance: beta in [0, 1] that corrects for priorities, a number or a schedule.
        sequence_length: steps learned from in a sequence, with memory.
        burn_in: steps before them that only warm the memory up.
        stored_state: sequences begin with the memory of then, not with a fresh one.
        max_grad_norm: gradients are scaled down to this norm, above 0.
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
        target: str = "q-learning",
        learning_rate: Rate | None = None,
        gamma: float = 0.99,
        exploration: Exploration | None = None,
        expected: bool = False,
        n_step: int | None = None,
        double: bool = True,
        dueling: bool = False,
        loss: str | None = None,
        rescale: bool = False,
        batch_size: int | None = None,
        train_every: int | None = None,
        updates: int | None = None,
        buffer_size: int | None = None,
        learning_starts: int | None = None,
        target_every: int | None = None,
        target_rate: float = 1.0,
        priority: float = 0.0,
        importance: Rate = "linear:0.4:1",
        sequence_length: int = 16,
        burn_in: int = 0,
        stored_state: bool = True,
        max_grad_norm: float = 10.0,
        optimizer: str = "Adam",
        weight_decay: float = 0.0,
        device: str = "auto",
        seed: Seed = None,
    ):
        given = dict(locals())
        own = settled(target, given)
        if not isinstance(action_space, spaces.Discrete):
            raise UsageError(f"action space {action_space}: action values take Discrete actions")
        super().__init__(network, own["learning_rate"], optimizer, weight_decay, device, seed)
        self.exploration: Exploration = own["exploration"]
        self.importance = schedule("importance", importance)
        own["kind"], own["first_action"] = self.exploration.kind, int(action_space.start)
        own["burn_in"] = burn_in if own["buffer_size"] else 0
        self.target_args = TargetArguments(**{name: own[name] for name in TargetArguments._fields})
        self.update_args = UpdateArguments(**{name: own[name] for name in UpdateArguments._fields})
        self.dueling, self.actions = dueling, int(action_space.n)
        self.last: UpdateResult | None = None  # of the newest gradient step
        self.last_numbers: dict[str, float] | None = None  # what one before an interruption told
        self.last_metrics = self._metrics()
        if observation_space is not None:
            self._check_memory(observation_space)
        self._prepare(observation_space)

    def _build(self) -> None:
        """Values, optimiser and experience."""
        values = ActionValues(self.network, self.actions, dueling=self.dueling).to(self.device)
        self.learner = make_learner(
            values,
            self._optimizer(values),
            self.target_args,
            target_network=self.update_args.target_every > 0,
        )
        self.actor = Actor(values, self.device, self.learner.mlp)
        self.memory = has_memory(self.network)
        self.experience = Experience(self.target_args, self.update_args, self.memory, self.device)

    def _check_memory(self, space: gym.Space) -> None:
        """Refuse a replay that does not fit before anything is played."""
        row = sum(leaf.nbytes for leaf in tree.leaves(dummy(space, (1, 1))))
        check_replay_memory(self.update_args.buffer_size * row, self.update_args.buffer_size)

    # acting

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Actions and the memory they leave with; the first maximum where nothing is explored."""
        self._try_once(obs, start)
        out, state = self.actor(obs, start, state)
        check_finite(out, obs)
        action = self._explore(out) if explore else out.argmax(-1)
        first = self.target_args.first_action
        action = action + first if first else action
        return Decision(action if isinstance(start, np.ndarray) else action.to(start.device), state)

    def values(self, obs: Array, start: Array) -> np.ndarray:
        """What the best action is worth in N observations that open episodes [N]; draws nothing."""
        self._try_once(obs, start)
        best = torch.as_tensor(self.actor(obs, start, None)[0]).amax(-1)
        found: np.ndarray = to_numpy(targets.unsquash(best) if self.target_args.rescale else best)
        return found

    def _explore(self, out: Array) -> Array:
        """Draw actions from the policy: on the host by the very function of the tables."""
        kind, now = self.exploration.kind, self._now(self.exploration.rate)
        if isinstance(out, np.ndarray):
            table: Any = memoryview(out.data)
            rng = self.rng
            return np.array([explore(kind, table, (i,), now, rng) for i in range(len(out))])
        draw = TorchDraw(self.torch_rng)
        if kind == TEMPERATURE:
            return (out / now - draw.exponential(out.shape).log()).argmax(-1)
        anything = (draw.uniform(out.shape[:1]) * self.actions).long()
        return torch.where(draw.uniform(out.shape[:1]) < now, anything, out.argmax(-1))

    # learning

    def learn(self, step: Transition) -> Metrics:
        """Keep the turn; learn as often as its env steps ask for."""
        before, update_args = self.steps, self.update_args
        self.steps += int(step.valid.sum())
        self.experience.add(step)
        times = self.steps // update_args.train_every - before // update_args.train_every
        if times and self.steps > update_args.learning_starts:
            self._learn(times)
        if (
            update_args.target_every
            and self.steps // update_args.target_every > before // update_args.target_every
        ):
            self.learner.follow(update_args.target_rate)
        return NOTHING if self.last is None and self.last_numbers is None else self.last_metrics

    def _learn(self, times: int) -> None:
        """The gradient steps that are due."""
        alpha, epsilon = self._now(self.learning_rate), self._now(self.exploration.rate)

        def bootstrap(episodes: Episodes) -> Tensor:
            return self.learner.bootstrap(episodes, self.memory, epsilon)

        beta = self._now(self.importance)
        with drawing_from(self.torch_rng):
            for weighted in self.experience.batches(times, self.rng, beta, bootstrap):
                outcome = self.learner.update(weighted.batch, weighted.weight, alpha, epsilon)
                self.experience.learned(weighted, outcome.per_item)
                self.last = outcome
        self.actor.stale = True

    def _metrics(self) -> Metrics:
        """What the log shows, each read when it is written."""
        kind, epsilon = self.exploration
        name = "exploration_rate" if kind == EPSILON else "temperature"
        return {
            **{f"train/{part}": partial(self._number, part) for part in NUMBERS},
            "train/learning_rate": lambda: self._now(self.learning_rate),
            f"rollout/{name}": lambda: self._now(epsilon),
        }

    def _number(self, name: str) -> float:
        """What the newest gradient step told, be it before an interruption."""
        numbers = self.last_numbers if self.last is None else self.last.numbers()
        return (numbers or {}).get(name, math.nan)

    # state

    def _parts(self) -> dict[str, Any]:
        """Weights and optimiser, experience, what was told last."""
        return {
            "learner": self.learner.state_dict() if self.built else None,
            "experience": self.experience.state_dict() if self.built else None,
            "last_numbers": self.last_numbers if self.last is None else self.last.numbers(),
        }

    def _parts_form(self, state: dict[str, Any]) -> dict[str, Any]:
        """Learner and experience check theirs when they are loaded."""
        numbers = schema.maybe(dict.fromkeys(NUMBERS, 0.0))
        return {"learner": schema.anything, "experience": schema.anything, "last_numbers": numbers}

    def _load_parts(self, state: dict[str, Any]) -> None:
        if state["learner"] is not None:
            self._check_built()
            self.learner.load_state_dict(state["learner"])
            self.experience.load_state_dict(state["experience"])
            self.actor.stale = True
        self.last, self.last_numbers = None, state["last_numbers"]
