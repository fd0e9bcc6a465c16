"""Reference scores: mean returns of the optimal, best memoryless and random policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from seqrl.envs.registry import NOT_RULES, TASKS, task
from seqrl.envs.tasks.acrobot import Acrobot
from seqrl.envs.tasks.cart_pole import CartPole
from seqrl.envs.tasks.mountain_car import MountainCar
from seqrl.envs.tasks.pendulum import Pendulum

# Gymnasium's own, as registered, and our tasks of the same rules
GYMNASIUM: dict[str, type[Any]] = {
    "CartPole-v1": CartPole,
    "MountainCar-v0": MountainCar,
    "Acrobot-v1": Acrobot,
    "Pendulum-v1": Pendulum,
}


def reference_scores(env: str | EnvSpec, **env_args: Any) -> dict[str, float] | None:
    """Return expected undiscounted returns of an id or spec: `optimum`, `memoryless`, `random`.

    Exact for our own tasks and their options; known or measured for a few of Gymnasium's, with
    some entries missing. None where nothing is known, as with options that change the task or
    a `max_episode_steps` that truncates it. Raises UsageError for invalid options of our tasks.
    """
    spec = gym.spec(env) if isinstance(env, str) else env
    options = {**spec.kwargs, **env_args}
    limit = options.get("max_episode_steps", spec.max_episode_steps)
    for name in NOT_RULES:
        options.pop(name, None)
    if spec.id in TASKS:
        rules = task(spec.id, **options)
        if rules.horizon is None:
            return rules.scores() if limit == TASKS[spec.id].time_limit else None
        return rules.scores() if limit is None or limit >= rules.horizon else None
    if options or spec.id not in GYMNASIUM or limit != gym.spec(spec.id).max_episode_steps:
        return None
    scores: dict[str, float] = GYMNASIUM[spec.id]().scores()
    return scores
