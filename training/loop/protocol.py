"""What the loop shows to those it calls, and what it asks of them."""

from __future__ import annotations

from typing import Any, Protocol

from seqrl.training.loop.books import Episode


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

    One with `episodes(steps, totals, lengths)` and `due` is handed those of a turn, or of compiled
    turns, that end before env step `due` all at once.
    """

    def episode(self, loop: Any, episode: Episode) -> None:
        """Called in the order in which episodes end."""
