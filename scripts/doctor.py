"""`seqrl doctor`: check environment, network and agent; takes the flags of `seqrl train`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqrl.core.errors import UsageError
from seqrl.scripts import train
from seqrl.scripts.options import guarded
from seqrl.training.doctor.examine import Report, examine

ABOUT = """Step environment, network and agent for a moment and name what is wrong, each with its
remedy. Takes the flags of `seqrl train`; those on the length, place and log of a run change
nothing. Exit status 1 where something was found."""


@guarded
def main(argv: Sequence[str]) -> int:
    """Parse the arguments, check the parts, print the report."""
    parser = train.make_parser(argv)
    parser.prog, parser.description = "seqrl doctor", ABOUT
    args = parser.read(argv)
    if args.resume is not None:
        raise UsageError("--resume: the doctor sees no runs; name --agent and --env")
    logging.getLogger("seqrl").setLevel(logging.ERROR)
    config = train.make_config(args)
    report = Report(lambda *fact: None if args.quiet else show(*fact))
    if parser.note:
        report.fact("settings", parser.note)
    try:
        examine(config, report)
    finally:
        for what, remedy in report.findings:
            print(f"! {what}\n  remedy: {remedy}")
    if not report.findings:
        report.fact("healthy", "nothing was found")
    return 1 if report.findings else 0


def show(name: str, text: str) -> None:
    """Print a fact in a line."""
    print(f"{name:<13} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
