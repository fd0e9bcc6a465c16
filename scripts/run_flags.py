"""The flags of the commands that load a run: which, with what code of the user's, how it plays."""

from __future__ import annotations

import argparse
from typing import Any

from seqrl.scripts.options import Parser, check_minimum, repeatable
from seqrl.scripts.values import pair


def add_run_flags(parser: Parser) -> None:
    """Add the arguments that name a run, which of its agents, and once more any code it has."""
    add = parser.add_argument
    add("run", help="a run's folder")
    add("--agent", help="module:Class once more, where the run's agent is code of yours")
    add("--env", help="module:Id-v0 once more, where the run's environment is code of yours")
    add("--network", help="module:Class once more, where the run's network is code of yours")
    again = "module:Class once more, where a wrapper of the run is code of yours"
    add("--wrapper", action="append", default=[], metavar="M:C", help=again)
    mine = "for the environment, in the place of the run's; module:function once more"
    add("--env-arg", **repeatable(pair), metavar="K=V", help=mine)
    add("--best", action="store_true", help="the agent of the best evaluation, not the last one")


def named_again(args: argparse.Namespace) -> dict[str, Any]:
    """Return the code of the user's that was named, and arguments of the environment."""
    from seqrl.training.runs.load import CODE

    code = {name: getattr(args, name) for name in CODE}
    return {**code, "wrappers": args.wrapper, "env_args": dict(args.env_arg)}


def add_play_flags(parser: Parser, episodes: int) -> None:
    """Add how many episodes are played, `episodes` by default, and how."""
    add = parser.add_argument
    add("--episodes", type=int, default=episodes, help="how many to play")
    add("--seed", type=int, default=0, help="of the environments and of what is drawn")
    add("--max-episode-steps", type=int, default=10_000, help="cut episodes after as many steps")
    wanted = "that is asked for, of a run with --condition-on return"
    add("--target-return", type=float, help=wanted)


def check_play_flags(args: argparse.Namespace) -> None:
    """Refuse numbers that nothing can be played by."""
    check_minimum(args, {"episodes": 1, "seed": 0, "max_episode_steps": 1})
