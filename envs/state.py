"""The state of environments as arrays and plain values, to continue a run bit for bit.

Gymnasium has no such call, so the fields are listed here for its toy text and classic control;
our own environments have `get_state`. For any other the state is None: it begins a new episode.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from seqrl.core import schema
from seqrl.core.errors import RunError
from seqrl.core.seeding import get_rng_state, set_rng_state
from seqrl.envs.adapter import Environments, Serial, Vector
from seqrl.envs.batched import BatchedEnv, SingleEnv
from seqrl.envs.workers import Workers

FIELDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["FrozenLakeEnv", "CliffWalkingEnv", "FiniteMDP"], ("s", "lastaction")),
    **dict.fromkeys(["MountainCarEnv", "Continuous_MountainCarEnv", "AcrobotEnv"], ("state",)),
    "TaxiEnv": ("s", "lastaction", "fickle_step", "taxi_orientation"),
    "BlackjackEnv": ("player", "dealer", "dealer_top_card_suit", "dealer_top_card_value_str"),
    "CartPoleEnv": ("state", "steps_beyond_terminated"),
    "CartPoleVectorEnv": ("state", "steps", "prev_done", "low", "high"),
    "PendulumEnv": ("state", "last_u"),
}
OPTIONAL = ("lastaction", "steps_beyond_terminated", "last_u")  # numbers, None after a reset
MODULES = ("gymnasium.envs.toy_text", "gymnasium.envs.classic_control", "seqrl.envs")


def get_state(envs: Environments) -> dict[str, Any] | None:
    """Return the full state of the environments, or None where it is not available."""
    states: list[dict[str, Any] | None] = [None]
    if isinstance(envs, Serial):
        states = [env_state(env) for env in envs.envs]
    elif isinstance(envs, Vector):
        states = vector_states(envs.envs)
    elif isinstance(envs, Workers):
        with suppress(RunError):  # where a process has ended
            states = envs.each(env_state)
    if any(state is None for state in states):
        return None
    return {"rows": states, "seeds": envs.seeds, "filler": getattr(envs, "_filler", None)}


def set_state(envs: Environments, state: dict[str, Any]) -> None:
    """Restore a state in environments that were made alike and reset once."""
    seed = schema.maybe(schema.whole(0, 2**64 - 1, ()))
    expected = {
        "rows": schema.anything,
        "seeds": [seed] * envs.num_envs,
        "filler": schema.maybe(np.zeros(envs.num_envs, bool)),
    }
    with schema.loading("envs"):
        schema.check("envs", state, expected)
        envs.seeds = list(state["seeds"])
        if isinstance(envs, Serial):
            for env, part in zip(envs.envs, state["rows"], strict=True):
                set_env_state(env, part)
        elif isinstance(envs, Vector):
            envs._filler = state["filler"]
            set_vector_states(envs.envs, state["rows"])
        elif isinstance(envs, Workers):
            envs.each(load_env_state, state["rows"])


def env_state(env: gym.Env) -> dict[str, Any] | None:
    """Return the state of one environment and its TimeLimits; None where it is not known."""
    limits: list[int | None] = []
    while isinstance(env, gym.Wrapper):
        if type(env) is TimeLimit:
            limits.append(env._elapsed_steps)
        elif type(env) not in (OrderEnforcing, PassiveEnvChecker):
            return None
        env = env.env
    inner = fields(env)
    return None if inner is None else {"inner": inner, "limits": limits}


def set_env_state(env: gym.Env, state: dict[str, Any]) -> None:
    """Restore `env_state` in an environment made alike and reset once."""
    schema.each(0)("envs/limits", state["limits"])
    limits = list(state["limits"])
    while isinstance(env, gym.Wrapper):
        if type(env) is TimeLimit:
            env._elapsed_steps = limits.pop(0)
        env = env.env
    set_fields(env, state["inner"])


def load_env_state(env: gym.Env, state: dict[str, Any]) -> None:
    """Call `set_env_state` in a worker process, with the errors of `set_state`."""
    with schema.loading("envs"):
        set_env_state(env, state)


def vector_states(envs: gym.vector.VectorEnv) -> list[dict[str, Any] | None]:
    """Return the states of a VectorEnv: one an environment, or one of the whole batch."""
    if isinstance(envs, gym.vector.SyncVectorEnv):
        env_states = [env_state(env) for env in envs.envs]
        vector_state = {"autoreset": envs._autoreset_envs, "obs": list(envs._env_obs)}
        return [*env_states, vector_state]
    return [fields(envs)]


def set_vector_states(envs: gym.vector.VectorEnv, states: list[dict[str, Any]]) -> None:
    """Restore `vector_states`."""
    if isinstance(envs, gym.vector.SyncVectorEnv):
        *env_states, vector_state = states
        for env, part in zip(envs.envs, env_states, strict=True):
            set_env_state(env, part)
        envs._autoreset_envs = np.array(vector_state["autoreset"])
        envs._env_obs = list(vector_state["obs"])
    else:
        set_fields(envs, states[0])


def fields(env: Any) -> dict[str, Any] | None:
    """Return the fields that change while an environment runs, and its generator's state."""
    if isinstance(env, BatchedEnv | SingleEnv):
        return env.get_state()
    kind = type(env)
    if kind.__name__ not in FIELDS or not kind.__module__.startswith(MODULES):
        return None
    values = {name: plain(getattr(env, name, None)) for name in FIELDS[kind.__name__]}
    return {**values, "np_random": get_rng_state(env.np_random)}


def set_fields(env: Any, state: dict[str, Any]) -> None:
    """Restore `fields`."""
    if isinstance(env, BatchedEnv | SingleEnv):
        env.set_state(state)
        return
    for name in FIELDS[type(env).__name__]:
        value = state[name]
        check_field(env, name, value)
        setattr(env, name, plain(value))
    set_rng_state(env.np_random, state["np_random"])


def check_field(env: Any, name: str, saved: Any) -> None:
    """Raise UsageError for a field of another type or range; compiled loops index by some."""
    current, entry = plain(getattr(env, name, None)), f"envs/{name}"
    spaces = {"s": env.observation_space, "lastaction": env.action_space}
    if name in OPTIONAL and saved is None:
        return
    if name in spaces and not spaces[name].contains(saved):
        schema.refuse(entry, saved, str(spaces[name]))
    if isinstance(current, np.ndarray):  # some reset to float32 and step to float64
        found = saved.astype(current.dtype) if saved.dtype.kind == current.dtype.kind else saved
        schema.check(entry, found, current)
    elif isinstance(saved, list) and isinstance(current, list):
        schema.each(0)(entry, saved)
    elif isinstance(saved, str) and isinstance(current, str):
        return
    else:
        number = type(saved) in (int, float) and name in OPTIONAL
        schema.check(entry, saved, type(saved)() if number else current)


def plain(value: Any) -> Any:
    """Return tuples as arrays, NumPy numbers as Python's, and copies of mutable values."""
    if isinstance(value, tuple | np.ndarray):
        return np.array(value)
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, list) else value
