"""Reading a run's checkpoints: the newest undamaged one, migrated to today's schema."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqrl.core import UsageError, schema
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs
from seqrl.training.runs.tensorboard import flatten

LOG = logging.getLogger("seqrl")
SCHEMA_VERSION = 3


def newest(folder: Path) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint of a run; None if nothing was saved.

    Damaged ones are logged as warnings; if all are damaged, the newest raises its UsageError.
    """
    problems: list[UsageError] = []
    for path in runs.checkpoints(folder):
        try:
            saved = read(path)
        except UsageError as error:
            problems.append(error)
            continue
        for problem in problems:
            LOG.warning("seqrl: %s: %s is taken", problem, path.name)
        return saved
    if problems:
        raise problems[0]
    return None


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint in today's schema."""
    return migrate(checkpoint.load(path), path)


def migrate(saved: Any, path: Path) -> dict[str, Any]:
    """Return what was read from `path`, migrated from the schema it was written in."""
    if not isinstance(saved, dict):
        raise UsageError(f"checkpoint {path}: it holds no run")
    number = saved.get("schema", 1)
    if not isinstance(number, int) or number > SCHEMA_VERSION:
        raise UsageError(
            f"checkpoint {path}: its schema is {number}, "
            f"this version reads up to {SCHEMA_VERSION}; install a newer seqrl"
        )
    for step in range(number, SCHEMA_VERSION):
        saved = MIGRATIONS[step](saved)
    if not isinstance(saved.get("loop"), dict):
        raise UsageError(f"checkpoint {path}: it holds no run")
    return saved


def from_1(saved: dict[str, Any]) -> dict[str, Any]:
    """Migrate schema 1, which was the state of the loop alone."""
    return {
        "schema": 2,
        "config": None,
        "versions": runs.versions(),
        "seconds": 0.0,
        "log": None,
        "random": {},
        "loop": {**saved, "owed": [], "metrics": {}, "callbacks": None},
    }


def from_2(saved: dict[str, Any]) -> dict[str, Any]:
    """Migrate schema 2, which named a table's arrays "memory" and its active rows "rows"."""
    loop = saved.get("loop")
    agent = loop.get("agent") if isinstance(loop, dict) else None
    if isinstance(agent, dict):
        agent = rename_keys(agent, {"memory": "arrays", "told": "last_numbers"})
        if isinstance(agent.get("arrays"), dict):
            agent["arrays"] = rename_keys(agent["arrays"], {"rows": "active"})
        saved = {**saved, "loop": {**saved["loop"], "agent": agent}}
    return {**saved, "schema": 3}


def rename_keys(entries: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return the entries in their order, those in `names` under their new name."""
    return {names.get(name, name): entry for name, entry in entries.items()}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: from_1, 2: from_2}


def check_named(name: str, saved: Any) -> None:
    """Check that `saved` is a dict with strings for keys."""
    if not (isinstance(saved, dict) and all(isinstance(key, str) for key in saved)):
        schema.refuse(name, saved, "named entries")


CHECKPOINT_SCHEMA = {
    "schema": 0,
    "seconds": 0.0,
    **dict.fromkeys(("config", "log"), schema.maybe(check_named)),
    **dict.fromkeys(("versions", "random", "loop"), check_named),
}


def check_same_config(now: dict[str, Any], saved: dict[str, Any] | None) -> None:
    """Raise UsageError if the config is not the one that the checkpoint was made with."""
    if saved is not None and saved != now:
        raise UsageError(
            f"config.toml is not what the checkpoint was made with: {differences(now, saved)}; "
            "put it back, or begin a new run"
        )


def differences(now: dict[str, Any], then: dict[str, Any]) -> str:
    """Return the settings that differ, as text."""
    now, then = dict(flatten(now)), dict(flatten(then))
    names = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    return ", ".join(f"{name} {now.get(name)} (then {then.get(name)})" for name in names)
