"""The flags of `seqrl train` that are no agent's own, in the groups of its help."""

from __future__ import annotations

import argparse
from typing import Any

from seqrl.scripts import values
from seqrl.scripts.options import Parser, repeatable

SWITCH: dict[str, Any] = {"action": "store_true"}
LEFT_OUT: dict[str, Any] = {"action": "store_false"}


def add_flags(parser: Parser) -> None:
    """Add all of them."""
    add_run_flags(parser)
    add_environment_flags(parser)
    add_network_flags(parser)
    add_table_flags(parser)
    add_source_flags(parser)
    add_evaluation_flags(parser)
    add_folder_flags(parser)
    add_execution_flags(parser)


def add_run_flags(parser: Parser) -> None:
    """Add what is trained, on what, and for how long."""
    add = parser.add_argument
    flags = "see `seqrl list`, or module:Class; --agent NAME --help: its own flags"
    add("--agent", help=flags)
    add("--env", help="a Gymnasium id, or module:Id-v0")
    add("--steps", type=int, help="env steps, exactly")
    add("--episodes", type=int, help="stop after as many episodes, if --steps are not done before")
    add("--seed", type=int, help="fixes everything that is drawn")
    add("--seeds", type=int, help="train seeds 0 to K-1; their curves become one")
    add("--preset", metavar="NAME", help="tuned settings; by default this pair's, none for none")
    add("--config", metavar="FILE", help="settings as in a run's config.toml; flags count more")
    add("--quiet", **SWITCH, help="print nothing but mistakes")
    add("--debug", **SWITCH, help="show tracebacks")


def add_environment_flags(parser: Parser) -> None:
    """Add how many environments there are, their arguments and what is around them."""
    add = parser.add_argument_group("environments").add_argument
    add("--num-envs", type=int, help="environments played at once")
    add("--env-arg", dest="env_args", **values.PAIR, help="for the environment")
    evaluated = "for that of evaluations, beside and before --env-arg"
    add("--eval-env-arg", dest="eval_env_args", **values.PAIR, help=evaluated)
    wrapping: dict[str, Any] = {"action": values.WrapperFlag, "dest": "wrappers"}
    one, arg = values.wrapper_name, values.pair
    add("--wrapper", **wrapping, type=one, metavar="M:C", help="around each, the outermost last")
    add("--wrapper-arg", **wrapping, type=arg, metavar="K=V", help="for the --wrapper before it")
    mask = "key of the observations' mask of actions, or info, if that has it"
    add("--action-mask", metavar="KEY", help=mask)
    add("--max-episode-steps", type=int, help="cut episodes after as many steps")
    add("--processes", **SWITCH, help="each environment in a process of its own")
    add("--worker-timeout", type=float, help="seconds such a process may be silent")
    add("--restart-workers", type=int, help="replace as many that die or hang, in all")


def add_network_flags(parser: Parser) -> None:
    """Add which network there is, and what it sees."""
    add = parser.add_argument_group("network").add_argument
    add("--network", help="mlp, cnn, rnn, lstm, gru, attention, seq2seq, ..., or module:Class")
    add("--network-arg", dest="network_args", **values.PAIR, help="for the network")
    whether: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": False}
    add("--normalize-obs", **whether, help="its observations, by running mean and spread")


def add_table_flags(parser: Parser) -> None:
    """Add how tables see real numbers."""
    add = parser.add_argument_group("tables on real numbers").add_argument
    add("--bins", type=int, help="cut each real dimension into as many equal widths")
    ranges = {**values.PAIR, "type": values.dimension_range, "metavar": "D=LOW:HIGH"}
    add("--bin-range", **ranges, help="of dimension D")
    add("--tiles", type=int, help="tile coding with as many tilings")


def add_source_flags(parser: Parser) -> None:
    """Add recorded episodes, and a run to begin from."""
    add = parser.add_argument_group("what was learned or recorded before").add_argument
    begun = "begin from a run's weights, in its environment and with its network unless typed; none"
    add("--from", type=values.run_or_none, metavar="RUN", help=begun)
    recorded = "learn from recorded episodes: a folder or an id of Minari's; repeatable"
    add("--dataset", **repeatable(str), metavar="D", help=recorded)
    add("--best-share", type=float, help="from that share of them, of the highest returns")
    seen = "return: the network also sees the return still wanted, and plays for the one asked for"
    add("--condition-on", choices=("return",), help=seen)
    wanted = "that evaluations ask for; the best recorded if left out"
    add("--target-return", type=float, help=wanted)


def add_evaluation_flags(parser: Parser) -> None:
    """Add how often there are evaluations, and what they end."""
    add = parser.add_argument_group("evaluations").add_argument
    every = (
        "evaluate every so many env steps; auto: some 20 times, in 5 %% of the run's time; 0: not"
    )
    add("--eval-every", type=values.whole_or_auto, metavar="N", help=every)
    episodes = "greedy episodes an evaluation, 0 for none; 100 if left out, fewer in a short run"
    add("--eval-episodes", type=int, help=episodes)
    add("--stop-at", type=float, help="end the run when an evaluation's mean return reaches this")
    add("--patience", type=int, help="end it after as many evaluations without a better one")
    drawn = "draw nothing for TensorBoard at evaluations"
    add("--no-pictures", dest="pictures", **LEFT_OUT, help=drawn)


def add_folder_flags(parser: Parser) -> None:
    """Add where a run is kept, and how it goes on."""
    add = parser.add_argument_group("the run's folder").add_argument
    add("--logdir", default="runs", help="runs go to LOGDIR/ENV/AGENT,SETTINGS/seed-N")
    add("--run-dir", help="the run's folder outright, new or empty")
    add("--checkpoint-every", type=int, help="save the run every so many env steps")
    add("--resume", metavar="RUN", help="go on with an interrupted run; it knows its own flags")
    add("--search-trial", help=argparse.SUPPRESS)  # set by `seqrl search` for the runs of a trial


def add_execution_flags(parser: Parser) -> None:
    """Add how the machine is used."""
    add = parser.add_argument_group("execution").add_argument
    threads = (
        "of torch and linear algebra, 1 if left out; of compiled --seeds, one a CPU if left out"
    )
    add("--threads", type=int, help=threads)
    step = "step where compiled turns give the same bits"
    add("--no-compile", dest="compile", **LEFT_OUT, help=step)
    add("--deterministic", **SWITCH, help="only operations of torch that repeat exactly")
