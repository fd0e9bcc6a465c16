"""The flags that say where many runs are executed, shared by the commands that have many."""

from __future__ import annotations

import argparse

from seqrl.core import team
from seqrl.scripts.options import Parser, check_minimum
from seqrl.training.engines import choice
from seqrl.training.engines.executor import Executor, Tell

OF_RAY = ("address", "cpus_per_run", "gpus_per_run", "retries", "storage")


def add_flags(parser: Parser, name: str) -> None:
    """Add the flags of a command that has many runs; `name`: of its folder, what is left out."""
    add = parser.add_argument
    add("--logdir", default="runs", help="runs go to LOGDIR/ENV/AGENT,SETTINGS/seed-N")
    add("--out", help=f"its folder, LOGDIR/{name} if left out")
    add("--quiet", action="store_true", help="print nothing but mistakes")
    add("--debug", action="store_true", help="show tracebacks")
    at_a_time = "runs at a time; as many as there are CPUs if left out"
    add("--workers", type=int, help=at_a_time)
    group = parser.add_argument_group("where the runs are executed")
    add = group.add_argument
    add("--engine", default="local", metavar="E", help="local, or ray: the machines of a cluster")
    add("--address", metavar="A", help="ray: auto, or HOST:PORT of its head; auto if left out")
    add("--cpus-per-run", type=float, metavar="N", help="ray: kept for each run; 1 if left out")
    gpus = "ray: kept for each run, as in 0.25; 0 if left out"
    add("--gpus-per-run", type=float, metavar="X", help=gpus)
    again = "ray: how often a killed run goes on elsewhere; 3 if left out"
    add("--retries", type=int, metavar="N", help=again)
    kept = "ray: a folder that all machines have, for the runs' newest states; large ones need it"
    add("--storage", metavar="PATH", help=kept)


def check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that the engine does not take, before anything is done."""
    team.refuse_several("many runs")
    check_minimum(args, {"workers": 1, "retries": 0})
    given = [name for name in OF_RAY if getattr(args, name) is not None]
    choice.check_engine(args.engine, given)


def executor(args: argparse.Namespace, progress: Tell) -> Executor:
    """Return the executor that the flags name, which tells `progress` how far the runs are."""
    options = {name: getattr(args, name) for name in ("workers", *OF_RAY)}
    return choice.executor(args.engine, progress=progress, **options)
