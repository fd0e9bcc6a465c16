"""Reference scores: mean returns of the optimal, best memoryless and random policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from seqrl.envs.registry import NOT_RULES, TASKS, task

# Gymnasium's own, as registered. Fully observed tasks need no memory. Random: means over
# 100,000 (CartPole), 500, 400 and 1,500 episodes, standard errors 0.04, 0, 0.6 and 7.
GYMNASIUM: dict[str, dict[str, float]] = {
    "CartPole-v1": {"optimum": 500.0, "memoryless": 500.0, "random": 22.2},
    "MountainCar-v0": {"random": -200.0},
    "Acrobot-v1": {"random": -499.0},
    "Pendulum-v1": {"random": -1226.0},
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
        return rules.scores() if limit is None or limit >= rules.horizon else None
    if options or spec.id not in GYMNASIUM or limit != gym.spec(spec.id).max_episode_steps:
        return None
    return dict(GYMNASIUM[spec.id])
