"""The state of environments as arrays and plain values, so that a run can go on bit for bit.

Gymnasium has no such call, so the fields are named here for its toy text and classic control;
our own environments answer `get_state`. For any other the answer is None: it begins a new episode.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from seqrl.core import get_rng_state, set_rng_state
from seqrl.envs.adapter import Environments, Serial, Vector
from seqrl.envs.batched import BatchedEnv, SingleEnv

FIELDS: dict[str, tuple[str, ...]] = {
    "FrozenLakeEnv": ("s", "lastaction"),
    "CliffWalkingEnv": ("s", "lastaction"),
    "TaxiEnv": ("s", "lastaction", "fickle_step", "taxi_orientation"),
    "BlackjackEnv": ("player", "dealer", "dealer_top_card_suit", "dealer_top_card_value_str"),
    "CartPoleEnv": ("state", "steps_beyond_terminated"),
    "CartPoleVectorEnv": ("state", "steps", "prev_done", "low", "high"),
    "MountainCarEnv": ("state",),
    "Continuous_MountainCarEnv": ("state",),
    "AcrobotEnv": ("state",),
    "PendulumEnv": ("state", "last_u"),
    "FiniteMDP": ("s", "lastaction"),
}
HOMES = ("gymnasium.envs.toy_text", "gymnasium.envs.classic_control", "seqrl.envs")


def get_state(envs: Environments) -> dict[str, Any] | None:
    """All that the environments' future depends on, or None where it cannot be had."""
    if isinstance(envs, Serial):
        states = [env_state(env) for env in envs.envs]
    elif isinstance(envs, Vector):
        states = vector_states(envs.envs)
    else:
        return None
    if any(state is None for state in states):
        return None
    return {"rows": states, "seeds": envs.seeds, "filler": getattr(envs, "_filler", None)}


def set_state(envs: Environments, state: dict[str, Any]) -> None:
    """Put environments made alike, and reset once, where `state` was taken."""
    envs.seeds = list(state["seeds"])
    if isinstance(envs, Serial):
        for env, part in zip(envs.envs, state["rows"], strict=True):
            set_env_state(env, part)
    elif isinstance(envs, Vector):
        envs._filler = state["filler"]
        set_vector_states(envs.envs, state["rows"])


def env_state(env: gym.Env) -> dict[str, Any] | None:
    """One environment's state under Gymnasium's own wrappers; None for what is not known."""
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
    """The inverse of `env_state` on an environment made alike and reset once."""
    limits = list(state["limits"])
    while isinstance(env, gym.Wrapper):
        if type(env) is TimeLimit:
            env._elapsed_steps = limits.pop(0)
        env = env.env
    set_fields(env, state["inner"])


def vector_states(envs: gym.vector.VectorEnv) -> list[dict[str, Any] | None]:
    """The states of a VectorEnv: one a row, or a single one where it is one piece."""
    if isinstance(envs, gym.vector.SyncVectorEnv):
        rows = [env_state(env) for env in envs.envs]
        last = {"autoreset": envs._autoreset_envs, "obs": list(envs._env_obs)}
        return [*rows, last]
    return [fields(envs)]


def set_vector_states(envs: gym.vector.VectorEnv, states: list[dict[str, Any]]) -> None:
    """The inverse of `vector_states`."""
    if isinstance(envs, gym.vector.SyncVectorEnv):
        *rows, last = states
        for env, part in zip(envs.envs, rows, strict=True):
            set_env_state(env, part)
        envs._autoreset_envs = np.array(last["autoreset"])
        envs._env_obs = list(last["obs"])
    else:
        set_fields(envs, states[0])


def fields(env: Any) -> dict[str, Any] | None:
    """The fields that change while an environment is played, and its random numbers."""
    if isinstance(env, BatchedEnv | SingleEnv):
        return env.get_state()
    kind = type(env)
    if kind.__name__ not in FIELDS or not kind.__module__.startswith(HOMES):
        return None
    values = {name: plain(getattr(env, name, None)) for name in FIELDS[kind.__name__]}
    return {**values, "np_random": get_rng_state(env.np_random)}


def set_fields(env: Any, state: dict[str, Any]) -> None:
    """The inverse of `fields`."""
    if isinstance(env, BatchedEnv | SingleEnv):
        env.set_state(state)
        return
    for name in FIELDS[type(env).__name__]:
        value = state[name]
        setattr(env, name, np.copy(value) if isinstance(value, np.ndarray) else value)
    set_rng_state(env.np_random, state["np_random"])


def plain(value: Any) -> Any:
    """Arrays for tuples of numbers, Python numbers for NumPy's, a copy of what may change."""
    if isinstance(value, tuple | np.ndarray):
        return np.array(value)
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, list) else value
