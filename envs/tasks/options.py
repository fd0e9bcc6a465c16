"""Tasks made by the options that a user names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from seqrl.core.errors import UsageError, closest


def with_options(rules: type[Any], env_id: str, options: Mapping[str, Any]) -> Any:
    """Return a task; UsageError, which names the id, for an option it does not have."""
    known = {field.metadata.get("option", field.name): field.name for field in fields(rules)}
    for name in options:
        if name not in known:
            listed, hint = ", ".join(known), closest(name, known)
            raise UsageError(f"{env_id} has no option {name!r}, it has {listed}.{hint}")
    return rules(**{known[name]: value for name, value in options.items()})
