"""What the loop shows to those it calls, and what it asks of them."""

from __future__ import annotations

from typing import Any, Protocol

from seqrl.agents.protocol import Agent
from seqrl.core.types import Array, State
from seqrl.envs.adapter import Environments
from seqrl.training.loop.books import Books, Episode, Stopwatch


class Callback(Protocol):
    """Something to do every so many env steps: evaluate, save."""

    every: int

    def __call__(self, loop: Any) -> None:
        """Called at the end of the first turn that reaches each multiple of `every`."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive an interruption, as arrays and plain values; else nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        return


class Recorder(Protocol):
    """Hears of every finished episode: a logger, an evaluation.

    One with `episodes(steps, totals, lengths)` and `due` is handed those that end before env step
    `due` all at once where the turns are compiled.
    """

    def episode(self, loop: Any, episode: Episode) -> None:
        """Called in the order in which episodes end."""


class Loop(Protocol):
    """An `Interaction` as the turns see it."""

    agent: Agent
    envs: Environments
    learning: bool  # else it plays greedily and teaches nothing
    max_episode_steps: int | None  # after which an episode is cut
    recorder: Recorder | None
    books: Books
    watch: Stopwatch
    steps: int  # valid env steps so far
    obs: Array  # [N, ...] what is looked at next
    start: Array  # bool [N]: it opens an episode
    state: State  # [N, ...] memory that the last turn left

    def told(self, metrics: Any) -> None:
        """Take in what an agent said of its learning."""

    def record(self, step: Any, before: int, count: int) -> None:
        """Count the episodes that a turn has ended and hand them to the recorder."""

    def record_all(self, *episodes: Any) -> None:
        """Count and hand over the episodes of compiled turns."""
