"""Running a run in its folder from the start or a checkpoint to its end, and reporting it."""

from __future__ import annotations

import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from seqrl.core.errors import RunError, UserError, explain
from seqrl.scripts.options import print_note
from seqrl.scripts.show import draw_policy, verdict
from seqrl.training.loop.evaluation import Evaluation, Evaluator
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.train import results, run_to
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs
from seqrl.training.runs.checkpointer import Checkpointer
from seqrl.training.runs.early_stopping import EarlyStopping
from seqrl.training.runs.parts import RunParts, build_envs
from seqrl.training.runs.progress import Progress
from seqrl.training.runs.tensorboard import TensorBoard

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LEARNED, FEW = 10_000, 50  # env steps after which so few updates from whole episodes are told
Checkpoint = dict[str, Any]


def execute(
    config: dict[str, Any],
    parts: RunParts,
    loop: Interaction,
    folder: Path,
    *,
    quiet: bool,
    saved: Checkpoint | None = None,
) -> int:
    """Train in a locked run folder, from `saved` on; only a second signal saves nothing."""
    logger = TensorBoard(folder, append=saved is not None)
    checkpointer = Checkpointer(folder, logger, config, every=config.get("checkpoint_every"))
    evaluator, evaluation = parts.evaluator(logger), None
    early_stopping = None
    if evaluator and config.get("eval_every"):
        limits = {name: config.get(name) for name in ("stop_at", "patience")}
        early_stopping = EarlyStopping(evaluator, checkpointer.save_best, **limits)
        loop.callbacks += [evaluator, early_stopping]
    bars = [Progress(config["steps"])] if sys.stderr.isatty() and not quiet else []
    loop.recorder = logger
    loop.callbacks += [checkpointer, *bars]
    logger.begin(loop, config["steps"])
    if saved is None:
        logger.describe(config)
        checkpointer.announce(loop)
    else:
        restore(checkpointer, loop, saved)
        loop.books.wanted = config.get("episodes")
        loop.stopped = loop.books.enough or bool(early_stopping and early_stopping.reason)
    with handle_signals(loop, evaluator) as signals:
        problem, _ = attempt(finish, loop, config, checkpointer.save)
        for bar in bars:
            bar.bar.close()
        if len(signals) < 2:  # the second one may end the loop in the middle of a turn
            checkpointer.save(loop)
        if evaluator and not (problem or signals):
            problem, evaluation = attempt(evaluator.final, loop)
    logger.text("path", loop.path)
    logger.close(success=not (problem or signals))
    if problem is not None:
        fail(problem, f"what was learned until then is in {folder}")
    write_end(folder, summary(config, loop, evaluation, not signals), checkpointer)
    if not quiet:
        report(config, loop, evaluation, parts, folder, bool(signals))
        if early_stopping and early_stopping.reason:
            print(f"ended early: {early_stopping.reason}")
    return STATUS[signals[0]] if signals else 0


def write_end(folder: Path, summary: dict[str, Any], checkpointer: Checkpointer) -> None:
    """Write summary.json, which marks a run as finished, unless its end could not be saved."""
    try:
        if not checkpointer.failing:
            return runs.write_summary(folder, summary)
    except OSError:
        pass
    print_note(f"the end of the run is not saved: make room, then `seqrl train --resume {folder}`")


def restore(checkpointer: Checkpointer, loop: Interaction, saved: Checkpoint) -> None:
    """Restore a run from a checkpoint; close its log if that fails."""
    try:
        checkpointer.restore(loop, saved)
    except BaseException:
        checkpointer.logger.close(success=False)
        raise


def fail(problem: Exception, kept: str) -> NoReturn:
    """Raise what ended a run as a RunError in one line, which says what was kept."""
    text = str(problem) if isinstance(problem, UserError) else explain(problem)
    raise RunError(f"{text}; {kept}") from problem


def attempt(action: Callable[..., Any], *args: Any) -> tuple[Exception | None, Any]:
    """Return the exception of an action and its result; a second Ctrl-C gives neither."""
    try:
        return None, action(*args)
    except KeyboardInterrupt:
        return None, None
    except Exception as error:
        return error, None


