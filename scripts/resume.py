"""`seqrl train --resume RUN`: continue an interrupted run, with the same result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqrl.core.errors import UsageError
from seqrl.envs.wrapping import named
from seqrl.scripts import options
from seqrl.scripts.running import execute
from seqrl.training.runs import folder as runs
from seqrl.training.runs.global_state import one_at_a_time
from seqrl.training.runs.load import CODE, allowed_config
from seqrl.training.runs.run_one import continued
from seqrl.training.runs.teaching import check_teacher_code

ALLOWED = {
    f"--{name}" for name in ("resume", "wrapper", "env-arg", "teacher", "quiet", "debug", *CODE)
}


def resume(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Continue a run to its end; return the exit status."""
    check_flags(argv)
    folder = Path(args.resume)
    allowed: dict[str, Any] = {
        name: options.flag_value(argv, f"--{name}", "") or None for name in CODE
    }
    allowed["wrappers"] = [name for name, _ in named(args.wrappers)]
    allowed["env_args"] = dict(args.env_arg)
    config = allowed_config(folder, allowed)
    check_env_args(config, allowed["env_args"])
    check_teacher_code(folder, config, options.flag_value(argv, "--teacher", ""))
    if config.get("seeds"):
        raise UsageError(f"{folder} holds many seeds, which are not saved half-way: run it anew")
    with one_at_a_time(config), runs.locked(folder):
        if runs.read_summary(folder, config) is not None:
            if not args.quiet:
                print(f"{folder} is finished: there is nothing left to do")
            return 0
        one, saved = continued(folder, config)
        if not args.quiet:
            steps = 0 if saved is None else saved["loop"]["steps"]
            options.print_note(f"{folder}: going on from env step {steps:,}")
        return execute(one, folder, quiet=args.quiet, saved=saved)


def check_env_args(config: dict[str, Any], typed: dict[str, Any]) -> None:
    """Refuse arguments of the environment that are not the run's."""
    for name, value in typed.items():
        own = [config.get(table, {}).get(name) for table in ("env_args", "eval_env_args")]
        if value not in own:
            text = f"the run has {own[0]!r} and keeps it; leave it out"
            raise UsageError(f"--env-arg {name}={value} with --resume: {text}")


def check_flags(argv: Sequence[str]) -> None:
    """Refuse flags that would change the settings of the run."""
    for argument in map(options.normalized, argv):
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in ALLOWED:
            longer = "docs/resume.md says how to train on beyond its end"
            kept = "the run keeps the settings in its config.toml"
            raise UsageError(f"{flag} with --resume: {kept}; {longer}")
