"""Reading a run's checkpoints: the newest undamaged one, migrated to today's schema."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from seqrl.core import schema
from seqrl.core.errors import UsageError, explain
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs
from seqrl.training.runs.hparams import flatten
from seqrl.training.runs.migrations import MIGRATIONS

LOG = logging.getLogger("seqrl")
SCHEMA_VERSION = 1 + len(MIGRATIONS)


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
    """Return a checkpoint, migrated from the schema it was written in to today's."""
    saved = checkpoint.load(path)
    if not isinstance(saved, dict):
        raise UsageError(f"checkpoint {path}: it holds no run")
    number = saved.get("schema", 1)
    if not isinstance(number, int) or number > SCHEMA_VERSION:
        known = f"this version reads up to {SCHEMA_VERSION}; install a newer seqrl"
        raise UsageError(f"checkpoint {path}: its schema is {number}, {known}")
    try:
        for step in range(number, SCHEMA_VERSION):
            saved = MIGRATIONS[step](saved)
    except schema.LOAD_ERRORS as error:
        raise UsageError(f"checkpoint {path}: it is damaged: {explain(error)}") from error
    if not isinstance(saved.get("loop"), dict):
        raise UsageError(f"checkpoint {path}: it holds no run")
    return saved


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
        found = f"config.toml is not what the checkpoint was made with: {differences(now, saved)}"
        raise UsageError(f"{found}; put it back, or begin a new run")


def differences(now: dict[str, Any], then: dict[str, Any]) -> str:
    """Return the settings that differ, as text."""
    now, then = dict(flatten(now)), dict(flatten(then))
    names = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    return ", ".join(f"{name} {now.get(name)} (then {then.get(name)})" for name in names)
