"""Train an agent: `seqrl train --agent q-learning --env FrozenLake-v1 --steps 300000`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from seqrl.core import team
from seqrl.core.errors import UsageError
from seqrl.scripts import options
from seqrl.scripts.options import Parser, print_note, repeatable
from seqrl.scripts.run_name import run_name
from seqrl.scripts.settings import default_settings, expanded, set_defaults
from seqrl.training.runs.defaults import AGENT, DEFAULTS, flag_of


@options.guarded
def main(argv: Sequence[str]) -> int:
    """Parse the arguments, build the parts, train, report."""
    typed, argv = argv, expanded(argv)
    parser = make_parser(argv)
    args = parser.read(argv)
    # the library's own warnings
    logging.getLogger("seqrl").setLevel(logging.ERROR if args.quiet else logging.NOTSET)
    if args.resume is not None:
        from seqrl.scripts.resume import resume

        return resume(args, argv)
    if args.search_trial is not None:
        raise UsageError("--search-trial: `seqrl search` sets it, beside --resume; leave it out")
    config = make_config(args)
    note = "" if args.quiet else parser.note
    if config["seeds"]:
        team.refuse_several("--seeds")
        from seqrl.scripts.seeds import train_seeds

        print_note(note)
        return train_seeds(config, args, run_name(typed, parser, config["agent"]))
    from seqrl.scripts.running import execute
    from seqrl.training.runs import folder as runs
    from seqrl.training.runs.global_state import one_at_a_time
    from seqrl.training.runs.parts import build
    from seqrl.training.runs.run_one import RunUnderWay

    with one_at_a_time(config):
        one = RunUnderWay(build(config))  # an error here leaves the folder unmade
        name = run_name(typed, parser, config["agent"])
        named = args.logdir, config["env"], name, config["seed"], args.run_dir
        folder = team.of_first("a folder", lambda: runs.new_folder(*named))
        with runs.locked(folder):
            runs.write_config(folder, config)
            print_note(note if team.is_first() else "")
            return execute(one, folder, quiet=args.quiet)


def make_parser(argv: Sequence[str]) -> Parser:
    """Return the parser of all flags, those of the agent named in `argv` included."""
    parser = Parser(prog="seqrl train", description="Train an agent on an environment.")
    add = parser.add_argument
    flags = "see `seqrl list`, or module:Class; --agent NAME --help: its own flags"
    add("--agent", help=flags)
    add("--env", help="a Gymnasium id, or module:Id-v0")
    add("--steps", type=int, help="env steps, exactly")
    recorded = "learn from recorded episodes: a folder or an id of Minari's; repeatable"
    add("--dataset", **repeatable(str), metavar="D", help=recorded)
    begun = "begin from a run's weights, in its environment and with its network unless typed; none"
    add("--from", type=options.run_or_none, metavar="RUN", help=begun)
    add("--best-share", type=float, help="from that share of them, of the highest returns")
    seen = "return: the network also sees the return still wanted, and plays for the one asked for"
    add("--condition-on", choices=("return",), help=seen)
    add("--target-return", type=float, help="that evaluations ask for (default: the best recorded)")
    add("--episodes", type=int, help="stop after as many episodes, if --steps are not done before")
    add("--seed", type=int, help="fixes everything that is drawn")
    add("--seeds", type=int, help="train seeds 0 to K-1; their curves become one")
    threads = (
        "of torch and linear algebra, 1 if left out; of compiled --seeds, one a CPU if left out"
    )
    add("--threads", type=int, help=threads)
    add("--num-envs", type=int, help="environments played at once")
    add("--processes", action="store_true", help="each environment in a process of its own")
    add("--worker-timeout", type=float, help="seconds such a process may be silent")
    add("--restart-workers", type=int, help="replace as many that die or hang, in all")
    add("--network", help="mlp, cnn, rnn, lstm, gru, attention, seq2seq, ..., or module:Class")
    add("--network-arg", dest="network_args", **options.PAIR, help="for the network")
    whether: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": False}
    add("--normalize-obs", **whether, help="its observations, by running mean and spread")
    add("--env-arg", dest="env_args", **options.PAIR, help="for the environment")
    evaluated = "for that of evaluations, beside and before --env-arg"
    add("--eval-env-arg", dest="eval_env_args", **options.PAIR, help=evaluated)
    wrapping: dict[str, Any] = {"action": options.WrapperFlag, "dest": "wrappers"}
    one, arg = options.wrapper_name, options.pair
    add("--wrapper", **wrapping, type=one, metavar="M:C", help="around each, the outermost last")
    add("--wrapper-arg", **wrapping, type=arg, metavar="K=V", help="for the --wrapper before it")
    mask = "key of the observations' mask of actions, or info, if that has it"
    add("--action-mask", metavar="KEY", help=mask)
    add("--max-episode-steps", type=int, help="cut episodes after as many steps")
    add("--bins", type=int, help="cut each real dimension into as many equal widths")
    ranges = {**options.PAIR, "type": options.dimension_range, "metavar": "D=LOW:HIGH"}
    add("--bin-range", **ranges, help="of dimension D")
    add("--tiles", type=int, help="tile coding with as many tilings")
    every = (
        "evaluate every so many env steps; auto: some 20 times, in 5 %% of the run's time; 0: not"
    )
    add("--eval-every", type=options.whole_or_auto, metavar="N", help=every)
    episodes = "greedy episodes an evaluation, 0 for none; 100 if left out, fewer in a short run"
    add("--eval-episodes", type=int, help=episodes)
    add("--stop-at", type=float, help="end the run when an evaluation's mean return reaches this")
    add("--patience", type=int, help="end it after as many evaluations without a better one")
    add("--checkpoint-every", type=int, help="save the run every so many env steps")
    add("--resume", metavar="RUN", help="go on with an interrupted run; it knows its own flags")
    add("--search-trial", help=argparse.SUPPRESS)  # set by `seqrl search` for the runs of a trial
    left_out: dict[str, Any] = {"action": "store_false"}
    step = "step where compiled turns give the same bits"
    add("--no-compile", dest="compile", **left_out, help=step)
    add("--deterministic", action="store_true", help="only operations of torch that repeat exactly")
    drawn = "draw nothing for TensorBoard at evaluations"
    add("--no-pictures", dest="pictures", **left_out, help=drawn)
    add("--logdir", default="runs", help="runs go to LOGDIR/ENV/AGENT,SETTINGS/seed-N")
    add("--run-dir", help="the run's folder outright, new or empty")
    add("--config", metavar="FILE", help="settings as in a run's config.toml; flags count more")
    add("--preset", metavar="NAME", help="tuned settings; by default this pair's, none for none")
    add("--quiet", action="store_true", help="print nothing but mistakes")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(**{name: x for name, x in DEFAULTS.items() if name != "agent_args"})
    showing_help = not {"-h", "--help"}.isdisjoint(argv)
    settings, parser.note = default_settings(argv)
    default = settings.get("agent", "" if showing_help else AGENT)
    name = options.flag_value(argv, "--agent", default)
    if name:
        from seqrl.agents.arguments import documented
        from seqrl.agents.registry import agent_class
        from seqrl.envs.making import find

        if not showing_help and ":" not in name:  # importing torch takes its time
            early = parser.check_early(argv, {flag_of(name) for name in documented()})
            if ":" not in early.env:
                find(early.env)
        network = bool(options.flag_value(argv, "--network", settings.get("network") or ""))
        options.add_agent_flags(parser, agent_class(name, network))
    set_defaults(parser, settings)
    if "env" not in settings and (
        settings.get("dataset") or options.flag_value(argv, "--dataset", "")
    ):
        parser.set_defaults(env=None)  # the one that was recorded
    return parser


def make_config(args: argparse.Namespace) -> dict[str, Any]:
    """Return the config of the run, as config.toml will hold it."""
    from seqrl.agents.arguments import agent_parameters
    from seqrl.agents.registry import agent_class
    from seqrl.envs.wrapping import with_action_mask
    from seqrl.training.runs.config import complete

    given = {name: x for name, x in vars(args).items() if name in DEFAULTS}
    given["wrappers"] = with_action_mask(args.wrappers or [], args.action_mask) or None
    numbers = agent_parameters(agent_class(args.agent, bool(args.network)))
    given["agent_args"] = {name: x for name, x in vars(args).items() if name in numbers}
    return complete(given)


if __name__ == "__main__":
    sys.exit(main())
