"""What has been played: episodes under way, episodes that have ended, seconds spent."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from seqrl.core.types import Seen, Transition

WINDOW = 100  # episodes in the running means


class Episode(NamedTuple):
    """An episode that has ended."""

    step: int  # env step at which it ended
    env: int  # which of the N environments
    total: float  # undiscounted return
    length: int  # env steps
    truncated: bool  # cut off rather than over


class Books:
    """Returns and lengths of the N episodes under way, and of the last 100 that have ended."""

    def __init__(self) -> None:
        self.episodes = 0  # that have ended
        self.wanted: int | None = None  # enough have been played after as many
        self.recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)  # returns and lengths
        self.returns = np.zeros(0)  # [N] undiscounted, so far
        self.lengths = np.zeros(0, np.int64)  # [N] env steps so far

    @property
    def enough(self) -> bool:
        """Whether as many episodes have ended as are wanted."""
        return self.wanted is not None and self.episodes >= self.wanted

    @property
    def ep_rew_mean(self) -> float:
        """Mean return of the last 100 episodes; NaN where none has ended."""
        return mean_of([total for total, _ in self.recent])

    @property
    def ep_len_mean(self) -> float:
        """Mean length of the last 100 episodes in env steps; NaN where none has ended."""
        return mean_of([length for _, length in self.recent])

    def open(self, n: int) -> None:
        """Begin episodes in n environments."""
        self.returns, self.lengths = np.zeros(n), np.zeros(n, np.int64)

    def forget(self, lost: np.ndarray) -> None:
        """Count nothing of the episodes under way where `lost` [N] holds."""
        self.returns[lost] = self.lengths[lost] = 0

    def add(self, step: Seen | Transition, count: int) -> None:
        """Add a turn, of which `count` rows are valid."""
        if count == len(step.valid):
            self.returns += step.reward
            self.lengths += 1
        else:
            self.returns += step.reward * step.valid
            self.lengths += step.valid

    def close(self, step: Seen, before: int, count: int) -> tuple[np.ndarray, ...]:
        """Return the columns of `Episode` of those that a turn ended, begun at env step `before`.

        Each ended at its row's env step. They are to be counted.
        """
        envs = np.flatnonzero(step.over)
        whole = count == len(step.valid)
        rank = envs + 1 if whole else step.valid.cumsum()[envs]
        returns, lengths = self.returns[envs], self.lengths[envs]
        if len(envs):
            self.returns[envs] = 0
            self.lengths[envs] = 0
        return before + rank, envs, returns, lengths, ~step.terminated[envs]

    def count(self, episode: Episode) -> None:
        """Count an episode that has ended."""
        self.episodes += 1
        self.recent.append((episode.total, episode.length))

    def count_all(self, totals: np.ndarray, lengths: np.ndarray) -> None:
        """Count episodes in the order in which they ended."""
        self.episodes += len(totals)
        last = slice(-WINDOW, None)
        self.recent.extend(zip(totals[last].tolist(), lengths[last].tolist(), strict=True))


class Stopwatch:
    """Seconds spent between `start` and `stop`."""

    def __init__(self) -> None:
        self._spent, self._since = 0.0, -1.0

    def add(self, seconds: float) -> None:
        """Count what was spent before, in another process."""
        self._spent += seconds

    def start(self) -> None:
        """Go on counting."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Pause."""
        self._spent, self._since = self.seconds, -1.0

    @property
    def seconds(self) -> float:
        """What has been counted until now."""
        return self._spent + (time.perf_counter() - self._since if self._since >= 0 else 0.0)


def mean_of(values: list[float]) -> float:
    """Return the arithmetic mean, NaN of no values."""
    return sum(values) / len(values) if values else math.nan
