"""One call that trains any agent in any environments."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Streams
from seqrl.core.types import Metrics
from seqrl.training.loop.callbacks import Callbacks
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Recorder
from seqrl.training.loop.scalars import ScalarRecorder, Scalars


class Logger(Recorder, Protocol):
    """A recorder that is told how long the run will be."""

    def begin(self, loop: Interaction, steps: int) -> None:
        """The run ends at `steps` env steps."""

    def flush(self) -> None:
        """Make what was written visible."""


def train(
    agent: Agent,
    envs: Any,
    steps: int,
    *,
    seed: int | np.random.SeedSequence | None = None,
    logger: Logger | Scalars | None = None,
    callbacks: Callbacks = (),
    episodes: int | None = None,
    compile: bool = True,
) -> Metrics:
    """Train for exactly `steps` env steps, or until `episodes` have ended, and say how it went.

    `envs` is a Gymnasium Env or VectorEnv in any autoreset mode, or what `make` returns. `seed`
    seeds the environments and the agent's own draws; a network's weights were drawn when it was
    built. Schedules run over these `steps`, whatever was trained before. `compile=False` steps
    where a compiled path would give the same bits. `callbacks` are called with the loop, a plain
    function every 1,000 env steps or as often as its attribute `every` says. Answers steps,
    episodes, seconds, steps_per_second and ep_rew_mean (last 100 episodes).
    """
    steps = check_whole("steps", steps)
    recorder = logger_of(logger)
    loop = Interaction(agent, envs, callbacks=callbacks, recorder=recorder, compile=compile)
    if seed is not None:
        streams = Streams.of(seed)
        loop.reset(streams.envs)
        agent.reseed(streams.agent)
    agent.horizon = steps
    return run_to(loop, steps, recorder, episodes=episodes)


def logger_of(given: Any) -> Logger | None:
    """Return what was given as a logger; refuse what is none before anything is played."""
    lacking = [name for name in ("begin", "episode", "flush") if not hasattr(given, name)]
    if given is None or not lacking:
        return given
    if callable(getattr(given, "scalar", None)) and not isinstance(given, type):
        return ScalarRecorder(given)
    found = f"logger {type(given).__name__} has no {', '.join(lacking)}"
    expected = "a TensorBoard, or anything with scalar(tag, value, step)"
    raise UsageError(f"{found}: expected {expected}")


def run_to(
    loop: Interaction, steps: int, logger: Logger | None = None, *, episodes: int | None = None
) -> Metrics:
    """Run a loop until it has done `steps` env steps in all; it may have done some before.

    With `episodes` it ends after the turn in which as many episodes are over.
    """
    if logger is not None:
        logger.begin(loop, steps)
    loop.books.wanted = episodes
    loop.run(steps - loop.steps)
    if logger is not None:
        logger.flush()
    return results(loop)


def results(loop: Interaction) -> dict[str, float]:
    """Where a run stands."""
    seconds = loop.watch.seconds
    return {
        "steps": loop.steps,
        "episodes": loop.books.episodes,
        "seconds": seconds,
        "steps_per_second": loop.steps / seconds if seconds else float("nan"),
        "ep_rew_mean": loop.books.ep_rew_mean,
    }
