"""Environments by id, ready for the loop; what cannot be made is said in one line."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium import error
from gymnasium.envs.registration import EnvSpec

from seqrl.core import UsageError, UserError, closest, explain
from seqrl.envs.adapter import Environments, Rows, Serial, Vector
from seqrl.envs.workers import TIMEOUT, Workers

ALWAYS_END = ("Blackjack-v1", "seqrl/Catch-v0", "seqrl/TMaze-v0", "seqrl/RepeatFirst-v0")
MOST = 10_000
WAYS = ("auto", "serial", "async")


def make(
    env: str,
    num_envs: int = 1,
    *,
    max_episode_steps: int | None = None,
    vectorization: str = "auto",
    worker_timeout: float = TIMEOUT,
    restart_workers: int = 0,
    **env_args: Any,
) -> Environments:
    """N environments of the Gymnasium id `env`.

    `max_episode_steps` cuts episodes (truncation) earlier, or at all where the environment has no
    limit. `vectorization`: "auto" takes the environment's own batched form where there is one and
    steps single ones in this process otherwise; "serial" always the latter; "async" gives each a
    process (see `Workers`), of which one that dies or is silent for `worker_timeout` seconds ends
    the run; up to `restart_workers` in all are replaced before. `env_args` go to the environment.
    Raises UsageError for what cannot be made.
    """
    check_options(num_envs, max_episode_steps, vectorization, restart_workers)
    if max_episode_steps is not None:
        env_args["max_episode_steps"] = max_episode_steps
    spec = find(env)
    try:
        if vectorization == "async":
            makers = [partial(gym.make, spec, **env_args)] * num_envs
            return Workers(makers, timeout=worker_timeout, restarts=restart_workers)
        several = num_envs > 1 or "device" in env_args
        if vectorization == "auto" and several and spec.vector_entry_point is not None:
            return Vector(gym.make_vec(spec, num_envs, "vector_entry_point", **env_args))
        if num_envs > MOST:
            raise UsageError(f"num_envs {num_envs:,}: at most {MOST:,} are stepped one by one")
        return Serial([gym.make(spec, **env_args) for _ in range(num_envs)])
    except UserError:
        raise
    except Exception as problem:
        raise UsageError(f"environment {env} cannot be made: {explain(problem)}") from problem


def check_options(n: int, limit: int | None, vectorization: str, restarts: int) -> None:
    """Refuse what cannot be meant."""
    if not isinstance(n, int) or n < 1:
        raise UsageError(f"num_envs {n!r}: expected a whole number of at least 1")
    if limit is not None and limit < 1:
        raise UsageError(f"max_episode_steps {limit!r}: expected at least 1")
    if vectorization not in WAYS:
        raise UsageError(f"vectorization {vectorization!r}: expected one of {', '.join(WAYS)}")
    if restarts and vectorization != "async":
        text = "there are no processes to replace; give each environment one"
        raise UsageError(f"restart_workers {restarts!r}: {text}, vectorization='async'")


def find(env: str) -> EnvSpec:
    """The registration of an id; a misspelt or outdated one is refused with the right one.

    "module:Name-v0" imports the module first, which the user has named for that.
    """
    module, _, name = env.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except Exception as problem:
        text = f"environment {env}: module {module!r} cannot be imported: {explain(problem)}"
        raise UsageError(text) from problem
    try:
        return gym.spec(name)
    except error.DeprecatedEnv as problem:
        raise UsageError(f"environment {env} is outdated: {explain(problem)}") from problem
    except error.Error as problem:
        hint = closest(name, gym.registry) or " `seqrl list` shows those there are."
        raise UsageError(f"unknown environment {env!r}.{hint}") from problem


def may_never_end(envs: Environments) -> bool:
    """Whether nothing bounds an episode: no step limit, and no rule that always ends it."""
    inner = envs.envs[0] if isinstance(envs, Rows) else getattr(envs, "envs", None)
    spec = getattr(inner, "spec", None)
    return time_limit(envs) is None and getattr(spec, "id", None) not in ALWAYS_END


def time_limit(envs: Environments) -> int | None:
    """Steps after which an episode is cut, where the environments say so."""
    inner = envs.envs[0] if isinstance(envs, Rows) else getattr(envs, "envs", None)
    spec = getattr(inner, "spec", None)
    # a batched environment knows its own, where its spec names the registered one
    limit = getattr(inner, "max_episode_steps", None) or getattr(spec, "max_episode_steps", None)
    return int(limit) if limit else None
