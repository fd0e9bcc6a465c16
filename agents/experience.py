"""What a value agent has met, and the batches that it learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqrl.agents.episodes import Batch as Episodes
from seqrl.agents.episodes import EpisodeStore, check_episodes
from seqrl.agents.items import Items, Sequences, Steps, ranges, sequences, single_steps
from seqrl.agents.packing import pack
from seqrl.agents.replay import Replay, Rollouts
from seqrl.agents.rows import Rows, on_host
from seqrl.agents.torch_tools import to_numpy, to_tensor
from seqrl.agents.value_settings import Pace, Rule
from seqrl.agents.whole_episodes import shuffled, with_returns
from seqrl.core import Transition

Tail = Callable[[Episodes], Tensor]


class Lesson(NamedTuple):
    """A batch for one gradient step."""

    batch: Steps | Sequences
    weight: Tensor | None = None  # of each item [B]
    items: Items | None = None  # where they came from, if their priorities are to follow


class Experience:
    """A replay to draw from, the steps of a rollout, or whole episodes: what the rule asks for.

    memory: whether the network has any.
    """

    def __init__(self, rule: Rule, pace: Pace, memory: bool, device: torch.device):
        self.rule, self.pace, self.memory, self.device = rule, pace, memory, device
        self.store: Replay | Rollouts | EpisodeStore = self._store()

    def _store(self) -> Replay | Rollouts | EpisodeStore:
        rule, pace, stored = self.rule, self.pace, self.memory and self.pace.stored_state
        if rule.target == "monte-carlo":
            return EpisodeStore()
        if not pace.buffer_size:
            waits = rule.target == "sarsa" and not rule.expected
            return Rollouts(rule.n_step, waits=waits, steps=pace.train_every, stored_state=stored)
        if not self.memory:
            return Replay(pace.buffer_size, priority=pace.priority)
        return Replay(
            pace.buffer_size,
            length=self.length,
            period=max(1, pace.sequence_length // 2),  # so that they overlap by half
            stored_state=stored,
            priority=pace.priority,
        )

    @property
    def length(self) -> int:
        """Steps of a sequence."""
        return self.rule.burn_in + self.pace.sequence_length

    def add(self, step: Transition) -> None:
        """Keep the valid rows of a turn."""
        self.store.add(step if isinstance(self.store, EpisodeStore) else on_host(step))

    def lessons(
        self, times: int, rng: np.random.Generator, beta: float, tail: Tail
    ) -> Iterator[Lesson]:
        """What to learn from now, each gathered when the one before has been learned from."""
        store = self.store
        if isinstance(store, Replay):
            for _ in range(times * self.pace.updates if len(store) else 0):
                yield self.drawn(store, rng, beta)
        elif isinstance(store, Rollouts):
            yield from self._of_rollouts(store)
        elif len(store):
            yield from self._of_episodes(store, rng, tail)

    def drawn(self, replay: Replay, rng: np.random.Generator, beta: float) -> Lesson:
        """A batch of the replay; its weights make up for priorities (Schaul et al., 3.4)."""
        items, chance = replay.draw(self.pace.batch_size, rng)
        batch: Steps | Sequences
        if self.memory:
            batch = self._packed(sequences(replay.rows, items, self.length, self.rule.burn_in))
        else:
            batch = self._steps(replay.rows, items)
        if chance is None:
            return Lesson(batch)
        weight = chance**-beta
        weight = (weight / weight.max()).astype(np.float32)
        return Lesson(batch, to_tensor(weight, self.device), items)

    def learned(self, lesson: Lesson, error: Callable[[], Tensor]) -> None:
        """Give the items of a lesson the priorities that their errors [B] ask for."""
        if lesson.items is not None and isinstance(self.store, Replay):
            self.store.prioritise(lesson.items, to_numpy(error()))

    def _steps(self, rows: Rows, items: Items) -> Steps:
        done = self.rule.target == "sarsa"
        return self._packed(single_steps(rows, items, self.rule.n_step, self.rule.gamma, done=done))

    def _packed(self, picked: Any) -> Any:
        return type(picked)(*pack(tuple(picked), self.device))

    def _of_rollouts(self, rollouts: Rollouts) -> Iterator[Lesson]:
        """Sequences of all environments side by side, or their steps in the order of time."""
        begin, stop = rollouts.take()
        rows = rollouts.rows
        if self.memory:
            length = int((rows.last - begin).max())
            everywhere = Items(begin, np.arange(len(begin)))
            for _ in range(self.pace.updates if (stop > begin).any() else 0):
                yield Lesson(self._packed(sequences(rows, everywhere, length, stop=stop)))
            return
        items = ranges(begin, stop)
        real = ~rows.is_final(items)
        order = np.argsort((items.row - begin[items.column])[real], kind="stable")
        items = Items(items.row[real][order], items.column[real][order])
        for _ in range(self.pace.updates):
            for i in range(0, len(order), self.pace.batch_size):
                part = slice(i, i + self.pace.batch_size)
                yield Lesson(self._steps(rows, Items(items.row[part], items.column[part])))

    def _of_episodes(
        self, store: EpisodeStore, rng: np.random.Generator, tail: Tail
    ) -> Iterator[Lesson]:
        """Finished episodes, as steps that nothing follows and whose reward is their return."""
        episodes = Episodes(*to_tensor(tuple(store.take()), self.device))
        whole = with_returns(episodes, tail(episodes), self.rule.gamma)
        for _ in range(self.pace.updates):
            if self.memory:
                yield Lesson(whole)
            else:
                yield from map(Lesson, shuffled(whole, self.pace.batch_size, rng))

    def state_dict(self) -> dict[str, Any]:
        """All that is kept."""
        return self.store.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse; refuses what is not of this form."""
        if isinstance(self.store, EpisodeStore):
            check_episodes("agent/experience", state)
        self.store.load_state_dict(state)
