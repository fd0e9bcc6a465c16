"""Learning from recorded episodes, without environments."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.experience.dataset import Dataset
from seqrl.agents.experience.recording import Recording
from seqrl.agents.protocol import Agent, Taught
from seqrl.agents.teachers import OBSERVATION, TASK
from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.types import Metrics
from seqrl.envs.recorded import Recorded, fitted
from seqrl.training.loop.callbacks import Callbacks
from seqrl.training.loop.scalars import Scalars
from seqrl.training.loop.train import Logger, train


def fit(
    agent: Agent,
    data: Dataset | Recording,
    steps: int,
    *,
    seed: int | np.random.SeedSequence | None = None,
    logger: Logger | Scalars | None = None,
    callbacks: Callbacks = (),
) -> Metrics:
    """Learn from exactly `steps` recorded steps, in passes of random order, and say how it went.

    `train` with what was recorded in the place of environments: schedules, logger and callbacks
    count the valid steps learned from. A taught agent gets what was done as the right answers, a
    batch at a time; any other that learns from what others did gets whole episodes, one after the
    other, and learns as it would where it plays. Raises UsageError for an agent that cannot.
    """
    envs = recorded_for(agent, data)
    return train(agent, envs, steps, seed=seed, logger=logger, callbacks=callbacks, compile=False)


def recorded_for(agent: Agent, data: Dataset | Recording) -> Recorded:
    """Return recorded episodes as the agent learns from them; UsageError where it cannot."""
    check_learner(agent)
    if isinstance(data, Recording):
        data = Dataset(fitted(data, "recording"))
    elif not isinstance(data, Dataset):
        expected = "expected what seqrl.training.load_recordings returns"
        raise UsageError(f"data {type(data).__name__}: {expected}")
    own, done = getattr(agent, "action_space", None), data.recording.action_space
    if own is not None and own != done:
        raise UsageError(f"recording: its action_space is {done}, the agent's {own}")
    if not isinstance(agent, Taught):
        return Recorded(data, 1, whole=True)
    taught: Any = agent
    obs = tree.map(lambda leaf: leaf[:1], data.recording.obs)
    agent.act(obs, np.ones(1, bool), explore=False)  # where layers are not built yet
    return Recorded(data, taught.batch_size, whole=taught.memory)


def check_learner(agent: Any) -> None:
    """Refuse an agent that learns from its own actions, or would ask somebody else."""
    if not getattr(agent, "learns_from_others", False):
        reason = "it learns from its own actions alone (on policy)"
        remedy = (
            "take imitate, q-learning or sac; a class of yours that may sets learns_from_others"
        )
        raise UsageError(f"{type(agent).__name__} with recorded episodes: {reason}; {remedy}")
    if not isinstance(agent, Taught):
        return
    if agent.teacher not in (TASK, OBSERVATION):
        raise UsageError("teacher: what was recorded is the answer; leave it out, or the dataset")
    if getattr(agent, "mixes", False):
        reason = "what was recorded goes on whatever it does"
        raise UsageError(f"own_share: {reason}; leave it at 0, or ask a teacher in environments")
