"""One call that trains any agent in any environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Streams
from seqrl.core.types import Metrics
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback, Recorder


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
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
    episodes: int | None = None,
    compile: bool = True,
) -> Metrics:
    """Train for exactly `steps` env steps, or until `episodes` have ended, and say how it went.

    `envs` is a Gymnasium Env or VectorEnv in any autoreset mode, or what `make` returns. `seed`
    seeds the environments and the agent's own draws; a network's weights were drawn when it was
    built. Schedules run over these `steps`, whatever was trained before. `compile=False` steps
    where a compiled path would give the same bits. Answers steps, episodes, seconds,
    steps_per_second and ep_rew_mean (last 100 episodes).
    """
    steps = check_whole("steps", steps)
    check_logger(logger)
    loop = Interaction(agent, envs, callbacks=callbacks, recorder=logger, compile=compile)
    if seed is not None:
        streams = Streams.of(seed)
        loop.reset(streams.envs)
        agent.reseed(streams.agent)
    agent.horizon = steps
    return run(loop, steps, logger, episodes=episodes)


def check_logger(logger: Any) -> None:
    """Refuse what is no logger before anything is played."""
    lacking = [name for name in ("begin", "episode", "flush") if not hasattr(logger, name)]
    if logger is not None and lacking:
        found = f"logger {type(logger).__name__} has no {', '.join(lacking)}"
        raise UsageError(
            f"{found}: expected a TensorBoard or what is like one, see training.Logger"
        )


def run(
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
