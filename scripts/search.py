"""`seqrl search`: trials of settings that are drawn, bad ones ended early, the best run again."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.core.errors import UsageError, closest
from seqrl.scripts import engine, options, train
from seqrl.scripts.compare import plan, run_planned, settings
from seqrl.scripts.options import Parser, flag_value, print_note, words_of
from seqrl.scripts.run_name import UNNAMED
from seqrl.scripts.running import handle_signals
from seqrl.scripts.settings import default_settings, expanded
from seqrl.training.comparison.missing import Planned
from seqrl.training.comparison.recorded import METRICS
from seqrl.training.comparison.report import terminal
from seqrl.training.engines.executor import Job
from seqrl.training.runs import folder as runs
from seqrl.training.runs.defaults import AGENT, flag_of
from seqrl.training.runs.elsewhere import SAME
from seqrl.training.runs.progress import Meter
from seqrl.training.runs.tensorboard import command
from seqrl.training.search.again import best_again, judged
from seqrl.training.search.files import write_search
from seqrl.training.search.search import Search
from seqrl.training.search.settings import first_of, looks
from seqrl.training.search.space import FORMS, Range, Values, read_range
from seqrl.training.search.study import PRUNERS, SAMPLERS, import_optuna

EPILOG = (
    "Every other flag goes to each run, as `seqrl train --agent NAME --help` has them: --env, "
    "--steps, --network, --eval-episodes ... The same command again goes on where the search "
    "stopped; the same command at the same time, here or elsewhere, shares its trials."
)
RESERVED = {"--seeds": "--seeds-per-trial", "--run-dir": "--out", "--resume": ""}
RESERVED |= {"--search-trial": ""}


@options.guarded
def main(argv: Sequence[str]) -> int:
    """Search, run the best trials again, write and print the results."""
    argv = [options.normalized(argument) for argument in argv]
    parser = make_parser(argv)
    args, flags = parser.parse_known_args(argv)
    counts = ("trials", "seeds_per_trial", "best", "fresh_seeds")
    options.check_minimum(args, {**dict.fromkeys(counts, 1), "seed": 0})
    engine.check_flags(args)
    for flag, _ in words_of(flags):
        if flag in RESERVED:
            hint = f" Did you mean {RESERVED[flag]}?" if RESERVED[flag] else ""
            raise UsageError(f"{flag}: a search sets it for each run itself.{hint}")
    import_optuna()  # its absence is told before anything else is made
    flags = ["--no-pictures", *flags]
    space = search_space(args.search, flags)
    base, note = plan_any("search", flags, [{}, first_of(space)], args.metric)
    check_space(space, flags, args.metric)
    if not args.quiet:
        print_note(note)
    found = opened(base, space, flags, args)
    over = search(found, args)
    print_note(write_search(found.study, found.folder))
    return run_again(found, args) if over else 0


def make_parser(argv: Sequence[str]) -> Parser:
    """Return the parser of a search's own flags; its help shows the space of the agent named."""
    about = "Search the settings of an agent: trials, pruning, the best again on fresh seeds."
    agent = flag_value(argv, "--agent")
    lines = [f"  {name}={text}" for name, text in own_space(argv).items()] if agent else []
    shown = ["\n", f"Searched of {agent} where no --search is typed:", *lines] if agent else []
    parser = Parser(prog="seqrl search", description=about, epilog=" ".join([EPILOG, *shown]))
    add = parser.add_argument
    found = f"{FORMS}; of any flag, or argument of the network; repeatable"
    add("--search", **options.repeatable(searched), metavar="NAME=RANGE", help=found)
    add("--trials", type=int, default=50, help="settings tried, in all")
    add("--seeds-per-trial", type=int, default=1, help="runs a trial; its score is their mean")
    add("--sampler", choices=SAMPLERS, default="tpe", help="what draws the settings")
    ended = "what ends trials early, by their evaluations"
    add("--pruner", choices=PRUNERS, default="hyperband", help=ended)
    add("--metric", choices=(*METRICS,), default="eval_mean_reward", help="what is searched for")
    add("--best", type=int, default=3, help="as many of the best trials are run again")
    add("--fresh-seeds", type=int, default=5, help="seeds of these runs, which no trial had")
    add("--seed", type=int, default=0, help="of the draws; the trials' seeds are this and the next")
    kept = "journal of the trials, or URL of a database of Optuna's (default: study.log in --out)"
    add("--study", metavar="PATH|URL", help=kept)
    engine.add_flags(parser, "search-ENV-AGENT,SETTINGS")
    return parser


def searched(text: str) -> tuple[str, Range]:
    """Parse NAME=RANGE."""
    name, _, values = text.partition("=")
    name = name.strip("-").replace("-", "_")
    name = SAME.get(name, name)
    try:
        if not name.isidentifier():
            raise UsageError(f"{text!r}: expected NAME={FORMS}")
        return name, read_range(values)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def own_space(argv: Sequence[str]) -> dict[str, str]:
    """Return what the agent's class says is worth searching, as texts by name."""
    from seqrl.agents.registry import agent_class

    argv = expanded(argv)
    settings, _ = default_settings(argv)
    agent = flag_value(argv, "--agent", settings.get("agent", AGENT))
    network = bool(flag_value(argv, "--network", settings.get("network") or ""))
    return dict(getattr(agent_class(agent, network), "search_space", {}))


