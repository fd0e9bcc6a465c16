"""The state of one environment, of its wrappers and of a VectorEnv, as arrays and plain values.

Gymnasium has no such call. The fields of its toy text and classic control are listed here; what has
`get_state()` and `set_state(state)` is asked; all else is kept by its attributes.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers

from seqrl.core import schema
from seqrl.core.errors import explain
from seqrl.core.seeding import get_rng_state, set_rng_state
from seqrl.envs.attributes import Packer, Unkept, Unpacker
from seqrl.envs.batched import BatchedEnv, SingleEnv

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
LIMIT = wrappers.TimeLimit
# checks and pictures, on which no step depends
LOOKED_THROUGH: tuple[type, ...] = (wrappers.OrderEnforcing, wrappers.PassiveEnvChecker)
LOOKED_THROUGH += (wrappers.RecordVideo, wrappers.HumanRendering, wrappers.RenderCollection)
VALUES = 100_000  # plain values of all environments together, which JSON holds


def layers(env: Any) -> list[Any]:
    """Return the wrappers of an environment or VectorEnv, outermost first, and what they wrap."""
    found = [env]
    while isinstance(found[-1], gym.Wrapper | gym.vector.VectorWrapper):
        found.append(found[-1].env)
    return found


def is_listed(layer: Any) -> bool:
    """Return whether it is known which fields of a layer change."""
    if isinstance(layer, BatchedEnv | SingleEnv) or type(layer) in (LIMIT, *LOOKED_THROUGH):
        return True
    if is_atari(layer):
        return True
    kind = type(layer)
    return kind.__name__ in FIELDS and kind.__module__.startswith(MODULES)


def env_state(env: Any, most: int = VALUES) -> dict[str, Any]:
    """Return the state of one environment, or VectorEnv, and of its wrappers.

    Raises Unkept for what cannot be kept, or has more than `most` plain values.
    """
    found = layers(env)
    packer = Packer(found, most)
    parts = [layer_state(layer, packer) for layer in kept_layers(found)]
    limits = [layer._elapsed_steps for layer in found if type(layer) is LIMIT]
    state = {"inner": parts.pop(), "limits": limits}
    return {**state, "wrappers": parts} if parts else state


def set_env_state(env: Any, state: dict[str, Any]) -> None:
    """Restore `env_state` in an environment made alike and reset once."""
    found = layers(env)
    limited = [layer for layer in found if type(layer) is LIMIT]
    schema.check("envs/limits", state["limits"], [0] * len(limited))
    for layer, elapsed in zip(limited, state["limits"], strict=True):
        layer._elapsed_steps = elapsed
    packer = Packer(found, VALUES)
    kept = kept_layers(found)
    with suppress(Unkept):
        for layer in kept:
            layer_state(layer, packer)  # for the classes of the objects that there are
    unpacker = Unpacker(found, packer.examples)
    saved = [*state.get("wrappers", []), state["inner"]]
    for layer, part in zip(kept, saved, strict=True):
        set_layer_state(layer, part, unpacker)


def kept_layers(found: list[Any]) -> list[Any]:
    """Return the layers with a state of their own, but for time limits."""
    return [layer for layer in found if type(layer) not in (LIMIT, *LOOKED_THROUGH)]


def layer_state(layer: Any, packer: Packer) -> Any:
    """Return the state of a wrapper, or of an environment without its wrappers."""
    name = type(layer).__name__
    if type(layer).__name__ in FIELDS and is_listed(layer):
        return fields(layer)
    if is_atari(layer):
        return {"emulator": emulator_state(layer), "np_random": get_rng_state(layer.np_random)}
    if isinstance(layer, gym.vector.AsyncVectorEnv):
        raise Unkept(f"an {name} does not show its environments; make(..., vectorization='async')")
    if isinstance(layer, gym.vector.SyncVectorEnv):
        rows = [env_state(env, packer.left // len(layer.envs)) for env in layer.envs]
        return {"rows": rows, "autoreset": layer._autoreset_envs, "obs": list(layer._env_obs)}
    if has_own_state(layer):
        return packer.pack(own_state(layer), f"{name}.get_state()")
    return packer.attributes(layer, name)


def set_layer_state(layer: Any, state: Any, unpacker: Unpacker) -> None:
    """Restore `layer_state`."""
    if type(layer).__name__ in FIELDS and is_listed(layer):
        set_fields(layer, state)
    elif isinstance(layer, gym.vector.SyncVectorEnv):
        for env, part in zip(layer.envs, state["rows"], strict=True):
            set_env_state(env, part)
        layer._autoreset_envs = np.array(state["autoreset"])
        layer._env_obs = list(state["obs"])
    elif is_atari(layer):
        set_emulator_state(layer, state["emulator"])
        set_rng_state(layer.np_random, state["np_random"])
    elif has_own_state(layer):
        layer.set_state(unpacker.unpack(state, "envs"))
    else:
        unpacker.attributes(layer, state, "envs")


def own_state(layer: Any) -> Any:
    """Return what get_state() of a layer returns; Unkept where it fails."""
    try:
        return layer.get_state()
    except Exception as error:
        raise Unkept(f"{type(layer).__name__}.get_state() fails: {explain(error)}") from error


def has_own_state(layer: Any) -> bool:
    """Return whether a layer has methods get_state() and set_state(state)."""
    try:
        inspect.signature(layer.get_state).bind()
        inspect.signature(layer.set_state).bind(None)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def is_atari(layer: Any) -> bool:
    """Return whether a layer is a game of the Arcade Learning Environment."""
    return type(layer).__name__ == "AtariEnv" and type(layer).__module__.startswith("ale_py")


def emulator_state(env: Any) -> np.ndarray:
    """Return the state of the emulator of an Atari game, its random numbers included."""
    return np.frombuffer(env.ale.cloneState(include_rng=True).__getstate__(), np.uint8)


def set_emulator_state(env: Any, saved: np.ndarray) -> None:
    """Restore `emulator_state`."""
    schema.check("envs/emulator", saved[:0], np.zeros(0, np.uint8))
    kind: Any = type(env.ale.cloneState(include_rng=True))
    state = kind.__new__(kind)
    try:
        state.__setstate__(saved.tobytes())
    except SystemError as error:  # so it says that the bytes are none of its own
        raise ValueError("no state of this emulator") from error
    env.ale.restoreState(state)


def fields(env: Any) -> dict[str, Any]:
    """Return the listed fields of an environment, and its generator's state."""
    values = {name: plain(getattr(env, name, None)) for name in FIELDS[type(env).__name__]}
    return {**values, "np_random": get_rng_state(env.np_random)}


def set_fields(env: Any, state: dict[str, Any]) -> None:
    """Restore `fields`."""
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
