"""Train an agent: `seqrl train --agent q-learning --env FrozenLake-v1 --steps 300000`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seqrl.scripts import options
from seqrl.scripts.options import Parser
from seqrl.scripts.settings import set_defaults, untyped

if TYPE_CHECKING:
    from seqrl.scripts.build import Parts


def main(argv: Sequence[str] | None = None) -> int:
    """The script; answers its exit status."""
    return options.guarded(body, argv)


def body(argv: Sequence[str]) -> int:
    """Read, build, train, report."""
    made = parser(argv)
    typed = made.read(argv)
    # what the library says on its own account
    logging.getLogger("seqrl").setLevel(logging.ERROR if typed.quiet else logging.NOTSET)
    if typed.resume is not None:
        from seqrl.scripts.resume import resume

        return resume(typed, argv)
    config = read(typed)
    note = "" if typed.quiet else made.note
    if config["seeds"]:
        from seqrl.scripts.many import train_seeds

        tell(note)
        return train_seeds(config, typed)
    from seqrl.scripts.build import build
    from seqrl.scripts.running import execute
    from seqrl.training import Interaction
    from seqrl.training import folder as runs

    parts = build(config)
    loop = Interaction(parts.agent, parts.envs, compile=config["compile"])
    loop.reset(parts.streams.envs)  # what cannot begin leaves no folder behind
    folder = runs.new_folder(
        typed.logdir, config["env"], config["agent"], config["seed"], typed.run_dir
    )
    with runs.locked(folder):
        runs.write_config(folder, config)
        tell(note)
        warn_without_limit(parts)
        return execute(config, parts, loop, folder, quiet=typed.quiet)


def parser(argv: Sequence[str]) -> Parser:
    """All flags; an agent's own ones where it is named."""
    made = Parser(prog="seqrl train", description="Train an agent on an environment.")
    add = made.add_argument
    add(
        "--agent", default="q-learning", help="see `seqrl list`; --agent NAME --help: its own flags"
    )
    add("--env", default="FrozenLake-v1", help="a Gymnasium id, or module:Id-v0")
    add("--steps", type=int, default=300_000, help="env steps, exactly")
    add("--episodes", type=int, help="stop after as many episodes, if --steps are not done before")
    add("--seed", type=int, default=0, help="fixes everything that is drawn")
    add("--seeds", type=int, default=1, help="train seeds 0 to K-1; their curves become one")
    add("--threads", type=int, help="of --seeds, where runs are compiled; one a CPU if left out")
    add("--num-envs", type=int, default=1, help="environments played at once")
    add("--processes", action="store_true", help="each environment in a process of its own")
    add("--worker-timeout", type=float, default=60.0, help="seconds such a process may be silent")
    add("--restart-workers", type=int, default=0, help="replace as many that die or hang, in all")
    add("--network", help="mlp, cnn, rnn, lstm, gru, attention, frame-stack, or module:Class")
    add("--network-arg", **options.repeated(options.pair), metavar="K=V", help="for the network")
    add("--env-arg", **options.repeated(options.pair), metavar="K=V", help="for the environment")
    add("--max-episode-steps", type=int, help="cut episodes after as many steps")
    add("--bins", type=int, help="cut each real dimension into as many equal widths")
    add(
        "--bin-range",
        **options.repeated(options.bounds),
        metavar="D=LOW:HIGH",
        help="of dimension D",
    )
    add("--tiles", type=int, help="tile coding with as many tilings")
    add("--eval-every", type=int, help="evaluate every so many env steps")
    add("--eval-episodes", type=int, default=100, help="greedy episodes an evaluation, 0 for none")
    add("--stop-at", type=float, help="end the run when an evaluation's mean return reaches this")
    add("--patience", type=int, help="end it after as many evaluations without a better one")
    add("--checkpoint-every", type=int, help="save the run every so many env steps")
    add("--resume", metavar="RUN", help="go on with an interrupted run; it knows its own flags")
    add("--no-compile", action="store_true", help="step where compiled turns give the same bits")
    add("--deterministic", action="store_true", help="only operations of torch that repeat exactly")
    add("--no-pictures", action="store_true", help="draw nothing for TensorBoard at evaluations")
    add("--logdir", default="runs", help="runs go to LOGDIR/ENV/AGENT/seed-N")
    add("--run-dir", help="the run's folder outright, new or empty")
    add("--config", metavar="FILE", help="settings as in a run's config.toml; flags count more")
    add("--preset", metavar="NAME", help="tuned settings; by default this pair's, none for none")
    add("--quiet", action="store_true", help="print nothing but mistakes")
    add("--debug", action="store_true", help="show tracebacks")
    helping = not {"-h", "--help"}.isdisjoint(argv)
    settings, made.note = untyped(argv)
    name = options.wanted(argv, "--agent", settings.get("agent", "" if helping else "q-learning"))
    if name:
        from seqrl.agents.registry import agent_class

        network = bool(options.wanted(argv, "--network", settings.get("network") or ""))
        options.add_agent_flags(made, agent_class(name, network))
    set_defaults(made, settings)
    return made


