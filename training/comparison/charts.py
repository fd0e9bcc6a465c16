"""A comparison in TensorBoard: a run for each algorithm, and charts with 95 % intervals."""

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

from seqrl.training.comparison.compare import Table, curves
from seqrl.training.runs.folder import plain_name
from seqrl.training.statistics import Estimate, bootstrap, iqm, mean

EVENT_FILES = "events.out.tfevents.*.compare.seqrl"
CURVES = {"mean": mean, "iqm": iqm}
TITLES = {"mean": "mean over the runs", "iqm": "interquartile mean over the runs"}


def write_charts(folder: Path, table: Table, text: str) -> None:
    """Write event files: the layout and the tables' text in `folder`, curves in `folder`/ALGORITHM.

    Those of an earlier comparison are removed.
    """
    for old in [*folder.glob(EVENT_FILES), *folder.glob(f"*/{EVENT_FILES}")]:
        old.unlink()
    write_events(folder, [(0, layout(table)), (0, text_pb("comparison", text))])
    for name in dict.fromkeys(row.group.name for row in table.rows):
        write_events(folder / plain_name(name), sorted(points(table, name), key=lambda p: p[0]))


def write_events(folder: Path, summaries: Iterable[tuple[int, Summary]]) -> None:
    """Write a whole event file; its session start makes TensorBoard drop the run's older points."""
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    with open(folder / EVENT_FILES.replace("*", str(int(now))), "wb") as file:
        writer = RecordWriter(file)
        start = SessionLog(status=SessionLog.START)
        events = [Event(file_version="brain.Event:2"), Event(session_log=start)]
        for event in (*events, *(Event(step=step, summary=part) for step, part in summaries)):
            event.wall_time = now
            writer.write(event.SerializeToString())
        writer.flush()


def tag(env: str, statistic: str, end: str = "") -> str:
    """Return the tag compare/ENV/mean; for the interval's ends interval/ENV/mean_low and _high."""
    return f"{'interval' if end else 'compare'}/{plain_name(env)}/{statistic}{end}"


def points(table: Table, name: str) -> Iterator[tuple[int, Summary]]:
    """Yield env step and summary of an algorithm's mean and IQM curves, in all environments."""
    for env in table.envs:
        grid, values = curves(table, env)
        for statistic, reduce in CURVES.items():
            band = bootstrap(values[name], reduce)
            for i, step in enumerate(grid.tolist()):
                yield step, point(env, statistic, Estimate(*(part[i] for part in band)))


def point(env: str, statistic: str, estimate: Estimate) -> Summary:
    """Return the summary of one point: the value and its interval, without what is NaN."""
    ends = zip(("", "_low", "_high"), map(float, estimate), strict=True)
    known = [(tag(env, statistic, end), value) for end, value in ends if not math.isnan(value)]
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in known])


def layout(table: Table) -> Summary:
    """Return the layout of CUSTOM SCALARS: for each environment a margin chart a statistic."""
    categories = [
        layout_pb2.Category(title=f"compare {env}", chart=[chart(env, s) for s in CURVES])
        for env in table.envs
    ]
    tensor = TensorProto(dtype=DT_STRING)
    tensor.string_val.append(layout_pb2.Layout(category=categories).SerializeToString())
    about = metadata.create_summary_metadata()
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)
    return Summary(value=[value])


def chart(env: str, statistic: str) -> layout_pb2.Chart:
    """Return a chart of a line and its 95 % interval for each selected run."""
    tags = [tag(env, statistic, end) for end in ("", "_low", "_high")]
    series = layout_pb2.MarginChartContent.Series(value=tags[0], lower=tags[1], upper=tags[2])
    margin = layout_pb2.MarginChartContent(series=[series])
    return layout_pb2.Chart(title=f"{TITLES[statistic]}, 95 % interval", margin=margin)
