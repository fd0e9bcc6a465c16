"""Which is better: `seqrl compare --agents q-learning sarsa --env CliffWalking-v1 --seeds 10`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrl.core import RunError, UsageError, closest
from seqrl.scripts import options, train
from seqrl.scripts.crew import Failure, Job, finished_folder, run_all
from seqrl.scripts.options import Parser

if TYPE_CHECKING:
    from seqrl.training.compare import Table
    from seqrl.training.recorded import Run

EPILOG = (
    "Every other flag goes to each run, as `seqrl train --agent NAME --help` has them: --steps, "
    "--max-episode-steps, --eval-episodes, --learning-rate ... Runs that are there already, "
    "finished and with the very same settings, are not run again."
)
METRICS = ("eval_mean_reward", "ep_rew_mean", "area")
TAKEN = {"--agent": "--agents", "--seed": "--seeds", "--run-dir": "--out", "--resume": ""}
Grid = list[tuple[str, list[str]]]


def main(argv: Sequence[str] | None = None) -> int:
    """The script; answers its exit status."""
    return options.guarded(body, argv)


def body(argv: Sequence[str]) -> int:
    """Run what is missing, read all, write, print."""
    made = parser()
    typed, passed = made.parse_known_args([options.spelled(word) for word in argv])
    options.check_least(typed, {"seeds": 1, "workers": 1})
    check_passed(typed, passed, made)
    failures: list[Failure] = []
    if typed.runs:
        runs = existing(typed.runs)
        out = new_out(typed, [run.config["env"] for run in runs], names_of(runs))
    else:
        jobs = list(plan(typed, passed))
        values = [f"{name}={','.join(values)}" for name, values in typed.grid]
        out = new_out(typed, typed.env, [*typed.agents, *values])
        runs, failures = run_missing(jobs, typed)
    for failure in failures:
        tell(f"{named(failure.job)} failed, {failure.reason}; log: {failure.log}")
    if failures and not any(run.summary for run in runs):
        raise RunError("no run has finished, so there is nothing to compare")
    table = compared(runs, typed)
    write(table, out)
    if not typed.quiet:
        report(table, out)
    return 1 if failures else 0


def parser() -> Parser:
    """The flags of a comparison itself."""
    about = "Compare algorithms over seeds: runs, statistics, a picture, TensorBoard."
    made = Parser(prog="seqrl compare", description=about, epilog=EPILOG)
    add = made.add_argument
    add("--agents", nargs="+", metavar="A", default=["q-learning", "sarsa"], help="`seqrl list`")
    add("--env", nargs="+", metavar="E", default=["FrozenLake-v1"], help="one or more")
    add("--seeds", type=int, default=10, help="runs of each algorithm: seeds 0 to SEEDS-1")
    add(
        "--grid",
        **options.repeated(grid),
        metavar="NAME=V,W",
        help="each value of a flag is an algorithm; repeatable",
    )
    add("--metric", choices=METRICS, default=METRICS[0], help="what is compared")
    add("--threshold", type=float, help="say when learning curves reached this return")
    add("--runs", nargs="+", metavar="GLOB", help="compare these run folders, run nothing")
    add("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time")
    add("--logdir", default="runs", help="runs go to LOGDIR/ENV/AGENT/seed-N")
    add("--out", help="folder of the comparison (default: LOGDIR/compare-ENV-AGENTS)")
    add("--quiet", action="store_true", help="print nothing but mistakes")
    add("--debug", action="store_true", help="show tracebacks")
    return made


def grid(text: str) -> tuple[str, list[str]]:
    """NAME=v1,v2, the values of a flag of scripts/train.py."""
    name, _, values = text.partition("=")
    name, found = name.strip("-").replace("-", "_"), values.split(",")
    if not (name.isidentifier() and all(found) and len(set(found)) == len(found)):
        raise argparse.ArgumentTypeError(f"{text!r}, expected name=value,value with no value twice")
    return name, found


def check_passed(typed: argparse.Namespace, passed: Sequence[str], made: Parser) -> None:
    """Refuse what cannot be handed on to the runs."""
    for word in passed:
        flag = word.partition("=")[0]
        if flag in TAKEN:
            hint = f" Did you mean {TAKEN[flag]}?" if TAKEN[flag] else ""
            raise UsageError(f"{flag}: a comparison sets it for each run itself.{hint}")
        if typed.runs:
            hint = closest(flag, made._option_string_actions)
            raise UsageError(f"{word} with --runs, which runs nothing that could take it.{hint}")
    for name in ("agents", "env"):
        values = getattr(typed, name)
        if len(set(values)) < len(values):
            raise UsageError(f"--{name} {' '.join(values)}: one is named twice")


def plan(typed: argparse.Namespace, passed: Sequence[str]) -> Iterator[Job]:
    """Every run that is wanted, seed by seed; what cannot begin is refused before any does."""
    from seqrl.training.folder import plain_name

    groups = list(product(typed.env, typed.agents, *(settings(part) for part in typed.grid)))
    names = [",".join([agent, *(label for label, _ in chosen)]) for _, agent, *chosen in groups]
    if len({(group[0], plain_name(n)) for group, n in zip(groups, names, strict=True)}) < len(
        names
    ):
        raise UsageError("--grid: two of its values give the same folder name")
    configs = []
    for (env, agent, *chosen), name in zip(groups, names, strict=True):
        flags = ["--agent", agent, "--env", env, "--no-pictures", *passed]
        flags += [flag for _, flag in chosen]
        config, note = checked(name, flags, typed.metric)
        configs.append((name, flags, config))
        if note and not typed.quiet:
            tell(f"{name}: {note}")
    for seed in range(typed.seeds):
        for name, flags, config in configs:
            yield Job(name, {**config, "seed": seed}, flags)


def settings(part: tuple[str, list[str]]) -> list[tuple[str, str]]:
    """Each value of a --grid as the folder's name has it and as a flag; true and false switch."""
    name, values = part
    flag = "--" + name.replace("_", "-")
    switches = {"true": flag, "false": flag.replace("--", "--no-", 1)}
    return [(f"{name}={v}", switches.get(v.lower(), f"{flag}={v}")) for v in values]


