"""Train an agent: `seqrl train --agent q-learning --env FrozenLake-v1 --steps 300000`."""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrl.core import RunError, UserError
from seqrl.scripts import options
from seqrl.scripts.options import Parser

if TYPE_CHECKING:
    from seqrl.scripts.build import Parts
    from seqrl.training import Evaluation, Interaction
    from seqrl.training.evaluation import Evaluator
    from seqrl.training.many import Many

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def main(argv: Sequence[str] | None = None) -> int:
    """The script; answers its exit status."""
    return options.guarded(body, argv)


def body(argv: Sequence[str]) -> int:
    """Read, build, train, report."""
    typed = parser(argv).read(argv)
    config = read(typed)
    # what the library says on its own account
    logging.getLogger("seqrl").setLevel(logging.ERROR if typed.quiet else logging.NOTSET)
    if config["seeds"]:
        from seqrl.scripts.many import train_seeds

        return train_seeds(config, typed)
    from seqrl.scripts.build import build
    from seqrl.training import Interaction
    from seqrl.training import folder as runs

    parts = build(config)
    loop = Interaction(parts.agent, parts.envs, compile=config["compile"])
    loop.reset(parts.streams.envs)  # what cannot begin leaves no folder behind
    folder = runs.new_folder(
        typed.logdir, config["env"], config["agent"], config["seed"], typed.run_dir
    )
    runs.write_config(folder, config)
    warn_without_limit(parts)
    return execute(config, parts, loop, folder, typed.quiet)


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
    add("--no-compile", action="store_true", help="step where compiled turns give the same bits")
    add("--logdir", default="runs", help="runs go to LOGDIR/ENV/AGENT/seed-N")
    add("--run-dir", help="the run's folder outright, new or empty")
    add("--quiet", action="store_true", help="print nothing but mistakes")
    add("--debug", action="store_true", help="show tracebacks")
    helping = not {"-h", "--help"}.isdisjoint(argv)
    name = options.wanted(argv, "--agent", "" if helping else "q-learning")
    if name:
        from seqrl.agents.registry import agent_class

        options.add_agent_flags(made, agent_class(name))
    return made


LEAST = {"steps": 1, "episodes": 1, "num_envs": 1, "max_episode_steps": 1, "seed": 0}
LEAST |= {"eval_every": 1, "eval_episodes": 0, "bins": 1, "tiles": 1}


def read(typed: argparse.Namespace) -> dict[str, Any]:
    """The config of the run: what config.toml will hold."""
    from seqrl.agents.registry import agent_class

    options.check_least(typed, LEAST | {"seeds": 1, "threads": 1})
    config = {name: getattr(typed, name) for name in ("agent", "env", *LEAST)}
    config["seeds"] = typed.seeds if typed.seeds > 1 else None
    config["compile"] = not typed.no_compile
    config["env_args"] = dict(typed.env_arg)
    config |= network_of(typed)
    config["bin_range"] = {str(d): list(ends) for d, ends in typed.bin_range}
    config["agent_args"] = options.agent_numbers(agent_class(typed.agent), vars(typed))
    return config


def network_of(typed: argparse.Namespace) -> dict[str, Any]:
    """The network of the run; refused for an agent on a table."""
    from seqrl.agents.registry import AGENTS

    if AGENTS[typed.agent].network:
        return {"network": typed.network or "mlp", "network_args": dict(typed.network_arg)}
    from seqrl.core import UsageError

    if typed.network or typed.network_arg:
        able = ", ".join(name for name, entry in AGENTS.items() if entry.network)
        raise UsageError(f"--network: {typed.agent} learns a table; agents with a network: {able}")
    return {}


def warn_without_limit(parts: Parts) -> None:
    """Say so where an episode may never end."""
    from seqrl.envs import may_never_end

    if may_never_end(parts.envs):
        print(
            "seqrl: this environment has no step limit, an episode may never end; "
            "--max-episode-steps 1000 would cut it",
            file=sys.stderr,
        )


