"""Q-learning on any network: replay, target network, double, n steps, sequences with memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import nn

from seqrl.agents.deep import targets
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.value_agent import Regression, TargetNetwork, Updates, ValueAgent
from seqrl.agents.experience.columns import check_replay_memory
from seqrl.agents.experience.replay import Replay, Sequences
from seqrl.agents.schedules import Rate, schedule
from seqrl.agents.tabular.policy import EpsilonGreedy, Exploration
from seqrl.core import tree
from seqrl.core.arrays import check_memory, host
from seqrl.core.checked import checked_part
from seqrl.core.checks import check_unit, check_whole
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch
from seqrl.networks.contract import dummy


@checked_part
@dataclass(frozen=True)
class ReplaySettings:
    """The replay that batches are drawn from.

    buffer_size: rows of the replay, at least 1; an episode takes one more than it has steps.
    learning_starts: env steps before the first gradient step.
    priority: alpha in [0, 1] of prioritised replay, 0 for uniform (Schaul et al., 2016).
    importance: beta in [0, 1] that corrects for priorities, a number or a schedule.
    """

    buffer_size: int = 50_000
    learning_starts: int = 1_000
    priority: float = 0.0
    importance: Rate = "linear:0.4:1"

    def __post_init__(self) -> None:
        check_whole("buffer_size", self.buffer_size)
        check_whole("learning_starts", self.learning_starts, 0)
        check_unit("priority", self.priority)

    def check_space(self, space: gym.Space | None, batch_size: int) -> None:
        """Refuse a replay, or a batch, of observations for which there is no memory."""
        if space is not None:
            row = sum(leaf.nbytes for leaf in tree.leaves(dummy(space, (1, 1))))
            check_replay_memory(self.buffer_size * row, self.buffer_size)
            check_memory(
                2 * batch_size * row, f"batch_size {batch_size:,}", "take a smaller --batch-size"
            )


def draws(agent: Any) -> Iterator[Batch]:
    """Yield draws from the replay of an agent, those due since its last turn."""
    replay, updates = agent.replay, agent.updating
    if agent.steps <= replay.learning_starts or not len(agent.store):
        return
    count, beta = agent.passed(updates.train_every) * updates.updates, agent.now(agent.importance)
    for batch in agent.store.draws(count, updates.batch_size, agent.rng, beta):
        yield agent.in_reward_units(batch)


class DeepQ(ValueAgent):
    """Q-learning on any network (DQN: Mnih et al., 2015).

    Batches are drawn from a replay, values bootstrapped from a target network. A network with
    memory learns from sequences with the memory that entered them (Kapturowski et al., 2019). It
    takes what every `ValueAgent` takes, and:

    Args:
        n_step: rewards before bootstrapping, at least 1 (uncorrected for exploration).
        double: the action is picked by the one network, its value taken from the other.
        target: the target network.
        replay: what batches are drawn from.
        sequences: what a network with memory learns from.
    """

    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:1e-4:0.01}:0",
        "n_step": "choice:1,3,5,10",
        "target_every": "choice:50,100,300,1000",
        "updates": "choice:1,2,4",
    }

    learns_from_others = True

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        optim: Optim = Optim("linear:0.001:0", max_grad_norm=10.0),
        gamma: float = 0.99,
        exploration: Exploration = EpsilonGreedy("linear:1:0.05:0.2"),
        n_step: int = 3,
        double: bool = True,
        dueling: bool = False,
        loss: str = "squared",  # huber is a median: where values are 100, rare falls count little
        rescale: bool = False,
        updates: Updates = Updates(batch_size=64, train_every=4, updates=1),
        target: TargetNetwork = TargetNetwork(target_every=100),
        replay: ReplaySettings = ReplaySettings(),
        sequences: Sequences = Sequences(),
        normalize_reward: bool = False,
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        self.double, self.replay, self.sequences = double, replay, sequences
        self.importance = schedule("importance", replay.importance)
        replay.check_space(observation_space, updates.batch_size)
        regression = Regression(gamma, n_step, loss, rescale, dueling)
        parts = optim, exploration, regression, updates, target
        others = normalize_reward, backend, device, seed
        super().__init__(network, action_space, observation_space, *parts, *others)
        self.passes = updates.updates * updates.batch_size / updates.train_every

    def make_store(self, device: torch.device | None) -> Replay:
        """Return a replay of single steps, or of sequences for a network with memory."""
        self.burn_in = self.sequences.burn_in if self.memory else 0
        return Replay(
            self.replay.buffer_size,
            n_step=self.n_step,
            gamma=self.gamma,
            sequences=self.sequences if self.memory else None,
            priority=self.replay.priority,
            device=device,
        )

    def batches(self) -> Iterator[Batch]:
        """Return draws from the replay, those due since the last turn."""
        return draws(self)

    def next_value(self, q: Array, online: Callable[[], Array], batch: Batch, rows: slice) -> Array:
        """Return max_a Q(s, a), or the target network's Q of what the network itself would do."""
        return targets.double(q, online()) if self.double else targets.highest(q)

    def update(self, batch: Batch) -> Any:
        """Take one gradient step, and give what was drawn new priorities."""
        metrics = super().update(batch)
        self.update_statistics(batch)
        if batch.indices is not None:
            taken: Any = self.last
            error, valid = taken.loss.error, taken.loss.valid
            size = targets.sequence_error(error, valid) if self.memory else abs(error[0])
            self.store.prioritise(batch.indices, host(size))
        return metrics
