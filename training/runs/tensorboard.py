"""Logging a run for TensorBoard: an event file, with `episodes.csv` beside it.

Written without torch, record by record into files of our own, so that a resumed run can truncate
both to where its checkpoint was, and a full disk does not end a run.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary

from seqrl.core.errors import UsageError
from seqrl.training.loop.books import Episode
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.scalars import next_due, point
from seqrl.training.runs.episodes_csv import THINNED, EpisodesCsv
from seqrl.training.runs.event_file import record, text_summary
from seqrl.training.runs.folder import make_numbered_folder
from seqrl.training.runs.growing_file import GrowingFile
from seqrl.training.runs.hparams import (
    Setting,
    flatten,
    hyperparameters,
    session_end,
    session_start,
)

LOG = logging.getLogger("seqrl")
POINTS = 1000  # at most, a tag


class TensorBoard:
    """Writes a run's curves to `folder`; x is always env steps.

    A point is taken at the first episode end after each thousandth of the run, and `flush` makes
    everything until then visible to a TensorBoard that is open. Where `folder` holds the log of a
    run already, this one's is in a new folder beside it, unless `append` is set to `resume` it.
    """

    def __init__(self, folder: str | Path, *, append: bool = False):
        self.folder = Path(folder) if append else log_folder(Path(folder))
        self._file = GrowingFile(new_event_file(self.folder))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.csv = EpisodesCsv(self.folder)
        self._spacing, self.due = 1, 0
        self._last = (0, 0.0)  # env step and seconds of the last point

    def begin(self, loop: Interaction, steps: int) -> None:
        """Space the points over a run that ends at `steps` env steps; refuse a second run."""
        if loop.steps < self._last[0]:
            found = f"it has points up to env step {self._last[0]:,}"
            remedy = f"give the run that begins at {loop.steps:,} a TensorBoard of its own"
            raise UsageError(f"logger {self.folder}: {found}; {remedy}")
        self._spacing = max(1, -(-steps // POINTS))  # rounded up
        self.due = next_due(loop.steps, self._spacing)
        self._last = (loop.steps, loop.watch.seconds)

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """Write a row to episodes.csv, and a point where one is due."""
        self._write_rows([episode.step], [episode.total], [episode.length])
        if episode.step >= self.due:
            self.due = next_due(episode.step, self._spacing)
            self.scalars(episode.step, point(loop, episode, self._last))
            self._last = (episode.step, loop.watch.seconds)

    def episodes(self, steps: np.ndarray, totals: np.ndarray, lengths: np.ndarray) -> None:
        """Write rows to episodes.csv for episodes that ended before the next point is due."""
        self._write_rows(steps.tolist(), totals.tolist(), lengths.tolist())

    def _write_rows(self, steps: list[int], totals: list[float], lengths: list[int]) -> None:
        thinned = self.csv.thinned
        self.csv.write(steps, totals, lengths)
        if self.csv.thinned and not thinned:
            self.text("episodes.csv", THINNED)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point of each tag at env step `step`."""
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._summary(Summary(value=points), step)
        self.flush()

    def image(self, step: int, tag: str, data: bytes, width: int, height: int) -> None:
        """Write a picture (PNG or GIF) under IMAGES at env step `step`."""
        picture = Summary.Image(width=width, height=height, encoded_image_string=data)
        self._summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)

    def describe(
        self, config: Mapping[str, Any], compared: Mapping[str, Setting] | None = None
    ) -> None:
        """Write the run's config as a table under TEXT, and a row under HPARAMS.

        The row has the settings `compared`, by default all that may be hyper-parameters.
        """
        flat = dict(flatten(config))
        rows = [f"| {name} | {str(value).replace('|', '&#124;')} |" for name, value in flat.items()]
        self.text("config", "\n".join(["| setting | value |", "| --- | --- |", *rows]))
        # the columns are TensorBoard's: a list in each run would hide what only others have
        self._summary(session_start(hyperparameters(config) if compared is None else compared), 0)
        self.flush()

    def text(self, tag: str, markdown: str) -> None:
        """Write Markdown under TEXT."""
        self._summary(text_summary(tag, markdown), 0)

    def flush(self) -> None:
        """Flush the event file and episodes.csv."""
        self._file.flush()
        self.csv.file.flush()

    def state_dict(self) -> dict[str, Any]:
        """Sync the files; return their sizes, what waits for room, and where a point is due."""
        synced = {name: file.sync() for name, file in self._growing().items()}
        return {
            "waiting": {name: np.frombuffer(rest, np.uint8) for name, rest in synced.items()},
            "files": {path.name: path.stat().st_size for path in log_files(self.folder)},
            "_rows": self.csv.episodes,
            **{name: getattr(self, name) for name in POSITION},
        }

    def _growing(self) -> dict[str, GrowingFile]:
        return {"events": self._file, "csv": self.csv.file}

    def resume(self, state: dict[str, Any], step: int) -> None:
        """Truncate the files to where `state` was taken, at env step `step`, and continue there.

        An open TensorBoard drops later points, by its protocol of SessionLog.START.
        """
        self.flush()
        sizes = state["files"]
        for path in log_files(self.folder):
            if path.name in sizes:
                truncate(path, sizes[path.name])
            elif path.name != self._file.path.name:
                path.unlink()
        for name, rest in state.get("waiting", {}).items():  # absent in older checkpoints
            self._growing()[name].write(rest.tobytes())
        for name in POSITION:
            setattr(self, name, state[name])
        self.csv.episodes = state["_rows"]
        restart = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=restart))
        self.flush()

    def close(self, success: bool = True) -> None:
        """End the run's row under HPARAMS and close the files."""
        self._summary(session_end(success), 0)
        self._file.close()
        self.csv.file.close()

    def _summary(self, summary: Summary, step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        self._file.write(record(event))


class NoLog:
    """In place of a TensorBoard in those processes of a run that write nothing."""

    def begin(self, loop: Interaction, steps: int) -> None:
        """Write nothing."""

    def describe(self, *args: Any) -> None:
        """Write nothing."""

    def text(self, tag: str, markdown: str) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Write nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def resume(self, state: dict[str, Any], step: int) -> None:
        """Write nothing."""

    def close(self, success: bool = True) -> None:
        """Write nothing."""


POSITION = ("_spacing", "due", "_last")  # attributes that decide when the next point is due


def log_files(folder: Path) -> list[Path]:
    """Return the files of a run that grow: every event file and episodes.csv."""
    return [*sorted(folder.glob("events.out.tfevents.*")), *folder.glob("episodes.csv")]


def log_folder(folder: Path) -> Path:
    """Make a folder for a log, numbered as new runs' are where it holds one; that is logged."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not log_files(folder):
            return folder
        place = folder.resolve()
        new = make_numbered_folder(place.parent, place.name)
    except OSError as error:
        raise UsageError(f"log folder {error.filename or folder}: {error.strerror}") from error
    LOG.warning("seqrl: %s holds the log of another run: that of this one is %s", folder, new)
    return new


def new_event_file(folder: Path) -> Path:
    """Return the path of a new event file, which sorts after those that exist."""
    stamps = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    stamp = max([int(time.time()), *(stamp + 1 for stamp in stamps)])
    return folder / f"events.out.tfevents.{stamp}.{socket.gethostname()}.seqrl"


def truncate(path: Path, size: int) -> None:
    """Truncate a file to a size; raise UsageError if it is shorter."""
    found = path.stat().st_size
    if found < size:
        sizes = f"{found:,} bytes, {size:,} when the checkpoint was written"
        raise UsageError(f"{path} has {sizes}: rows are missing; put the file back")
    os.truncate(path, size)


def command(logdir: Path) -> str:
    """Return the command that shows a folder in TensorBoard, to be pasted in a shell.

    TensorBoard is named where the shell finds it, else by its path.
    """
    path, here = Path(sys.executable).with_name("tensorboard"), Path.cwd()
    own = path.relative_to(here) if path.is_relative_to(here) else path
    shell = "tensorboard" if shutil.which("tensorboard") else str(own)
    return f"{shlex.quote(shell)} --logdir {shlex.quote(str(logdir))}"
