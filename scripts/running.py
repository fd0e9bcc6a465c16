"""Running a run in its folder under signals, with a progress bar, and reporting how it ended."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqrl.core import team
from seqrl.core.errors import counted
from seqrl.scripts.options import print_note
from seqrl.training.engines.executor import code_flags
from seqrl.training.loop.evaluation import Evaluation
from seqrl.training.loop.protocol import Callback
from seqrl.training.pictures.as_text import draw_policy, verdict
from seqrl.training.runs import folder as runs
from seqrl.training.runs.parts import build_envs
from seqrl.training.runs.progress import Meter, Progress
from seqrl.training.runs.run_one import Checkpoint, RunUnderWay, Summary
from seqrl.training.runs.tensorboard import command

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def execute(
    one: RunUnderWay,
    folder: Path,
    *,
    quiet: bool,
    saved: Checkpoint | None = None,
    callbacks: Sequence[Callback] = (),
) -> int:
    """Train in a locked run folder, from `saved` on; only a second signal saves nothing."""
    shown = team.is_first() and not quiet
    with Meter(one.config["steps"], "steps", quiet=not shown) as meter:
        one.begin(folder, [*callbacks, *([] if quiet else [Progress(meter)])], saved)
        with handle_signals(one.interrupt, lambda: setattr(one.loop, "paused", True)) as signals:
            summary = one.finish()
    if not summary.saved:
        again = f"make room, then `seqrl train --resume {folder}`"
        print_note(f"the end of the run is not saved: {again}")
    if shown:
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
    folder, _, evaluation, early_stop, interrupted, *_ = summary
    done = counted(loop.steps, "env step")
    stopped = f"{'stopped after' if interrupted else 'trained for'} {done}"
    spent = f"{counted(loop.books.episodes, 'episode')}, {loop.watch.seconds:.1f} s ({loop.path})"
    print(f"{config['agent']} on {config['env']}: {stopped}, {spent}")
    print(*(f"{remark}\n" for remark in summary.remarks), sep="", end="")
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
    print(f"see it:   {command(runs.logdir_of(folder, config))}")
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
