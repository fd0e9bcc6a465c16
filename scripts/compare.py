"""`seqrl compare`: run and compare algorithms over seeds, and report the comparison."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from seqrl.core.errors import RunError, UsageError, closest, counted
from seqrl.scripts import engine, options, train
from seqrl.scripts.options import Parser, print_note
from seqrl.scripts.run_name import run_name
from seqrl.scripts.running import handle_signals
from seqrl.scripts.settings import expanded
from seqrl.training.comparison.compare import compare
from seqrl.training.comparison.files import make_folder, named_folder, write
from seqrl.training.comparison.missing import Planned, find_finished, run_missing, seeded
from seqrl.training.comparison.recorded import METRICS, Run, labels, read_runs
from seqrl.training.comparison.report import terminal
from seqrl.training.comparison.scale import score_scales
from seqrl.training.engines.executor import Job, Processes, Result, steps_done
from seqrl.training.runs.defaults import ENV, flag_of
from seqrl.training.runs.elsewhere import here
from seqrl.training.runs.progress import Meter
from seqrl.training.runs.tensorboard import command

EPILOG = (
    "Every other flag goes to each run, as `seqrl train --agent NAME --help` has them: --steps, "
    "--max-episode-steps, --eval-episodes, --learning-rate ... Runs that are there already, "
    "finished and with the very same settings, are not run again."
)
RESERVED = {"--agent": "--agents", "--seed": "--seeds", "--run-dir": "--out", "--resume": ""}


@options.guarded
def main(argv: Sequence[str]) -> int:
    """Run what is missing, compare all runs, write and print the results."""
    parser = make_parser()
    args, run_flags = parser.parse_known_args([options.normalized(argument) for argument in argv])
    options.check_minimum(args, {"seeds": 1})
    engine.check_flags(args)
    check_run_flags(args, run_flags, parser)
    failures: list[Result] = []
    if args.runs:
        runs, many = read_runs(args.runs)
        for folder in many:
            print_note(f"{folder} holds the curves of many seeds and no evaluation: it is left out")
        compared = [run.config["env"] for run in runs], labels(runs)
    else:
        planned = planned_runs(args, run_flags)
        values = [f"{name}={','.join(values)}" for name, values in args.grid]
        envs = dict.fromkeys(one.config["env"] for one in planned)
        compared = [*envs], [*args.agents, *values]
    out = make_folder(Path(args.out) if args.out else named_folder(args.logdir, *compared))
    if not args.runs:
        runs, failures = run_planned(planned, args)
    for failure in failures:
        print_note(failure.told)
    if failures and not any(run.summary for run in runs):
        raise RunError("no run has finished, so there is nothing to compare")
    scales = score_scales([run.config for run in runs], trusted=not args.runs)
    table = compare(runs, args.metric, threshold=args.threshold, scales=scales)
    print_note(write(table, out))
    if not args.quiet:
        print(terminal(table))
        print(f"\nsaved in  {out}")
        print(f"see it:   {command(out)}")
    return 1 if failures else 0


def make_parser() -> Parser:
    """Return the parser of a comparison's own flags."""
    about = "Compare algorithms over seeds: runs, statistics, a picture, TensorBoard."
    parser = Parser(prog="seqrl compare", description=about, epilog=EPILOG)
    add = parser.add_argument
    add("--agents", nargs="+", metavar="A", default=["q-learning", "sarsa"], help="`seqrl list`")
    played = f"one or more ({ENV} if left out, or that of --from)"
    add("--env", nargs="+", metavar="E", default=[], help=played)
    add("--seeds", type=int, default=10, help="runs of each algorithm: seeds 0 to SEEDS-1")
    values = "each value of a flag is an algorithm; repeatable"
    add("--grid", **options.repeatable(grid), metavar="NAME=V,W", help=values)
    add("--metric", choices=(*METRICS,), default="eval_mean_reward", help="what is compared")
    add("--threshold", type=float, help="say when the mean of 100 episodes reached it")
    add("--runs", nargs="+", metavar="GLOB", help="compare these run folders, run nothing")
    engine.add_flags(parser, "compare-ENV-AGENTS")
    return parser


def grid(text: str) -> tuple[str, list[str]]:
    """Parse NAME=v1,v2: the values of a flag of `seqrl train`."""
    name, _, values = text.partition("=")
    name, found = name.strip("-").replace("-", "_"), values.split(",")
    if not (name.isidentifier() and all(found) and len(set(found)) == len(found)):
        raise argparse.ArgumentTypeError(f"{text!r}, expected name=value,value with no value twice")
    return name, found


