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
from seqrl.scripts.options import Parser, print_note
from seqrl.scripts.run_name import run_name
from seqrl.scripts.settings import default_settings, expanded, set_defaults
from seqrl.scripts.train_flags import add_flags
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
    from seqrl.training.runs.device_choice import build_new
    from seqrl.training.runs.global_state import one_at_a_time
    from seqrl.training.runs.run_one import RunUnderWay

    with one_at_a_time(config):
        one = RunUnderWay(build_new(config))  # an error here leaves the folder unmade
        name = run_name(typed, parser, config["agent"])
        named = args.logdir, config["env"], name, config["seed"], args.run_dir
        folder = team.of_first("a folder", lambda: runs.new_folder(*named))
        with runs.locked(folder):
            runs.write_config(folder, one.config)
            print_note(note if team.is_first() else "")
            return execute(one, folder, quiet=args.quiet)


def make_parser(argv: Sequence[str]) -> Parser:
    """Return the parser of all flags, those of the agent named in `argv` included."""
    parser = Parser(prog="seqrl train", description="Train an agent on an environment.")
    add_flags(parser)
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
