"""A run in its folder, from its first or its last env step to its end."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrl.core import RunError, UserError

if TYPE_CHECKING:
    from seqrl.scripts.build import Parts
    from seqrl.training import Evaluation, Interaction
    from seqrl.training.evaluation import Evaluator
    from seqrl.training.keeping import Best, Keeper

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
Saved = dict[str, Any]  # a checkpoint


def execute(
    config: dict[str, Any],
    parts: Parts,
    loop: Interaction,
    folder: Path,
    *,
    quiet: bool,
    saved: Saved | None = None,
) -> int:
    """Train in a run folder that is ours, from `saved` on; only a second signal saves nothing."""
    from seqrl.training import folder as runs
    from seqrl.training.keeping import Keeper
    from seqrl.training.progress import Progress
    from seqrl.training.tensorboard import TensorBoard

    logger = TensorBoard(folder)
    keeper = Keeper(folder, logger, config, every=config.get("checkpoint_every"))
    evaluator, evaluation = parts.evaluator(logger), None
    best = best_of(config, evaluator, keeper.save_best)
    bars = [] if quiet else Progress.on_terminal(config["steps"])
    loop.recorder = logger
    loop.callbacks += [evaluator, best] if evaluator and best else []
    loop.callbacks += [keeper, *bars]
    logger.begin(loop, config["steps"])
    if saved is None:
        logger.describe(config)
    else:
        restore(keeper, loop, saved)
        wanted = config.get("episodes")
        loop.stopped = bool(best and best.ended) or bool(wanted and loop.episodes >= wanted)
    with stopping(loop, evaluator) as signals:
        problem, _ = attempt(lambda: finish(loop, config, keeper.save))
        for bar in bars:
            bar.close()
        if len(signals) < 2:  # the second one ends the loop in the middle of a turn
            keeper.save(loop)
        if evaluator and not (problem or signals):
            problem, evaluation = attempt(lambda: evaluator.final(loop))
    logger.text("path", loop.path)
    logger.close(success=not (problem or signals))
    if problem is not None:
        raise RunError(
            f"{because(problem)}; what was learned until then is in {folder}"
        ) from problem
    runs.write_summary(folder, summary(config, loop, evaluation, not signals))
    if not quiet:
        report(config, loop, evaluation, parts, folder, bool(signals))
        if best and best.ended:
            print(f"ended early: {best.ended}")
    return STATUS[signals[0]] if signals else 0


def restore(keeper: Keeper, loop: Interaction, saved: Saved) -> None:
    """Put the run where it was saved; where that cannot be, its files are closed."""
    try:
        keeper.restore(loop, saved)
    except BaseException:
        keeper.logger.close(success=False)
        raise


def best_of(
    config: dict[str, Any], evaluator: Evaluator | None, keep: Callable[[Interaction], None]
) -> Best | None:
    """What looks at each evaluation, where there are any before the end."""
    from seqrl.training.keeping import Best

    if evaluator is None or not config.get("eval_every"):
        return None
    return Best(evaluator, keep, stop_at=config.get("stop_at"), patience=config.get("patience"))


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


def finish(loop: Interaction, config: dict[str, Any], save: Callable[[Interaction], None]) -> None:
    """Run to the end that the config names; a pause is there to save."""
    from seqrl.training import run

    while True:
        run(loop, config["steps"], episodes=config.get("episodes"))
        if not loop.paused:
            return
        loop.paused = False
        save(loop)


@contextmanager
def stopping(loop: Any, evaluator: Evaluator | None) -> Iterator[list[signal.Signals]]:
    """Let Ctrl-C and SIGTERM end the loop after this turn, SIGUSR1 have it saved there.

    What takes long ends at once.
    """
    received: list[signal.Signals] = []

    def stop(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        loop.stopped = True
        waiting = getattr(loop, "preparing", False) or getattr(evaluator, "playing", False)
        if len(received) > 1 or waiting:
            raise KeyboardInterrupt

    def pause(number: int, frame: object) -> None:
        loop.paused = True

    handlers = {signal.SIGUSR1: pause, **dict.fromkeys(STATUS, stop)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summary(
    config: dict[str, Any], loop: Interaction, evaluation: Evaluation | None, finished: bool
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
        "finished": finished,
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
    from seqrl.scripts.build import build_envs
    from seqrl.scripts.show import draw_policy, verdict

    stopped = "stopped after" if interrupted else "trained for"
    print(
        f"{config['agent']} on {config['env']}: {stopped} {loop.steps:,} env steps, "
        f"{loop.episodes:,} episodes, {loop.watch.seconds:.1f} s ({loop.path})"
    )
    agent: Any = loop.agent
    if config.get("episodes") and loop.steps < config["steps"] // 2 and not interrupted:
        print(
            f"schedules run over --steps {config['steps']:,}, of which {loop.steps:,} were done: "
            "a smaller --steps would suit these episodes"
        )
    if hasattr(agent, "device_reason"):
        print(f"device {agent.device}: {agent.device_reason}")
    if evaluation is not None:
        print(verdict(evaluation))
        if parts.reference:
            print("known: " + ", ".join(f"{name} {x:.4g}" for name, x in parts.reference.items()))
    drawn = draw_policy(parts.agent, build_envs(config))
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