def search_space(asked: Sequence[tuple[str, Range]], flags: Sequence[str]) -> dict[str, Range]:
    """Return the ranges by name: those asked for, else the agent's own of what is not typed."""
    typed = {flag for flag, _ in words_of(flags)}
    space = dict(asked)
    if len(space) < len(asked):
        twice = next(name for i, (name, _) in enumerate(asked) if name in dict(asked[:i]))
        raise UsageError(f"--search {twice}: it is named twice")
    for name in space:
        if flag_of(name) in typed:
            raise UsageError(f"{flag_of(name)}: it is searched for and typed; leave one out")
    if asked:
        return space
    own = {name: x for name, x in own_space(flags).items() if flag_of(name) not in typed}
    if not own:
        expected = "name what to search for, as in --search learning_rate=log:1e-4:1e-2"
        raise UsageError(f"the agent has no search space of its own; {expected}")
    return {name: read_range(text) for name, text in own.items()}


def check_space(space: Mapping[str, Range], flags: Sequence[str], metric: str) -> None:
    """Refuse unknown names, ends of ranges that no run takes beside what is typed, and synonyms."""
    first = first_of(space)
    names = flag_names(first, flags) - UNNAMED
    for name, each in space.items():
        if name in UNNAMED:
            raise UsageError(f"--search {name}: it is the same in all trials; leave it out")
        about, found = f"--search {name}", dict[str, dict[str, Any]]()
        for end in each.ends:
            try:
                config = plan_any(about, flags, [{name: end}, {**first, name: end}], metric)[
                    0
                ].config
            except UsageError as error:
                if name in names:
                    raise
                hint = closest(name, names) or str(error).removeprefix(f"{about}:")
                raise UsageError(f"{about}: no flag has this name.{hint}") from error
            if same := [other for other in found if found[other] == config]:
                raise UsageError(f"{about}: {end} is the same as {same[0]}; leave one out")
            found[end] = config


def plan_any(
    name: str, flags: Sequence[str], tried: Sequence[Values], metric: str
) -> tuple[Planned, str]:
    """Return the first run that can be made of these values; if none, raise the first's error."""
    problems = []
    for values in tried:
        try:
            return plan(name, flags, flags_for(values, flags), metric)
        except UsageError as error:
            problems.append(error)
    raise problems[0]


def flag_names(values: Mapping[str, str], flags: Sequence[str]) -> set[str]:
    """Return the names of the flags of `train` that the agent and network of these values have."""
    chosen = [f"--{name}={values[name]}" for name in ("agent", "network") if name in values]
    parser = train.make_parser(expanded([*flags, *chosen]))
    return {action.dest for action in parser._actions}


def flags_for(values: Mapping[str, str], flags: Sequence[str]) -> list[str]:
    """Return values as flags of `train`; what is no flag's is an argument of the network."""
    names = flag_names(values, flags)
    return [
        settings((name, [value]))[0][1] if name in names else f"--network-arg={name}={value}"
        for name, value in values.items()
    ]


def opened(
    base: Planned, space: Mapping[str, Range], flags: Sequence[str], args: argparse.Namespace
) -> Search:
    """Return the search that the flags ask for, new or begun."""
    typed = {flag.strip("-").replace("-", "_") for flag, _ in words_of(flags)}
    name = runs.plain_name(f"search-{base.config['env']}-{base.folder_name}")
    same = "seed", "metric", "sampler", "pruner", "study", "trials", "seeds_per_trial"

    def planned(values: Values) -> Planned:
        told = ",".join(f"{key}={value}" for key, value in values.items())
        return plan(told, flags, flags_for(values, flags), args.metric)[0]

    return Search(
        base.config,
        space,
        args.out or Path(args.logdir) / name,
        plan=planned,
        looked=looks(base.config, typed, args.metric, args.pruner, args.seeds_per_trial),
        heard=print_note,
        **{flag: getattr(args, flag) for flag in same},
    )


def search(under_way: Search, args: argparse.Namespace) -> bool:
    """Do the trials that are left; return whether all are over, in other processes too."""
    there = len(under_way.study.trials("COMPLETE", "PRUNED", "FAIL"))
    if there and not args.quiet:
        print_note(f"{there} of {args.trials} trials are there already")
    quiet = args.quiet or there >= args.trials
    with Meter(args.trials, "trials", quiet=quiet) as meter, handle_signals(lambda times: True):

        def show(going: Sequence[Job], over: Sequence[Job]) -> None:
            meter.show(there + under_way.over, f"{len(going)} runs go on")

        try:
            over = under_way.run(engine.executor(args, show))
        except KeyboardInterrupt:
            print_note("what is under way is saved; the same command goes on")
            raise
    if not over:
        elsewhere = len(under_way.study.trials("RUNNING"))
        last = "the search that ends last runs the best again"
        print_note(f"{elsewhere} trials are under way in another process: {last}")
    return over


def run_again(searched: Search, args: argparse.Namespace) -> int:
    """Run the best trials over fresh seeds, and report these alone; return the exit status."""
    planned = best_again(searched, args.best, args.fresh_seeds)
    found, failures = run_planned(planned, args)
    for failure in failures:
        print_note(failure.told)
    best, out = judged(searched, planned, found), searched.folder
    if not args.quiet:
        value, low, high = map(float, best.score)
        between = "" if math.isnan(low) else f" ({low:.5g} to {high:.5g})"  # one seed has none
        seeds = planned[0].config["seed"], planned[-1].config["seed"]
        print(f"{terminal(best.table)}\n\nbest:     {best.planned.name}")
        which = f"seeds {seeds[0]} to {seeds[1]}, which no trial had"
        print(f"          {value:.5g}{between} over {which}")
        print(f"again:    seqrl train --config {out / 'best.toml'}")
        print(f"saved in  {out}")
        print(f"see it:   {command(out)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
