"""A run as TensorBoard and a spreadsheet see it: the event file and `episodes.csv`.

Written without torch, record by record into a file of our own, so that a run that goes on can cut
both files back to where its checkpoint was.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from seqrl.training.interaction import Episode, Interaction

POINTS = 1000  # at most, a tag
ROWS = 1_000_000  # episodes.csv is complete up to here; then every tenth, every hundredth, ...
UNCOMPARED = ("steps", "episodes", "eval_every", "eval_episodes")  # no hyper-parameters
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")


class TensorBoard:
    """Writes a run's curves to `folder`; x is always env steps.

    A point is taken at the first episode end after each thousandth of the run, and `flush` makes
    everything until then visible to a TensorBoard that is looking.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.seqrl"
        self._events = RecordWriter(open(self.folder / name, "ab"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._episodes = open(self.folder / "episodes.csv", "a", encoding="utf-8")
        if self._episodes.tell() == 0:
            self._episodes.write("step,return,length\n")
        self._spacing, self._due, self._rows = 1, 0, 0
        self._last = (0, 0.0)  # env step and seconds of the point before

    def begin(self, loop: Interaction, steps: int) -> None:
        """Space the points over a run that ends at `steps` env steps."""
        self._spacing = max(1, steps // POINTS)
        self._due = (loop.steps // self._spacing + 1) * self._spacing if loop.steps else 0
        self._last = (loop.steps, loop.watch.seconds)

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """A row in episodes.csv, and a point where one is due."""
        every = 10 ** max(0, len(str(self._rows // ROWS)) - (self._rows < ROWS))
        if self._rows % every == 0:
            self._episodes.write(f"{episode.step},{episode.total!r},{episode.length}\n")
        self._rows += 1
        if episode.step >= self._due:
            self._due = (episode.step // self._spacing + 1) * self._spacing
            self.scalars(episode.step, self._point(loop, episode))

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

    def describe(self, config: Mapping[str, Any]) -> None:
        """The run's config: a table under TEXT and a row under HPARAMS."""
        flat = dict(flatten(config))
        rows = [f"| {name} | {value} |" for name, value in flat.items()]
        self.text("config", "\n".join(["| setting | value |", "| --- | --- |", *rows]))
        self.hparams({name: value for name, value in flat.items() if name not in UNCOMPARED})
        self.flush()

    def text(self, tag: str, markdown: str) -> None:
        """A page under TEXT."""
        self._summary(text_pb(tag, markdown), 0)

    def hparams(self, values: Mapping[str, bool | int | float | str]) -> None:
        """The run's row under HPARAMS, with the metrics it is judged by."""
        names = [summary_v2.HParam(name) for name in values]
        metrics = [summary_v2.Metric(tag) for tag in METRICS]
        self._summary(summary_v2.hparams_config_pb(names, metrics), 0)
        self._summary(summary_v2.hparams_pb(dict(values), trial_id=str(self.folder)), 0)

    def flush(self) -> None:
        """Make what was written visible."""
        self._events.flush()
        self._episodes.flush()

    def close(self, success: bool = True) -> None:
        """End the run's row under HPARAMS and close the files."""
        self._summary(session_end(success), 0)
        self._events.close()
        self._episodes.close()

    def _summary(self, summary: Summary, step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        self._events.write(event.SerializeToString())


def flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, bool | int | float | str]]:
    """Nested settings under their own names; what is not a plain value as text."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value)
        elif value is not None:
            yield name, value if isinstance(value, bool | int | float | str) else str(value)


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
