"""Settings from a file in the form of a run's config.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

from seqrl.agents.factory import Config
from seqrl.core.errors import UsageError
from seqrl.training.runs.config import TABLES
from seqrl.training.runs.load import CODE, check_code_named


def config_file(name: str, typed: Config) -> Config:
    """Return the settings of a TOML file; UsageError where it cannot be read or would import code.

    What is `typed` may be code: it takes the place of what the file has.
    """
    try:
        found = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        expected = "expected TOML, lines such as steps = 100000; a run's config.toml shows them all"
        raise UsageError(f"--config {name}: {error}; {expected}") from error
    for flag in CODE:
        if not isinstance(found.get(flag, ""), str):
            raise UsageError(f"--config {name}: {flag} is {found[flag]!r}, expected a text")
    for table in TABLES:
        if not isinstance(found.get(table, {}), dict):
            raise UsageError(f"--config: {table} is {found[table]!r}, expected a table [{table}]")
    replaced = {part: typed[part] for part in (*CODE, "wrappers") if part in typed}
    check_code_named(f"--config {name}", {**found, **replaced}, typed)
    return found
