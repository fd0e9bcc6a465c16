"""Loggers of the user's, which take one number at a time."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from seqrl.agents.protocol import Taught
from seqrl.core.types import Metrics
from seqrl.envs.recorded import Recorded
from seqrl.training.loop.books import Episode

POINTS = 1000  # at most, a tag


class Scalars(Protocol):
    """A logger that takes one number at a time, such as one of another tracker.

    One with a method `flush()` is told when training ends.
    """

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Take the value of a tag at an env step; steps never go back."""


class ScalarRecorder:
    """A logger that hands a run's curves to a `Scalars`: TensorBoard's tags at its points.

    A point is taken at the first episode end after each thousandth of the run.
    """

    def __init__(self, target: Any):
        self.target = target
        self._spacing, self.due = 1, 0
        self._last = (0, 0.0)  # env step and seconds of the last point

    def begin(self, loop: Any, steps: int) -> None:
        """Space the points over a run that ends at `steps` env steps."""
        self._spacing = max(1, -(-steps // POINTS))  # rounded up
        self.due = next_due(loop.steps, self._spacing)
        self._last = (loop.steps, loop.watch.seconds)

    def episode(self, loop: Any, episode: Episode) -> None:
        """Hand on a point where one is due."""
        if episode.step >= self.due:
            self.due = next_due(episode.step, self._spacing)
            values = point(loop, episode, self._last)
            self._last = (episode.step, loop.watch.seconds)
            for tag, value in values.items():
                self.target.scalar(tag, value, episode.step)

    def episodes(self, steps: np.ndarray, totals: np.ndarray, lengths: np.ndarray) -> None:
        """Take episodes that ended before the next point is due."""

    def flush(self) -> None:
        """Flush the target where it can be."""
        getattr(self.target, "flush", lambda: None)()


def next_due(step: int, spacing: int) -> int:
    """Return the first env step after the stretch of `spacing` env steps that `step` is in."""
    return -(-step // spacing) * spacing + 1


def driver_of(loop: Any) -> str:
    """Return whose returns training's are: "teacher", where one has a part in the actions."""
    taught = isinstance(loop.agent, Taught) and not loop.agent.plays
    return "teacher" if taught or isinstance(loop.envs, Recorded) else "rollout"


def point(loop: Any, episode: Episode, last: tuple[int, float]) -> Metrics:
    """Return a run's curves at an episode's end; `last`: env step and seconds of the last point."""
    step, seconds = last
    driver = driver_of(loop)
    return {
        f"{driver}/episode_return": episode.total,
        f"{driver}/ep_rew_mean": loop.books.ep_rew_mean,
        f"{driver}/ep_len_mean": loop.books.ep_len_mean,
        "time/fps": (episode.step - step) / max(loop.watch.seconds - seconds, 1e-9),
        **{tag: float(x() if callable(x) else x) for tag, x in loop.metrics.items()},
    }