def execute(
    config: dict[str, Any], parts: Parts, loop: Interaction, folder: Path, quiet: bool
) -> int:
    """Train in a run folder that has been made; whatever happens, what was learned is saved."""
    from seqrl.training import checkpoint
    from seqrl.training import folder as runs
    from seqrl.training.progress import Progress
    from seqrl.training.tensorboard import TensorBoard

    logger = TensorBoard(folder)
    logger.describe(config)
    loop.recorder = logger
    evaluator, evaluation = parts.evaluator(logger), None
    bars = [] if quiet else Progress.on_terminal(config["steps"])
    loop.callbacks += [evaluator] if evaluator and config["eval_every"] else []
    loop.callbacks += bars
    with stopping(loop, evaluator) as signals:
        problem, _ = attempt(lambda: finish(loop, config, logger))
        for bar in bars:
            bar.close()
        checkpoint.save(runs.checkpoint_path(folder, loop.steps), loop.state_dict())
        if evaluator and not (problem or signals):
            problem, evaluation = attempt(lambda: evaluator.final(loop))
    logger.text("path", loop.path)
    logger.close(success=not (problem or signals))
    if problem is not None:
        raise RunError(
            f"{because(problem)}; what was learned until then is in {folder}"
        ) from problem
    runs.write_summary(folder, summary(config, loop, evaluation))
    if not quiet:
        report(config, loop, evaluation, parts, folder, bool(signals))
    return STATUS[signals[0]] if signals else 0


def because(problem: Exception) -> str:
    """A problem in one line."""
    from seqrl.core import explain

    return str(problem) if isinstance(problem, UserError) else explain(problem)


def attempt(action: Callable[[], Any]) -> tuple[Exception | None, Any]:
    """What went wrong with an action, and what it answers; the second Ctrl-C only ends it."""
    try:
        return None, action()
    except KeyboardInterrupt:
        return None, None
    except Exception as error:
        return error, None


def finish(loop: Interaction, config: dict[str, Any], logger: Any) -> None:
    """Run to the end that the config names."""
    from seqrl.training import run

    run(loop, config["steps"], logger, episodes=config["episodes"])


@contextmanager
def stopping(
    loop: Interaction | Many, evaluator: Evaluator | None
) -> Iterator[list[signal.Signals]]:
    """Let Ctrl-C and SIGTERM end the run after this turn; what takes long ends at once."""
    received: list[signal.Signals] = []

    def stop(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        loop.stopped = True
        waiting = getattr(loop, "preparing", False) or getattr(evaluator, "playing", False)
        if len(received) > 1 or waiting:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STATUS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summary(
    config: dict[str, Any], loop: Interaction, evaluation: Evaluation | None
) -> dict[str, Any]:
    """What summary.json holds."""
    from seqrl.training import checkpoint, results
    from seqrl.training import folder as runs

    return {
        "agent": config["agent"],
        "env": config["env"],
        "seed": config["seed"],
        **results(loop),
        "eval_mean_reward": None if evaluation is None else evaluation.mean,
        "compiled": loop.compiled,
        "path": loop.path,
        "device": str(getattr(loop.agent, "device", "cpu")),
        "versions": runs.versions(),
        "digest": checkpoint.digest(loop.fingerprint()),
    }


def report(
    config: dict[str, Any],
    loop: Interaction,
    evaluation: Evaluation | None,
    parts: Parts,
    folder: Path,
    interrupted: bool,
) -> None:
    """The end of a run, for a person."""
    from seqrl.scripts.show import draw_policy, verdict

    stopped = "stopped after" if interrupted else "trained for"
    print(
        f"{config['agent']} on {config['env']}: {stopped} {loop.steps:,} env steps, "
        f"{loop.episodes:,} episodes, {loop.watch.seconds:.1f} s ({loop.path})"
    )
    agent: Any = loop.agent
    if hasattr(agent, "device_reason"):
        print(f"device {agent.device}: {agent.device_reason}")
    if evaluation is not None:
        print(verdict(evaluation))
        if parts.reference:
            print("known: " + ", ".join(f"{name} {x:.4g}" for name, x in parts.reference.items()))
    drawn = draw_policy(parts.agent, parts.envs)
    if drawn and not interrupted:
        print(f"\n{drawn}\n")
    print(f"saved in  {folder}")
    print(f"see it:   {tensorboard_command()} --logdir {logdir_of(folder, config)}")


def logdir_of(folder: Path, config: dict[str, Any]) -> Path:
    """What TensorBoard should look at: all runs where the folder is one among them."""
    from seqrl.training.folder import plain_name

    among = folder.parent.name == plain_name(config["agent"])
    return folder.parents[2] if among else folder


def tensorboard_command() -> str:
    """What to type to start TensorBoard: its name where the shell finds it, else its path."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    path = Path(sys.executable).with_name("tensorboard")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    sys.exit(main())
