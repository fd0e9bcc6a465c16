"""`seqrl train --resume RUN`: go on with a run that was interrupted, as if it had not been."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.core import UsageError, explain
from seqrl.scripts import options
from seqrl.scripts.build import Parts, build
from seqrl.scripts.running import execute
from seqrl.training import Interaction, keeping
from seqrl.training import folder as runs
from seqrl.training.recorded import read_summary

WITH_IT = {"--resume", "--env", "--network", "--quiet", "--debug"}


def resume(typed: argparse.Namespace, argv: Sequence[str]) -> int:
    """Load and run to the end; answers the exit status."""
    check_alone(argv)
    folder = Path(typed.resume)
    config = own_config(folder, {"env": typed.env, "network": typed.network})
    if config.get("seeds"):
        raise UsageError(f"{folder} holds many seeds, which are not saved half-way: run it anew")
    with runs.locked(folder):
        if read_summary(folder, config) is not None:
            if not typed.quiet:
                print(f"{folder} is finished: there is nothing left to do")
            return 0
        return go_on(folder, config, typed.quiet)


def go_on(folder: Path, config: dict[str, Any], quiet: bool) -> int:
    """Run on from the newest checkpoint, or from the start where there is none."""
    runs.clear_drafts(folder)
    saved = keeping.newest(folder)
    if saved is not None:
        keeping.check_same_config(runs.as_stored(config), saved["config"])
    parts = parts_of(folder, config)
    loop = Interaction(parts.agent, parts.envs, compile=config["compile"])
    loop.reset(parts.streams.envs)
    if saved is None:
        runs.clear(folder)
    if not quiet:
        steps = 0 if saved is None else saved["loop"]["steps"]
        print(f"seqrl: {folder}: going on from env step {steps:,}", file=sys.stderr)
    return execute(config, parts, loop, folder, quiet=quiet, saved=saved)


def check_alone(argv: Sequence[str]) -> None:
    """Refuse flags that would change a run that is half done."""
    for word in map(options.spelled, argv):
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag not in WITH_IT:
            raise UsageError(f"{flag} with --resume: the run keeps the settings in its config.toml")


def own_config(folder: Path, allowed: Mapping[str, str | None]) -> dict[str, Any]:
    """The config of a run folder, which may be anybody's.

    `allowed` has to name again, by flag, the code that would be imported for it.
    """
    config = runs.read_config(folder)
    for flag, again in allowed.items():
        named = str(config.get(flag))
        if ":" in named and named != again:
            raise UsageError(
                f"{folder}: its {flag} imports code; to allow it, add --{flag} {named}"
            )
    return config


def parts_of(folder: Path, config: dict[str, Any]) -> Parts:
    """The parts of a run, new; a config that an older version wrote may not do."""
    try:
        return build(config)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} holds no run of this version: {explain(error)}") from error