LEAST = {"steps": 1, "episodes": 1, "num_envs": 1, "max_episode_steps": 1, "seed": 0}
LEAST |= {"eval_every": 1, "eval_episodes": 0, "patience": 1, "checkpoint_every": 1}
LEAST |= {"bins": 1, "tiles": 1, "restart_workers": 0}


def read(typed: argparse.Namespace) -> dict[str, Any]:
    """The config of the run: what config.toml will hold."""
    from seqrl.agents.registry import agent_class

    options.check_least(typed, LEAST | {"seeds": 1, "threads": 1})
    config = {name: getattr(typed, name) for name in ("agent", "env", *LEAST)}
    config["seeds"] = typed.seeds if typed.seeds > 1 else None
    config["processes"] = typed.processes
    config["worker_timeout"] = typed.worker_timeout if typed.processes else None
    config["stop_at"], config["deterministic"] = typed.stop_at, typed.deterministic
    check_early_end(config)
    config["compile"], config["pictures"] = not typed.no_compile, not typed.no_pictures
    config["env_args"] = dict(typed.env_arg)
    config |= network_of(typed)
    config["bin_range"] = {str(d): list(ends) for d, ends in typed.bin_range}
    cls = agent_class(typed.agent, bool(typed.network))
    config["agent_args"] = options.agent_numbers(cls, vars(typed))
    return config


def check_early_end(config: dict[str, Any]) -> None:
    """Refuse an early end that nothing would look for."""
    from seqrl.core import UsageError

    for name in ("stop_at", "patience"):
        if config[name] is not None and not (config["eval_every"] and config["eval_episodes"]):
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: it looks at evaluations; add --eval-every 10000")


def network_of(typed: argparse.Namespace) -> dict[str, Any]:
    """The network of the run; without one what can do with a table has one."""
    from seqrl.agents.registry import AGENTS
    from seqrl.core import UsageError

    if AGENTS[typed.agent].network or typed.network:
        for flag in ("bins", "bin_range", "tiles"):
            if getattr(typed, flag):
                shown = flag.replace("_", "-")
                raise UsageError(f"--{shown}: that is for tables, a network sees what there is")
        return {"network": typed.network or "mlp", "network_args": dict(typed.network_arg)}
    if typed.network_arg:
        raise UsageError(f"--network-arg: {typed.agent} learns a table here; name a --network")
    return {}


def tell(note: str) -> None:
    """A line on stderr, if there is one to say."""
    if note:
        print(f"seqrl: {note}", file=sys.stderr)


def warn_without_limit(parts: Parts) -> None:
    """Say so where an episode may never end."""
    from seqrl.envs import may_never_end

    if may_never_end(parts.envs):
        print(
            "seqrl: this environment has no step limit, an episode may never end; "
            "--max-episode-steps 1000 would cut it",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