def check_run_flags(args: argparse.Namespace, run_flags: Sequence[str], parser: Parser) -> None:
    """Refuse flags that cannot be passed on to the runs, and values given twice."""
    for word in run_flags:
        flag = word.partition("=")[0]
        if flag in RESERVED:
            hint = f" Did you mean {RESERVED[flag]}?" if RESERVED[flag] else ""
            raise UsageError(f"{flag}: a comparison sets it for each run itself.{hint}")
        if args.runs:
            hint = closest(flag, parser._option_string_actions)
            raise UsageError(f"{word} with --runs, which runs nothing that could take it.{hint}")
    check_one_value(run_flags)
    for name in ("agents", "env"):
        values = getattr(args, name)
        if len(set(values)) < len(values):
            raise UsageError(f"--{name} {' '.join(values)}: one is named twice")


def check_one_value(run_flags: Sequence[str]) -> None:
    """Refuse several values of a flag of the runs, with the --grid that compares them."""
    flag, values = "", list[str]()
    for word in [*run_flags, "--"]:
        if not word.startswith("--"):
            values.append(word)
        elif len(values) > 1 and flag and not here(flag):
            remedy = f"--grid {flag.lstrip('-')}={','.join(values)} compares them"
            raise UsageError(f"{flag} {' '.join(values)}: a run takes one; {remedy}")
        else:
            flag, values = word, []


def planned_runs(args: argparse.Namespace, run_flags: Sequence[str]) -> list[Planned]:
    """Return all runs, seed by seed; settings are checked before any run begins."""
    found = []
    envs = [["--env", env] for env in args.env] or [[]]  # none: that of --from, or the default
    for env, agent, *chosen in product(envs, args.agents, *(map(settings, args.grid))):
        name = ",".join([agent, *(label for label, _ in chosen)])
        flags = ["--agent", agent, *env, "--no-pictures", *run_flags]
        planned, note = plan(name, flags, [flag for _, flag in chosen], args.metric)
        found.append(planned)
        if note and not args.quiet:
            print_note(f"{name}: {note}")
    return seeded(found, range(args.seeds))


def settings(part: tuple[str, list[str]]) -> list[tuple[str, str]]:
    """Return each value of a --grid as a label and as a flag; true is --x, false is --no-x."""
    name, values = part
    flag = flag_of(name)
    switches = {"true": flag, "false": flag.replace("--", "--no-", 1)}
    return [(f"{name}={v}", switches.get(v.lower(), f"{flag}={v}")) for v in values]


def plan(
    name: str, flags: Sequence[str], varied: Sequence[str], metric: str
) -> tuple[Planned, str]:
    """Return the run of these flags and its note; UsageError where it could not be made."""
    from seqrl.training.runs.parts import build
    from seqrl.training.runs.warm_start import begin

    try:
        typed = [*flags, *varied]
        argv = expanded(typed)
        parser = train.make_parser(argv)
        config = train.make_config(parser.read(argv))
        if metric == "eval_mean_reward" and config["eval_episodes"] == 0:
            raise UsageError("--eval-episodes 0 leaves nothing for --metric eval_mean_reward")
        parts = build(config)
        parts.envs.close()
        begin(parts.agent, config)
    except UsageError as error:
        named = str(error).startswith(f"--agent {name}:")
        raise UsageError(str(error) if named else f"{name}: {error}") from error
    folder_name = run_name(typed, parser, config["agent"], varied)
    return Planned(name, folder_name, config), parser.note


def run_planned(
    planned: Sequence[Planned], args: argparse.Namespace
) -> tuple[list[Run], list[Result]]:
    """Run what is planned and not finished; return all runs, and the failures."""
    finished = find_finished(planned, args.logdir)
    missing = [one for one, folder in zip(planned, finished, strict=True) if folder is None]
    if not args.quiet:
        done = f", {len(planned) - len(missing)} are there already" if missing != planned else ""
        print_note(f"{counted(len(missing), 'run')} to do{done}")
    total, quiet = sum(one.config["steps"] for one in missing), args.quiet or not missing
    meter = Meter(total, "steps", quiet=quiet)

    def show(going: Sequence[Job], over: Sequence[Job]) -> None:
        steps = sum(job.config["steps"] for job in over)
        steps += sum(steps_done(job.folder) for job in going)
        meter.show(steps, f"{len(over)} of {counted(len(missing), 'run')}")

    executor = engine.executor(args, show) if missing else Processes()
    with meter, handle_signals(lambda times: True):
        try:
            return run_missing(planned, finished, args.logdir, executor)
        except KeyboardInterrupt:
            there = sum(folder is not None for folder in find_finished(planned, args.logdir))
            print_note(f"{there} of {len(planned)} runs are done; the same command does the others")
            raise


if __name__ == "__main__":
    sys.exit(main())
