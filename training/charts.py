"""A comparison for who only opens TensorBoard: a run for each algorithm, and margin charts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from seqrl.training.compare import Table, curves
from seqrl.training.folder import plain_name
from seqrl.training.statistics import Estimate, bootstrap, iqm, mean

OURS = "events.out.tfevents.*.compare.seqrl"
CURVES = {"mean": mean, "iqm": iqm}
TITLES = {"mean": "mean over the runs", "iqm": "interquartile mean over the runs"}


def write_charts(folder: Path, table: Table, text: str) -> None:
    """Event files: the layout and the tables' text in `folder`, curves in `folder`/ALGORITHM.

    Those of a comparison that was there before are taken away.
    """
    for old in [*folder.glob(OURS), *folder.glob(f"*/{OURS}")]:
        old.unlink()
    write_events(folder, [(0, layout(table)), (0, text_pb("comparison", text))])
    for name in dict.fromkeys(row.group.name for row in table.rows):
        write_events(folder / plain_name(name), sorted(points(table, name), key=lambda p: p[0]))


def write_events(folder: Path, summaries: Iterable[tuple[int, Summary]]) -> None:
    """A whole event file; a TensorBoard that is looking forgets what the run showed before."""
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    with open(folder / OURS.replace("*", str(int(now))), "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        start = SessionLog(status=SessionLog.START)
        writer.write(Event(wall_time=now, session_log=start).SerializeToString())
        for step, summary in summaries:
            event = Event(wall_time=now, step=step, summary=summary)
            writer.write(event.SerializeToString())
        writer.flush()


def tag(env: str, statistic: str, end: str = "") -> str:
    """compare/ENV/mean, and apart from the curves interval/ENV/mean_low and _high."""
    return f"{'interval' if end else 'compare'}/{plain_name(env)}/{statistic}{end}"


def points(table: Table, name: str) -> Iterator[tuple[int, Summary]]:
    """The summed up learning curves of an algorithm, in all its environments."""
    for env in table.envs:
        grid, found = curves(table, env)
        for statistic, reduce in CURVES.items():
            band = bootstrap(found[name], reduce)
            for i, step in enumerate(grid.tolist()):
                yield step, point(env, statistic, Estimate(*(part[i] for part in band)))


def point(env: str, statistic: str, estimate: Estimate) -> Summary:
    """One point: the value with its ends, as far as they are known."""
    ends = zip(("", "_low", "_high"), estimate, strict=True)
    return Summary(
        value=[
            Summary.Value(tag=tag(env, statistic, end), simple_value=float(value))
            for end, value in ends
            if not math.isnan(value)
        ]
    )


def layout(table: Table) -> Summary:
    """The page under CUSTOM SCALARS: for each environment a chart with margins a statistic."""
    categories = [
        layout_pb2.Category(title=f"compare {env}", chart=[chart(env, s) for s in CURVES])
        for env in table.envs
    ]
    tensor = TensorProto(dtype=DT_STRING)
    tensor.string_val.append(layout_pb2.Layout(category=categories).SerializeToString())
    described = metadata.create_summary_metadata()
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=described, tensor=tensor)
    return Summary(value=[value])


def chart(env: str, statistic: str) -> layout_pb2.Chart:
    """A line and its 95 % interval for each run that TensorBoard shows."""
    tags = [tag(env, statistic, end) for end in ("", "_low", "_high")]
    series = layout_pb2.MarginChartContent.Series(value=tags[0], lower=tags[1], upper=tags[2])
    margin = layout_pb2.MarginChartContent(series=[series])
    return layout_pb2.Chart(title=f"{TITLES[statistic]}, 95 % interval", margin=margin)
