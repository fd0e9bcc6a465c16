"""How far a run is, or many: a bar on a terminal, a plain line now and then in a file or a pipe."""

from __future__ import annotations

import sys
import time
from typing import Any

from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback
from seqrl.training.loop.scalars import driver_of

LEAST, MOST = 10.0, 600.0  # seconds between two lines


class Meter:
    """Shows on stderr how much of a total is done; `quiet` shows nothing.

    A line comes with each tenth of the total but the last, 10 s to 10 minutes after the line before
    or after the first thing done.
    """

    bar: Any = None
    told: float | None = None  # when the last line was due
    tenth = 0  # of the last line

    def __init__(self, total: int, unit: str, *, quiet: bool = False):
        self.total, self.unit, self.quiet = total, unit, quiet
        self.began = time.monotonic()

    def __enter__(self) -> Meter:
        if sys.stderr.isatty() and not self.quiet:
            from tqdm import tqdm

            options: dict[str, Any] = {"leave": False, "file": sys.stderr}
            self.bar = tqdm(total=self.total, unit=f" {self.unit}", unit_scale=True, **options)
        return self

    def __exit__(self, *problem: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, note: str = "") -> None:
        """Show how much is done, and a note beside it."""
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
        elif not self.quiet:
            self._tell(done, note)

    def _tell(self, done: int, note: str) -> None:
        """Print a line where one is due."""
        now, tenth = time.monotonic(), 10 * done // self.total
        if self.told is None:
            self.told = now
        if done < self.total and now - self.told >= (LEAST if tenth > self.tenth else MOST):
            self.tenth, self.told = tenth, now
            share = f"{done:,} of {self.total:,} {self.unit} ({done / self.total:.0%})"
            text = f"seqrl: {share} in {now - self.began:,.0f} s"
            print(f"{text}, {note}" if note else text, file=sys.stderr, flush=True)


class Progress(Callback):
    """A callback that shows the env steps of a run and the mean return."""

    def __init__(self, meter: Meter):
        self.meter, self.every = meter, max(1, meter.total // 500)

    def __call__(self, loop: Interaction) -> None:
        """Show the env steps done and the mean return, which may be a teacher's."""
        whose = "teacher's return" if driver_of(loop) == "teacher" else "return"
        note = f"{whose} {loop.books.ep_rew_mean:.4g}" if loop.books.recent else ""
        self.meter.show(loop.steps, note)
