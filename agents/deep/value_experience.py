"""What a value agent has met, and the batches that it learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqrl.agents.deep.value_arguments import TargetArguments, UpdateArguments
from seqrl.agents.experience.batches import (
    Indices,
    Sequences,
    Steps,
    ranges,
    sequences,
    single_steps,
)
from seqrl.agents.experience.columns import Columns, host_turn
from seqrl.agents.experience.episodes import EpisodeBatch as Episodes
from seqrl.agents.experience.episodes import EpisodeStore, check_episodes
from seqrl.agents.experience.packing import pack
from seqrl.agents.experience.replay import Replay
from seqrl.agents.experience.rollout import Rollout
from seqrl.agents.experience.whole_episodes import shuffled, with_returns
from seqrl.core import Transition
from seqrl.core.arrays import to_numpy, to_tensor

Tail = Callable[[Episodes], Tensor]


class WeightedBatch(NamedTuple):
    """A batch for one gradient step."""

    batch: Steps | Sequences
    weight: Tensor | None = None  # of each item [B]
    indices: Indices | None = None  # where they came from, if their priorities are to follow


class Experience:
    """A replay to draw from, the steps of a rollout, or whole episodes: what the target asks for.

    memory: whether the network has any.
    """

    def __init__(
        self,
        target_args: TargetArguments,
        update_args: UpdateArguments,
        memory: bool,
        device: torch.device,
    ):
        self.target_args, self.update_args, self.memory, self.device = (
            target_args,
            update_args,
            memory,
            device,
        )
        self.store: Replay | Rollout | EpisodeStore = self._store()

    def _store(self) -> Replay | Rollout | EpisodeStore:
        target_args, update_args, stored = (
            self.target_args,
            self.update_args,
            self.memory and self.update_args.stored_state,
        )
        if target_args.target == "monte-carlo":
            return EpisodeStore()
        if not update_args.buffer_size:
            waits = target_args.target == "sarsa" and not target_args.expected
            return Rollout(
                target_args.n_step, waits=waits, steps=update_args.train_every, stored_state=stored
            )
        if not self.memory:
            return Replay(update_args.buffer_size, priority=update_args.priority)
        return Replay(
            update_args.buffer_size,
            length=self.length,
            period=max(1, update_args.sequence_length // 2),  # so that they overlap by half
            stored_state=stored,
            priority=update_args.priority,
        )

    @property
    def length(self) -> int:
        """Steps of a sequence."""
        return self.target_args.burn_in + self.update_args.sequence_length

    def add(self, step: Transition) -> None:
        """Keep the valid rows of a turn."""
        self.store.add(step if isinstance(self.store, EpisodeStore) else host_turn(step))

    def batches(
        self, times: int, rng: np.random.Generator, beta: float, bootstrap: Tail
    ) -> Iterator[WeightedBatch]:
        """What to learn from now, each gathered when the one before has been learned from."""
        store = self.store
        if isinstance(store, Replay):
            for _ in range(times * self.update_args.updates if len(store) else 0):
                yield self.drawn(store, rng, beta)
        elif isinstance(store, Rollout):
            yield from self._of_rollouts(store)
        elif len(store):
            yield from self._of_episodes(store, rng, bootstrap)

    def drawn(self, replay: Replay, rng: np.random.Generator, beta: float) -> WeightedBatch:
        """A batch of the replay; its weights make up for priorities (Schaul et al., 3.4)."""
        indices, chance = replay.draw(self.update_args.batch_size, rng)
        batch: Steps | Sequences
        if self.memory:
            batch = self._packed(
                sequences(replay.rows, indices, self.length, self.target_args.burn_in)
            )
        else:
            batch = self._steps(replay.rows, indices)
        if chance is None:
            return WeightedBatch(batch)
        weight = chance**-beta
        weight = (weight / weight.max()).astype(np.float32)
        return WeightedBatch(batch, to_tensor(weight, self.device), indices)

    def learned(self, weighted: WeightedBatch, error: Callable[[], Tensor]) -> None:
        """Give the rows of a batch the priorities that their errors [B] ask for."""
        if weighted.indices is not None and isinstance(self.store, Replay):
            self.store.prioritise(weighted.indices, to_numpy(error()))

    def _steps(self, rows: Columns, indices: Indices) -> Steps:
        done = self.target_args.target == "sarsa"
        return self._packed(
            single_steps(rows, indices, self.target_args.n_step, self.target_args.gamma, done=done)
        )

    def _packed(self, picked: Any) -> Any:
        return type(picked)(*pack(tuple(picked), self.device))

    def _of_rollouts(self, rollouts: Rollout) -> Iterator[WeightedBatch]:
        """Sequences of all environments side by side, or their steps in the order of time."""
        begin, stop = rollouts.take()
        rows = rollouts.rows
        if self.memory:
            length = int((rows.last - begin).max())
            everywhere = Indices(begin, np.arange(len(begin)))
            for _ in range(self.update_args.updates if (stop > begin).any() else 0):
                yield WeightedBatch(self._packed(sequences(rows, everywhere, length, stop=stop)))
            return
        indices = ranges(begin, stop)
        real = ~rows.is_final(indices)
        order = np.argsort((indices.row - begin[indices.column])[real], kind="stable")
        indices = Indices(indices.row[real][order], indices.column[real][order])
        for _ in range(self.update_args.updates):
            for i in range(0, len(order), self.update_args.batch_size):
                part = slice(i, i + self.update_args.batch_size)
                yield WeightedBatch(
                    self._steps(rows, Indices(indices.row[part], indices.column[part]))
                )

    def _of_episodes(
        self, store: EpisodeStore, rng: np.random.Generator, bootstrap: Tail
    ) -> Iterator[WeightedBatch]:
        """Finished episodes, as steps that nothing follows and whose reward is their return."""
        episodes = Episodes(*to_tensor(tuple(store.take()), self.device))
        whole = with_returns(episodes, bootstrap(episodes), self.target_args.gamma)
        for _ in range(self.update_args.updates):
            if self.memory:
                yield WeightedBatch(whole)
            else:
                yield from map(WeightedBatch, shuffled(whole, self.update_args.batch_size, rng))

    def state_dict(self) -> dict[str, Any]:
        """All that is kept."""
        return self.store.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse; refuses what is not of this form."""
        if isinstance(self.store, EpisodeStore):
            check_episodes("agent/experience", state)
        self.store.load_state_dict(state)
