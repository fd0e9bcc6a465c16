"""A run as TensorBoard and a spreadsheet see it: the event file and `episodes.csv`.

Written without torch, record by record into a file of our own, so that a run that goes on can cut
both files back to where its checkpoint was.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from seqrl.core import UsageError
from seqrl.training.interaction import Episode, Interaction

POINTS = 1000  # at most, a tag
ROWS = 1_000_000  # episodes.csv is complete up to here; then every tenth, every hundredth, ...
ROW = "{},{!r},{}\n".format
THINNED = f"complete to {ROWS:,} episodes, then every 10th, from ten times as many every 100th ..."
# no hyper-parameters
UNCOMPARED = {"steps", "episodes", "eval_every", "eval_episodes", "compile", "seeds", "pictures"}
UNCOMPARED |= {"checkpoint_every", "processes", "worker_timeout", "restart_workers"}


class TensorBoard:
    """Writes a run's curves to `folder`; x is always env steps.

    A point is taken at the first episode end after each thousandth of the run, and `flush` makes
    everything until then visible to a TensorBoard that is looking.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(new_event_file(self.folder), "xb")
        self._events = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._episodes = open(self.folder / "episodes.csv", "a", encoding="utf-8")
        if self._episodes.tell() == 0:
            self._episodes.write("step,return,length\n")
        self._spacing, self.due, self._rows = 1, 0, 0
        self._last = (0, 0.0)  # env step and seconds of the point before

    def begin(self, loop: Interaction, steps: int) -> None:
        """Space the points over a run that ends at `steps` env steps."""
        self._spacing = max(1, ceil_div(steps, POINTS))
        self.due = self._next_due(loop.steps)
        self._last = (loop.steps, loop.watch.seconds)

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """A row in episodes.csv, and a point where one is due."""
        self._row(episode.step, episode.total, episode.length)
        if episode.step >= self.due:
            self.due = self._next_due(episode.step)
            self.scalars(episode.step, self._point(loop, episode))

    def episodes(self, steps: np.ndarray, totals: np.ndarray, lengths: np.ndarray) -> None:
        """Rows in episodes.csv for episodes that ended before the next point is due."""
        columns = [part.tolist() for part in (steps, totals, lengths)]
        first, end = self._rows, self._rows + len(steps)
        every = thinning(first)
        if first == ROWS or thinning(end) != every:
            for row in zip(*columns, strict=True):
                self._row(*row)
        else:  # hundreds of thousands of rows a second are worth a shorter way
            kept = [column[-first % every :: every] for column in columns]
            self._episodes.write("".join(map(ROW, *kept)))
            self._rows = end

    def _next_due(self, step: int) -> int:
        """The first env step after the thousandth of the run that `step` is in."""
        return ceil_div(step, self._spacing) * self._spacing + 1

    def _row(self, step: int, total: float, length: int) -> None:
        if self._rows < ROWS or self._rows % thinning(self._rows) == 0:
            self._episodes.write(ROW(step, total, length))
            if self._rows == ROWS:
                self.text("episodes.csv", THINNED)
        self._rows += 1

    def _point(self, loop: Interaction, episode: Episode) -> dict[str, float]:
        n, (step, seconds) = len(loop.recent), self._last
        self._last = (episode.step, loop.watch.seconds)
        return {
            "rollout/episode_return": episode.total,
            "rollout/ep_rew_mean": sum(total for total, _ in loop.recent) / n,
            "rollout/ep_len_mean": sum(length for _, length in loop.recent) / n,
            "time/fps": (episode.step - step) / max(self._last[1] - seconds, 1e-9),
            **{tag: reading(value) for tag, value in loop.metrics.items()},
        }

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each tag at env step `step`."""
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._summary(Summary(value=points), step)
        self.flush()

    def image(self, step: int, tag: str, data: bytes, width: int, height: int) -> None:
        """A picture under IMAGES at env step `step`: a PNG, or a GIF, which moves there."""
        picture = Summary.Image(width=width, height=height, encoded_image_string=data)
        self._summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)

    def describe(self, config: Mapping[str, Any]) -> None:
        """The run's config: a table under TEXT and a row under HPARAMS."""
        flat = dict(flatten(config))
        rows = [f"| {name} | {str(value).replace('|', '&#124;')} |" for name, value in flat.items()]
        self.text("config", "\n".join(["| setting | value |", "| --- | --- |", *rows]))
        self.hparams({name: value for name, value in flat.items() if name not in UNCOMPARED})
        self.flush()

    def text(self, tag: str, markdown: str) -> None:
        """A page under TEXT."""
        self._summary(text_pb(tag, markdown), 0)

    def hparams(self, values: Mapping[str, bool | int | float | str]) -> None:
        """The run's row under HPARAMS.

        The columns are left to TensorBoard, which joins those of all runs it sees; a list in each
        run would hide what only others have.
        """
        self._summary(summary_v2.hparams_pb(dict(values), trial_id=str(self.folder)), 0)

    def flush(self) -> None:
        """Make what was written visible."""
        self._events.flush()
        self._episodes.flush()

    def state_dict(self) -> dict[str, Any]:
        """How long the files are, which are safe on the disk then, and where the next point is."""
        self.flush()
        for file in (self._file, self._episodes):
            os.fsync(file.fileno())
        return {
            "files": {path.name: path.stat().st_size for path in log_files(self.folder)},
            **{name: getattr(self, name) for name in PLACE},
        }

    def resume(self, state: dict[str, Any], step: int) -> None:
        """Cut the files back to where `state` was taken, at env step `step`, and go on from there.

        A TensorBoard that is looking drops what it has shown beyond, as its protocol has it.
        """
        self.flush()
        sizes = state["files"]
        for path in log_files(self.folder):
            if path.name in sizes:
                cut(path, sizes[path.name])
            elif path.name != Path(self._file.name).name:
                path.unlink()
        for name in PLACE:
            setattr(self, name, state[name])
        again = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=again))
        self.flush()

    def close(self, success: bool = True) -> None:
        """End the run's row under HPARAMS and close the files."""
        self._summary(session_end(success), 0)
        self._events.close()
        self._episodes.close()

    def _summary(self, summary: Summary, step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        self._events.write(event.SerializeToString())


PLACE = ("_spacing", "due", "_rows", "_last")  # what decides about the next row and point


def log_files(folder: Path) -> list[Path]:
    """The files of a run that grow: every event file and episodes.csv."""
    return [*sorted(folder.glob("events.out.tfevents.*")), *folder.glob("episodes.csv")]


def new_event_file(folder: Path) -> Path:
    """A name that TensorBoard, which reads them in order, takes for later than those there."""
    stamps = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    stamp = max([int(time.time()), *(stamp + 1 for stamp in stamps)])
    return folder / f"events.out.tfevents.{stamp}.{socket.gethostname()}.seqrl"


def cut(path: Path, size: int) -> None:
    """Shorten a file that has grown since."""
    if path.stat().st_size < size:
        raise UsageError(
            f"{path} has {path.stat().st_size:,} bytes, {size:,} when the checkpoint was written: "
            "rows are missing; put the file back"
        )
    os.truncate(path, size)


def flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, bool | int | float | str]]:
    """Settings by name, nested ones but the agent's as env_args.x; no plain value: as text."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            prefix = "" if name == "agent_args" else f"{name}."
            yield from flatten({f"{prefix}{key}": inner for key, inner in value.items()})
        elif value is not None:
            yield name, value if isinstance(value, bool | int | float | str) else str(value)


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def thinning(rows: int) -> int:
    """Every how many episodes a row is kept: all up to 10^6, then every tenth, every hundredth."""
    return 10 ** len(str(rows // ROWS)) if rows >= ROWS else 1


def reading(value: Any) -> float:
    """A metric as a number: it may be one, a 0-d tensor, or a function that gives it."""
    return float(value() if callable(value) else value)


def session_end(success: bool) -> Summary:
    """What tells HPARAMS that a run has ended, and how."""
    status = "STATUS_SUCCESS" if success else "STATUS_FAILURE"
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    described = metadata.create_summary_metadata(data)
    tag = metadata.SESSION_END_INFO_TAG
    value = Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
