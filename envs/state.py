"""The state of environments as arrays and plain values, to continue a run bit for bit.

Of an environment that is not listed in `layers` it is tried first, on a copy, whether its state is
all that it depends on. Where it cannot be kept the state is None: new episodes begin.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from seqrl.core import schema, team, tree
from seqrl.core.action_mask import sample
from seqrl.core.errors import RunError, explain
from seqrl.envs.adapter import Environments, SeparateEnvs, Serial, Vector
from seqrl.envs.attributes import Unkept
from seqrl.envs.gathered import Gathered
from seqrl.envs.layers import VALUES, env_state, has_own_state, is_listed, layers, set_env_state
from seqrl.envs.recorded import Recorded
from seqrl.envs.workers import Workers

TRIAL = 20  # random steps


def get_state(envs: Environments) -> dict[str, Any] | None:
    """Return the full state of the environments, or None where it cannot be kept."""
    if isinstance(envs, Gathered):
        return side_by_side(team.all_of("a save", lambda: get_state(envs.own)))
    if why_unkept(envs):
        return None
    try:
        states = rows_of(envs)
    except (Unkept, RecursionError, RunError):  # RunError where a process has ended
        return None
    if any(state is None for state in states):
        return None
    return {"rows": states, "seeds": envs.seeds, "filler": getattr(envs, "_filler", None)}


def side_by_side(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the states of the processes' environments as that of all; None where one has none."""
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    rows, seeds = ([row for part in found for row in part[name]] for name in ("rows", "seeds"))
    return {"rows": rows, "seeds": seeds, "filler": None}


def set_state(envs: Environments, state: dict[str, Any]) -> None:
    """Restore a state in environments that were made alike and reset once.

    Raises UnknownClass, a UsageError, where it holds objects of which there are none here.
    """
    seed = schema.maybe(schema.whole(0, 2**64 - 1, ()))
    expected = {
        "rows": schema.anything,
        "seeds": [seed] * envs.num_envs,
        "filler": schema.maybe(np.zeros(envs.num_envs, bool)),
    }
    with schema.loading("envs"):
        schema.check("envs", state, expected)
        if isinstance(envs, Gathered):
            mine = {name: state[name][envs.rows] for name in ("rows", "seeds")}
            return set_state(envs.own, {**state, **mine})
        envs.seeds = list(state["seeds"])
        if isinstance(envs, Vector):
            envs._filler = state["filler"]
        set_rows(envs, state["rows"])