def checked(name: str, flags: Sequence[str], metric: str) -> tuple[dict[str, Any], str]:
    """The config that a run with these flags has and what it says; refuses as the run would."""
    from seqrl.scripts.build import build

    try:
        made = train.parser(flags)
        config = train.read(made.read(flags))
        if metric == "eval_mean_reward" and not config["eval_episodes"]:
            raise UsageError("--eval-episodes 0 leaves nothing for --metric eval_mean_reward")
        build(config).envs.close()
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    return config, made.note


def new_out(typed: argparse.Namespace, envs: Sequence[str], names: Sequence[str]) -> Path:
    """The folder of the comparison: new, empty, or that of an earlier one, which is replaced."""
    from seqrl.training.folder import check_writable, plain_name

    parts = "-".join("+".join(dict.fromkeys(part)) for part in (envs, names))
    out = Path(typed.out or Path(typed.logdir) / plain_name(f"compare-{parts}"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_writable(out)
        if any(out.iterdir()) and not (out / "compare.json").exists():
            raise UsageError(f"{out} holds something else than a comparison: name another --out")
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}; name another --out") from error
    return out


def run_missing(jobs: Sequence[Job], typed: argparse.Namespace) -> tuple[list[Run], list[Failure]]:
    """Run what has not been run yet, and read all of it."""
    from seqrl.training.recorded import read_run

    known = [finished_folder(typed.logdir, job) for job in jobs]
    missing = [job for job, folder in zip(jobs, known, strict=True) if folder is None]
    if not typed.quiet:
        there = f", {len(jobs) - len(missing)} are there already" if missing != jobs else ""
        tell(f"{len(missing)} runs to do{there}")
    new, failures = run_all(missing, typed.logdir, typed.workers, typed.quiet)
    fresh = iter(new)
    folders = [next(fresh) if folder is None else folder for folder in known]
    return [read_run(f, job.config) for f, job in zip(folders, jobs, strict=True)], failures


def existing(patterns: Sequence[str]) -> list[Run]:
    """The runs in folders that are there."""
    from seqrl.training.recorded import find_runs, read_run

    return [read_run(folder) for folder in find_runs(patterns)]


def names_of(runs: Sequence[Run]) -> list[str]:
    """Their algorithms."""
    from seqrl.training.recorded import labels

    return labels(runs)


def compared(runs: Sequence[Run], typed: argparse.Namespace) -> Table:
    """The table of a comparison."""
    from seqrl.training.compare import compare
    from seqrl.training.scale import score_scale

    configs = {run.config["env"]: run.config for run in runs}
    # an id with a module in it would import code, which a stored file may not ask for
    known = {e: None if typed.runs and ":" in e else score_scale(c) for e, c in configs.items()}
    return compare(runs, typed.metric, threshold=typed.threshold, scales=known)


def write(table: Table, out: Path) -> None:
    """Everything but what is printed; without matplotlib the picture is missing, and it is said."""
    from seqrl.training.charts import write_charts
    from seqrl.training.plot import draw
    from seqrl.training.report import as_csv, as_json, markdown

    text = markdown(table)
    written = {"compare.json": as_json(table), "compare.csv": as_csv(table), "compare.md": text}
    for name, content in written.items():
        (out / name).write_text(content, encoding="utf-8")
    write_charts(out, table, text)
    try:
        draw(table, out / "compare.png")
    except UsageError as error:
        (out / "compare.png").unlink(missing_ok=True)  # an older one would not belong
        tell(str(error))


def report(table: Table, out: Path) -> None:
    """The end of a comparison, for a person."""
    from seqrl.scripts.running import tensorboard_command
    from seqrl.training.report import terminal

    print(terminal(table))
    print(f"\nsaved in  {out}")
    print(f"see it:   {tensorboard_command()} --logdir {out.parent}")


def named(job: Job) -> str:
    """A run in a sentence."""
    return f"{job.name} on {job.config['env']}, seed {job.config['seed']},"


def tell(text: str) -> None:
    """A line on stderr."""
    print(f"seqrl: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
