"""What is to be said of a run that has ended, a line each: where other settings would do better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from seqrl.agents.factory import Config
from seqrl.core.errors import counted
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs.defaults import flag_of

LEARNED, FEW = 10_000, 50  # env steps after which so few updates from whole episodes are told


def remarks(config: Config, loop: Interaction, *, interrupted: bool = False) -> Iterator[str]:
    """Yield what is to be said of schedules, updates and the device of a run."""
    agent: Any = loop.agent
    idle = getattr(agent, "updates", None) == 0
    early = config.get("episodes") and loop.steps < config["steps"] // 2
    if early and not idle and not interrupted:
        done = f"schedules run over --steps {config['steps']:,}, of which {loop.steps:,} were done"
        yield f"{done}: a smaller --steps would suit these episodes"
    if config["agent"] == "reinforce" and loop.steps >= LEARNED and agent.updates < FEW:
        yield few_updates(loop.books.ep_len_mean, loop.steps, agent.updates)
    elif idle and not interrupted:
        more = "more --episodes" if config.get("episodes") else "more --steps"
        yield no_update(loop.steps, config["agent_args"], more)
    if hasattr(agent, "device_reason"):
        yield f"device {agent.device}: {agent.device_reason}"


def no_update(steps: int, numbers: Mapping[str, Any], more: str) -> str:
    """Return what helps where nothing was learned at all; `numbers` are the agent's."""
    awaited = "rollout"
    if (starts := numbers.get("learning_starts")) is not None:
        awaited = "learning_starts" if steps <= starts else "train_every"
    smaller = ""
    if numbers.get(awaited, 0) > 1:
        smaller = f", or a smaller {flag_of(awaited)} ({numbers[awaited]:,})"
    return f"no update in {counted(steps, 'env step')}, nothing was learned: {more}{smaller}"


def few_updates(length: float, steps: int, updates: int) -> str:
    """Return what helps where hardly an episode has ended; `length` is their mean, or NaN."""
    long = "none has ended" if math.isnan(length) else f"episodes are {length:,.0f} long"
    done = f"{counted(updates, 'update')} in {steps:,} steps; {long}"
    return f"{done}: more environments (--num-envs) or --agent ppo"