def rows_of(envs: Environments) -> list[dict[str, Any] | None]:
    """Return the states of the environments, or of a VectorEnv as a whole; Unkept, RunError."""
    if isinstance(envs, Workers):
        return envs.each(state_or_none, [VALUES // envs.of] * envs.num_envs)
    if isinstance(envs, Recorded):
        return [envs.state_dict()]
    if isinstance(envs, Serial):
        return [env_state(env, VALUES // envs.of) for env in envs.envs]
    assert isinstance(envs, Vector)
    state = env_state(envs.envs)
    return [state if "wrappers" in state else state["inner"]]


def set_rows(envs: Environments, rows: Sequence[Any]) -> None:
    """Restore `rows_of`."""
    if isinstance(envs, Workers):
        envs.each(load_env_state, rows)
    elif isinstance(envs, Serial):
        for env, row in zip(envs.envs, rows, strict=True):
            set_env_state(env, row)
    elif isinstance(envs, Recorded):
        envs.load_state_dict(*rows)
    elif isinstance(envs, Vector):
        (row,) = rows
        set_env_state(envs.envs, row if "wrappers" in row else {"inner": row, "limits": []})


def state_or_none(env: gym.Env, most: int) -> dict[str, Any] | None:
    """Return `env_state` in a worker process, None where it cannot be kept."""
    try:
        return env_state(env, most)
    except (Unkept, RecursionError):
        return None


def load_env_state(env: gym.Env, state: dict[str, Any]) -> None:
    """Call `set_env_state` in a worker process, with the errors of `set_state`."""
    with schema.loading("envs"):
        set_env_state(env, state)


# ---- whether it can be kept


def why_unkept(envs: Environments) -> str:
    """Return why the state of environments cannot be kept, "" where it can; tried out once."""
    assert isinstance(envs, SeparateEnvs | Vector | Recorded | Gathered)
    if envs.unkept is None:
        assert not isinstance(envs, Recorded)
        try:
            if isinstance(envs, Gathered):
                reasons = team.all_of("a look at the state", lambda: why_unkept(envs.own))
            elif isinstance(envs, Workers):
                reasons = envs.each(why, [VALUES // envs.of] * envs.num_envs)
            elif isinstance(envs, Vector):
                reasons = [why(envs.envs, VALUES)]
            else:  # one of each kind
                most = VALUES // envs.of
                kinds = {tuple(map(type, layers(env))): env for env in envs.envs}
                reasons = [why(env, most) for env in kinds.values()]
        except RunError as error:  # a worker has ended
            return str(error)
        envs.unkept = next(filter(None, reasons), "")
    return envs.unkept


def why(env: Any, most: int) -> str:
    """Return why the state of one environment, or VectorEnv, cannot be kept, or ""."""
    try:
        env_state(env, most)
    except Unkept as error:
        return str(error)
    except RecursionError:
        return f"{type(env.unwrapped).__name__} holds objects within objects without end"
    unlisted = [layer for layer in all_layers(env) if not is_listed(layer)]
    if not unlisted:
        return ""
    try:
        made = copy.deepcopy(env)
    except Exception as error:  # then methods are taken at their word
        told = all(map(has_own_state, unlisted))
        return "" if told else f"{type(env.unwrapped).__name__} cannot be copied: {explain(error)}"
    return tried(made)


def all_layers(env: Any) -> list[Any]:
    """Return the layers of an environment, and of those inside a SyncVectorEnv instead of it."""
    found = layers(env)
    if isinstance(found[-1], gym.vector.SyncVectorEnv):
        return [*found[:-1], *(layer for one in found[-1].envs for layer in layers(one))]
    return found


def tried(made: Any) -> str:
    """Return how two plays of an environment from the same state differ, or ""."""
    with undisturbed():
        try:
            envs: Any = Vector(made) if isinstance(made, gym.vector.VectorEnv) else Serial([made])
            _, obs = play(envs, envs.reset(np.random.SeedSequence(0)), TRIAL // 4)
            state = copy.deepcopy({"rows": rows_of(envs), "filler": getattr(envs, "_filler", None)})
            first, _ = play(envs, obs, TRIAL)
            envs.reset()
            set_state(envs, {**state, "seeds": envs.seeds})
            again, _ = play(envs, obs, TRIAL)
        except Exception as error:  # of the user's environment
            return f"{TRIAL} random steps fail: {explain(error)}"
    name = type(made.unwrapped).__name__
    what = f"{TRIAL} random steps of {name}, played twice from one state, differ"
    return "" if first == again else f"{what}: it depends on more than what is kept"


def play(envs: Any, obs: Any, steps: int) -> tuple[list[bytes], Any]:
    """Take random steps, always the same ones, with a reset half-way; return what they lead to.

    The newest observations [N, ...] come behind it.
    """
    space, n = copy.deepcopy(envs.single_action_space), envs.num_envs  # they may draw from theirs
    space.seed(0)
    seen: list[Any] = []
    for i in range(steps):
        if i == steps // 2:
            obs = envs.reset()
            seen += tree.leaves(obs)
        actions = [sample(space, tree.take(obs, k)) for k in range(n)]
        batch: Any = create_empty_array(space, n)
        outcome = envs.step(concatenate(space, actions, batch))
        obs = outcome.obs
        seen += [outcome.reward, outcome.terminated, outcome.truncated]
        seen += [*tree.leaves(outcome.next_obs), *tree.leaves(obs)]
    return [np.asarray(leaf).tobytes() for leaf in seen], obs


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the global generators back at the end, and warn of nothing."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
