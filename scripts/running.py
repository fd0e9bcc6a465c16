"""Running a run in its folder under signals, with a progress bar, and reporting how it ended."""

from __future__ import annotations

import math
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqrl.scripts.options import print_note
from seqrl.training.loop.evaluation import Evaluation
from seqrl.training.pictures.as_text import draw_policy, verdict
from seqrl.training.runs import folder as runs
from seqrl.training.runs.executor import code_flags
from seqrl.training.runs.parts import build_envs
from seqrl.training.runs.progress import Meter, Progress
from seqrl.training.runs.run_one import Checkpoint, RunUnderWay, Summary

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LEARNED, FEW = 10_000, 50  # env steps after which so few updates from whole episodes are told


def execute(one: RunUnderWay, folder: Path, *, quiet: bool, saved: Checkpoint | None = None) -> int:
    """Train in a locked run folder, from `saved` on; only a second signal saves nothing."""
    with Meter(one.config["steps"], "steps", quiet=quiet) as meter:
        one.begin(folder, [] if quiet else [Progress(meter)], saved)
        with handle_signals(one.interrupt, lambda: setattr(one.loop, "paused", True)) as signals:
            summary = one.finish()
    if not summary.saved:
        again = f"make room, then `seqrl train --resume {folder}`"
        print_note(f"the end of the run is not saved: {again}")
    if not quiet:
        report(one, summary)
    return STATUS[signals[0]] if signals else 0


@contextmanager
def handle_signals(
    interrupt: Callable[[int], bool], pause: Callable[[], object] = lambda: None
) -> Iterator[list[signal.Signals]]:
    """Let Ctrl-C and SIGTERM interrupt and SIGUSR1 pause what goes on; yield what was received.

    `interrupt` is told how many have come, and returns whether to raise KeyboardInterrupt at once.
    """
    received: list[signal.Signals] = []

    def on_stop(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        if interrupt(len(received)):
            raise KeyboardInterrupt

    handlers: dict[int, Any] = {
        signal.SIGUSR1: lambda *_: pause(),
        **dict.fromkeys(STATUS, on_stop),
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def report(one: RunUnderWay, summary: Summary) -> None:
    """Print how the run ended."""
    config, loop, parts = one.config, one.loop, one.parts
    folder, _, evaluation, early_stop, interrupted, _ = summary
    stopped = f"{'stopped after' if interrupted else 'trained for'} {loop.steps:,} env steps"
    spent = f"{loop.books.episodes:,} episodes, {loop.watch.seconds:.1f} s ({loop.path})"
    print(f"{config['agent']} on {config['env']}: {stopped}, {spent}")
    agent: Any = loop.agent
    if config.get("episodes") and loop.steps < config["steps"] // 2 and not interrupted:
        done = f"schedules run over --steps {config['steps']:,}, of which {loop.steps:,} were done"
        print(f"{done}: a smaller --steps would suit these episodes")
    if config["agent"] == "reinforce" and loop.steps >= LEARNED and agent.updates < FEW:
        print(few_updates(loop.books.ep_len_mean, loop.steps, agent.updates))
    if hasattr(agent, "device_reason"):
        print(f"device {agent.device}: {agent.device_reason}")
    if evaluation is not None:
        report_evaluation(one, evaluation)
    if parts.returns is not None:
        print(parts.returns)
    drawn = evaluation is not None or parts.returns is None  # else there may be no environment
    policy = draw_policy(parts.agent, build_envs(config)) if drawn else None
    if policy and not interrupted:
        print(f"\n{policy}\n")
    print(f"saved in  {folder}")
    if interrupted:
        flags = " ".join(map(shlex.quote, [str(folder), *code_flags(config)]))
        print(f"go on:    seqrl train --resume {flags}")
    print(f"see it:   {tensorboard_command(runs.logdir_of(folder, config))}")
    if early_stop:
        print(f"ended early: {early_stop}")


def report_evaluation(one: RunUnderWay, evaluation: Evaluation) -> None:
    """Print the greedy episodes' mean return, and what is known to compare it with."""
    assert one.evaluator is not None
    print(verdict(evaluation, one.evaluator.envs))
    if (played := len(evaluation.returns)) < one.evaluator.episodes:
        whole = f"{played} of {one.evaluator.episodes}, since more would take longer than the run"
        print(f"{whole}; --eval-episodes {one.evaluator.episodes} plays them all")
    if one.parts.reference:
        scores = one.parts.reference.items()
        print("known: " + ", ".join(f"{name} {score:.4g}" for name, score in scores))


def few_updates(length: float, steps: int, updates: int) -> str:
    """Return what helps where hardly an episode has ended; `length` is their mean, or NaN."""
    long = "none has ended" if math.isnan(length) else f"episodes are {length:,.0f} long"
    done = f"{updates} updates in {steps:,} steps; {long}"
    return f"{done}: more environments (--num-envs) or --agent ppo"


def tensorboard_command(logdir: Path) -> str:
    """Return TensorBoard's command for a folder: its name where the shell finds it, else its path.

    To be pasted: what a shell would take apart is quoted.
    """
    path, here = Path(sys.executable).with_name("tensorboard"), Path.cwd()
    own = path.relative_to(here) if path.is_relative_to(here) else path
    command = "tensorboard" if shutil.which("tensorboard") else str(own)
    return f"{shlex.quote(command)} --logdir {shlex.quote(str(logdir))}"
