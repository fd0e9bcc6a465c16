"""`seqrl train --resume RUN`: continue an interrupted run, with the same result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from seqrl.core import team
from seqrl.core.errors import UsageError
from seqrl.scripts import options
from seqrl.scripts.running import execute
from seqrl.training.loop.protocol import Callback
from seqrl.training.runs import folder as runs
from seqrl.training.runs.global_state import one_at_a_time
from seqrl.training.runs.load import CODE
from seqrl.training.runs.run_one import RunUnderWay, continued, reopened

ALLOWED = {f"--{name}" for name in ("resume", "wrapper", "env-arg", "teacher", *CODE)}
ALLOWED |= {"--quiet", "--debug", "--search-trial"}


def resume(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Continue a run to its end; return the exit status."""
    check_flags(argv)
    folder = Path(args.resume)
    named = {name: options.flag_value(argv, f"--{name}") or None for name in (*CODE, "teacher")}
    config = reopened(folder, {**named, "wrappers": args.wrappers, "env_args": args.env_args})
    if config.get("seeds"):
        raise UsageError(f"{folder} holds many seeds, which are not saved half-way: run it anew")
    with one_at_a_time(config), runs.locked(folder):
        if runs.read_summary(folder, config) is not None:
            if team.is_first() and not args.quiet:
                print(f"{folder} is finished: there is nothing left to do")
            return 0
        one, saved = continued(folder, config)
        if team.is_first() and not args.quiet:
            steps = 0 if saved is None else saved["loop"]["steps"]
            options.print_note(f"{folder}: going on from env step {steps:,}")
        callbacks = reporters(one, args.search_trial)
        return execute(one, folder, quiet=args.quiet, saved=saved, callbacks=callbacks)


def reporters(one: RunUnderWay, told: str | None) -> list[Callback]:
    """Return what reports the run of a search's trial to its study; of another run nothing."""
    if told is None:
        return []
    from seqrl.training.search.pruning import Reporter, read_report

    return [Reporter(one, read_report(told))]


def check_flags(argv: Sequence[str]) -> None:
    """Refuse flags that would change the settings of the run."""
    for argument in map(options.normalized, argv):
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in ALLOWED:
            longer = "docs/resume.md says how to train on beyond its end"
            kept = "the run keeps the settings in its config.toml"
            raise UsageError(f"{flag} with --resume: {kept}; {longer}")