def finish(loop: Interaction, config: dict[str, Any], save: Callable[[Interaction], None]) -> None:
    """Run to the end that the config names, and save at each pause."""
    while True:
        run_to(loop, config["steps"], episodes=config.get("episodes"))
        if not loop.paused:
            return
        loop.paused = False
        save(loop)


@contextmanager
def handle_signals(loop: Any, evaluator: Evaluator | None) -> Iterator[list[signal.Signals]]:
    """Let Ctrl-C and SIGTERM end the loop after this turn, and SIGUSR1 save it there.

    Compiling and evaluations are interrupted at once.
    """
    received: list[signal.Signals] = []

    def stop(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        loop.stopped = True
        interruptible = getattr(loop, "preparing", False) or getattr(evaluator, "playing", False)
        if len(received) > 1 or interruptible:
            raise KeyboardInterrupt

    def pause(number: int, frame: object) -> None:
        loop.paused = True

    handlers = {signal.SIGUSR1: pause, **dict.fromkeys(STATUS, stop)}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def summary(
    config: dict[str, Any], loop: Interaction, evaluation: Evaluation | None, finished: bool
) -> dict[str, Any]:
    """Return the contents of summary.json."""
    return {
        **{name: config[name] for name in ("agent", "env", "seed")},
        **results(loop),
        "eval_mean_reward": None if evaluation is None else evaluation.mean,
        "finished": finished,
        "compiled": loop.compiled,
        "path": loop.path,
        "device": str(loop.agent.device),
        "versions": runs.versions(),
        "digest": checkpoint.digest(loop.fingerprint()),
    }


def report(
    config: dict[str, Any],
    loop: Interaction,
    evaluation: Evaluation | None,
    parts: RunParts,
    folder: Path,
    interrupted: bool,
) -> None:
    """Print how the run ended."""
    stopped = f"{'stopped after' if interrupted else 'trained for'} {loop.steps:,} env steps"
    spent = f"{loop.books.episodes:,} episodes, {loop.watch.seconds:.1f} s ({loop.path})"
    print(f"{config['agent']} on {config['env']}: {stopped}, {spent}")
    agent: Any = loop.agent
    if config.get("episodes") and loop.steps < config["steps"] // 2 and not interrupted:
        done = f"schedules run over --steps {config['steps']:,}, of which {loop.steps:,} were done"
        print(f"{done}: a smaller --steps would suit these episodes")
    if config["agent"] == "reinforce" and loop.steps >= LEARNED and agent.updates < FEW:
        print(few_updates(loop, agent.updates))
    if hasattr(agent, "device_reason"):
        print(f"device {agent.device}: {agent.device_reason}")
    if evaluation is not None:
        print(verdict(evaluation))
        if parts.reference:
            print("known: " + ", ".join(f"{name} {x:.4g}" for name, x in parts.reference.items()))
    policy = draw_policy(parts.agent, build_envs(config))
    if policy and not interrupted:
        print(f"\n{policy}\n")
    print(f"saved in  {folder}")
    print(f"see it:   {tensorboard_command()} --logdir {logdir_of(folder, config)}")


def few_updates(loop: Interaction, updates: int) -> str:
    """Return what helps where hardly an episode has ended."""
    length = loop.books.ep_len_mean
    long = "none has ended" if math.isnan(length) else f"episodes are {length:,.0f} long"
    done = f"{updates} updates in {loop.steps:,} steps; {long}"
    return f"{done}: more environments (--num-envs) or --agent ppo"


def logdir_of(folder: Path, config: dict[str, Any]) -> Path:
    """Return the folder for TensorBoard: that of all runs if the run is among them."""
    in_logdir = folder.parent.name == runs.plain_name(config["agent"])
    return folder.parents[2] if in_logdir else folder


def tensorboard_command() -> str:
    """Return the command of TensorBoard: its name where the shell finds it, else its path."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    path = Path(sys.executable).with_name("tensorboard")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
