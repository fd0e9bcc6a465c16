"""`seqrl train --resume RUN`: continue an interrupted run, with the same result."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.core.errors import UsageError, explain
from seqrl.envs.state import why_unkept
from seqrl.envs.wrapping import is_trusted, named
from seqrl.scripts import options
from seqrl.scripts.running import execute
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs import folder as runs
from seqrl.training.runs import saved_run
from seqrl.training.runs.parts import RunParts, build

CODE = ("env", "network")  # settings that may import code
ALLOWED = {"--resume", "--wrapper", "--quiet", "--debug", *(f"--{name}" for name in CODE)}


def resume(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Continue a run to its end; return the exit status."""
    check_flags(argv)
    folder = Path(args.resume)
    allowed: dict[str, Any] = {
        name: options.flag_value(argv, f"--{name}", "") or None for name in CODE
    }
    allowed["wrappers"] = [name for name, _ in named(args.wrappers)]
    config = allowed_config(folder, allowed)
    if config.get("seeds"):
        raise UsageError(f"{folder} holds many seeds, which are not saved half-way: run it anew")
    with runs.locked(folder):
        if runs.read_summary(folder, config) is not None:
            if not args.quiet:
                print(f"{folder} is finished: there is nothing left to do")
            return 0
        return continue_run(folder, config, args.quiet)


def continue_run(folder: Path, config: dict[str, Any], quiet: bool) -> int:
    """Continue from the newest checkpoint, or from the start where there is none."""
    runs.clear_temporary_files(folder)
    saved = saved_run.newest(folder)
    if saved is not None:
        saved_run.check_same_config(runs.as_stored(config), saved["config"])
    parts = build_parts(folder, config)
    why_unkept(parts.envs)  # first, as a reset puts right what is tried out
    loop = Interaction(parts.agent, parts.envs, compile=config["compile"])
    loop.reset(parts.streams.envs)
    if saved is None:
        runs.clear_unsaved_run(folder)
    if not quiet:
        steps = 0 if saved is None else saved["loop"]["steps"]
        options.print_note(f"{folder}: going on from env step {steps:,}")
    return execute(config, parts, loop, folder, quiet=quiet, saved=saved)


def check_flags(argv: Sequence[str]) -> None:
    """Refuse flags that would change the settings of the run."""
    for argument in map(options.normalized, argv):
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in ALLOWED:
            raise UsageError(f"{flag} with --resume: the run keeps the settings in its config.toml")


def allowed_config(folder: Path, allowed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run folder, which is not trusted.

    `allowed` has to name again, by flag, any code that it would import, and can name nothing else.
    """
    config = runs.read_config(folder)
    for flag in CODE:
        code, own = allowed.get(flag), str(config.get(flag) or "")
        if ":" in own and own != code:
            remedy = f"to allow it, add --{flag} {own}"
            raise UsageError(f"{folder}: its {flag} imports code; {remedy}")
        if code not in (None, own):
            found = f"its {flag} is {own}" if own else f"it has no {flag}, it learned a table"
            remedy = f"leave --{flag} out, or name the run that has it"
            raise UsageError(f"--{flag} {code}: {folder} is another run, {found}; {remedy}")
    check_wrappers(folder, config, allowed.get("wrappers", ()))
    return config


def check_wrappers(folder: Path, config: dict[str, Any], typed: Sequence[str]) -> None:
    """Refuse wrappers of a run that are code nobody typed, and typed ones that it has not."""
    names = [name for name, _ in named(config.get("wrappers"))]
    for name in names:
        if not (is_trusted(name) or name in typed):
            remedy = f"to allow it, add --wrapper {name}"
            raise UsageError(f"{folder}: its wrapper imports code; {remedy}")
    for name in typed:
        if name not in names:
            raise UsageError(f"--wrapper {name}: the run has no such wrapper, and keeps its own")


def build_parts(folder: Path, config: dict[str, Any]) -> RunParts:
    """Build the parts of a run; raise UsageError for a config of an older version."""
    try:
        return build(config)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} holds no run of this version: {explain(error)}") from error
