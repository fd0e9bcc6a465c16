"""The scale of an environment's normalised scores: 0 is the random policy, 1 the optimal one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.envs.adapter import Serial
from seqrl.envs.finite import finite_model, time_limit
from seqrl.envs.making import make
from seqrl.envs.optimum import optimum, policy_value, start_value
from seqrl.envs.reference import reference_scores


def score_scales(
    configs: Iterable[Mapping[str, Any]], *, trusted: bool
) -> dict[str, tuple[float, float] | None]:
    """Return the scale of each environment among configs; not `trusted` ones import no code."""
    by_env = {config["env"]: config for config in configs}
    return {e: score_scale(x) if trusted or ":" not in e else None for e, x in by_env.items()}


def score_scale(config: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the expected undiscounted returns of the random and the optimal policy of a task.

    From `reference_scores`, or solved exactly where the model is known and there is a time limit.
    None where they are not known, as with wrappers, or where the environment cannot be made any
    more.
    """
    if config.get("wrappers"):
        return None
    try:
        limit = config.get("max_episode_steps")
        envs = make(config["env"], max_episode_steps=limit, **config.get("env_args", {}))
    except UsageError:
        return None
    try:
        return _scale_of(envs.envs[0]) if isinstance(envs, Serial) else None
    finally:
        envs.close()


def _scale_of(env: Any) -> tuple[float, float] | None:
    scores = reference_scores(env.spec) or {}
    if {"random", "optimum"} <= scores.keys():
        return scores["random"], scores["optimum"]
    model = finite_model(env)
    if model is None or time_limit(env) is None:
        return None
    uniform = np.full(model.outcomes.shape, 1 / model.outcomes.shape[1])
    random = start_value(model, policy_value(env, uniform, gamma=1.0))
    return random, optimum(env, gamma=1.0).start_value
