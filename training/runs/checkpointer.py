"""The callback that saves a run under way and restores it from a checkpoint."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from seqrl.core import schema, team
from seqrl.envs.state import why_unkept
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs
from seqrl.training.runs.global_state import global_random_state, set_global_random_state
from seqrl.training.runs.saved_run import CHECKPOINT_SCHEMA, SCHEMA_VERSION, differences
from seqrl.training.runs.tensorboard import NoLog, TensorBoard

LOG = logging.getLogger("seqrl")
KEPT = 3  # checkpoints, besides the best
TIME_SHARE = 0.01  # of a run's time that saves may take where no interval was given
FIRST_COST = 0.01  # seconds a save is taken to cost before the first is measured
SAVES = 100  # a run, at most, where no interval was given


class Checkpointer(Callback):
    """A callback that saves the whole run; the newest three checkpoints are kept.

    `every` counts env steps; by default the run is saved up to a hundred times, in at most 1 % of
    its time. Call it after the other callbacks.
    """

    def __init__(
        self,
        folder: Path,
        logger: TensorBoard | NoLog,
        config: dict[str, Any],
        *,
        every: int | None = None,
    ):
        self.folder, self.logger = folder, logger
        self.config = runs.as_stored(config)
        self.automatic = every is None
        self.every = every or max(1, config["steps"] // SAVES)
        self._began, self._spent, self._cost = time.perf_counter(), 0.0, FIRST_COST
        self.failing = False  # the last one could not be written

    def __call__(self, loop: Interaction) -> None:
        """Save, unless that exceeds the share of time."""
        if not self.automatic or team.of_first("a checkpoint", self._has_room):
            self.save(loop)

    def _has_room(self) -> bool:
        """Return whether a save would stay in the share of time."""
        elapsed = time.perf_counter() - self._began
        return self._spent + self._cost <= TIME_SHARE * elapsed

    def announce(self, loop: Interaction) -> None:
        """Say what no checkpoint of the run will hold, before it begins."""
        reason = why_unkept(loop.envs)
        if reason:
            what = "the environments' state cannot be kept, so a resumed run begins new episodes"
            LOG.warning("seqrl: %s; get_state() and set_state(state) mend it (%s)", what, reason)

    def save(self, loop: Interaction) -> None:
        """Write a checkpoint, and remove all but the newest KEPT."""
        began = time.perf_counter()
        if self._write(loop):
            self._cost = time.perf_counter() - began
            self._spent += self._cost

    def save_best(self, loop: Interaction) -> None:
        """Write the checkpoint of the best evaluation so far."""
        self._write(loop, best=True)

    def _write(self, loop: Interaction, *, best: bool = False) -> bool:
        """Write a checkpoint; return whether it was possible. A full disk is logged once."""
        try:
            state = self._state(loop)  # of a run of several processes by all
            if not team.is_first():
                return True
            path = runs.checkpoint_path(self.folder, loop.steps)
            checkpoint.save(runs.best_path(self.folder) if best else path, state)
            for path in runs.checkpoints(self.folder)[KEPT:]:
                path.unlink()
        except OSError as error:
            if not self.failing:
                LOG.warning("seqrl: no checkpoint could be written: %s; going on", error.strerror)
            self.failing = True
            return False
        self.failing = False
        return True

    def _state(self, loop: Interaction) -> dict[str, Any]:
        played = loop.state_dict()  # first, as nothing may come between what processes exchange
        return {
            "schema": SCHEMA_VERSION,
            "config": self.config,
            "versions": runs.versions(),
            "seconds": loop.watch.seconds,
            "log": self.logger.state_dict(),
            "random": global_random_state(),
            "loop": played,
        }

    def restore(self, loop: Interaction, saved: dict[str, Any]) -> None:
        """Restore the loop, its log and the global random state from a checkpoint."""
        schema.check("checkpoint", saved, CHECKPOINT_SCHEMA)
        if saved["versions"] != runs.versions():
            other = differences(runs.versions(), saved["versions"])
            text = "seqrl: the checkpoint was written with other versions: %s; "
            LOG.warning(text + "from here on the bits may differ", other)
        loop.load_state_dict(saved["loop"])
        with schema.loading("random"):
            set_global_random_state(saved["random"])
        loop.watch.add(saved["seconds"])
        team.in_first("a log", lambda: self._go_back(saved["log"], loop.steps))

    def _go_back(self, log: dict[str, Any] | None, steps: int) -> None:
        """Cut off what was logged after an env step; remove later checkpoints, damaged or not."""
        if log is not None:
            with schema.loading("log"):
                self.logger.resume(log, steps)
        for path in runs.checkpoints(self.folder):
            if path > runs.checkpoint_path(self.folder, steps):
                path.unlink()
