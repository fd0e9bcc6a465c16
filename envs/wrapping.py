"""Wrappers of single environments by name, as flags and config files have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym

from seqrl.core.errors import UsageError, UserError, explain
from seqrl.core.named_code import named_object

OURS = "seqrl.envs"
RECONSTRUCTION: dict[str, Any] = {"name": f"{OURS}:Reconstruction", "args": {}}
Wrap = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]


def wrappers(entries: Any) -> list[Wrap]:
    """Return wrappers from the entries of a config (see `named`); UsageError for what is none."""
    return [partial(wrapped, cls=load(name), name=name, args=args) for name, args in named(entries)]


def named(entries: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return names and arguments from a config's list of {name = "module:Class", args = {...}}."""
    if not isinstance(entries, list | None):
        raise UsageError(f"wrappers {entries!r}: expected a list of a name and args each")
    found = []
    for entry in entries or []:
        name, args = (entry.get(x) for x in ("name", "args")) if isinstance(entry, dict) else (0, 0)
        if not (isinstance(name, str) and isinstance(args, dict)):
            raise UsageError(f"wrappers: {entry!r}, expected a name and args, both")
        found.append((name, args))
    return found


def with_action_mask(entries: list[Any], source: str | None) -> list[Any]:
    """Return a config's wrappers with the one that shows an action mask (see `ActionMask`).

    It takes the place of one that is there already; with no source they stay as they are.
    """
    if source is None:
        return entries
    own = {"name": f"{OURS}:ActionMask", "args": {"source": source}}
    return [*(entry for entry in entries if entry.get("name") != own["name"]), own]


def with_reconstruction(entries: list[Any] | None) -> list[Any]:
    """Return a config's wrappers with the one that asks for the observation outermost."""
    return [*without_reconstruction(entries), RECONSTRUCTION]


def without_reconstruction(entries: list[Any] | None) -> list[Any]:
    """Return a config's wrappers without the one that asks for the observation."""
    return [entry for entry in entries or [] if entry != RECONSTRUCTION]


def is_trusted(name: str) -> bool:
    """Return whether a run's folder, which may be anybody's, may use a wrapper unasked."""
    module, _, attribute = name.partition(":")
    ours = module == OURS and attribute in ("Mask", "ActionMask", "ReturnWanted", "Reconstruction")
    return ours or (module == "gymnasium.wrappers" and attribute != "RecordVideo")  # writes files


def load(name: str) -> Any:
    """Return the class of a name; UsageError where it is no wrapper."""
    cls = named_object(name, f"--wrapper {name}")
    if not (isinstance(cls, type) and issubclass(cls, gym.Wrapper)):
        raise UsageError(f"--wrapper {name}: expected a class of gymnasium.Wrapper")
    return cls


def wrapped(env: gym.Env[Any, Any], cls: Any, name: str, args: dict[str, Any]) -> Any:
    """Return an environment inside a wrapper; UsageError where the two do not fit."""
    try:
        return cls(env, **args)
    except UserError:
        raise
    except Exception as error:
        remedy = "its arguments are --wrapper-arg name=value, behind it"
        raise UsageError(f"--wrapper {name}: {explain(error)}; {remedy}") from error
