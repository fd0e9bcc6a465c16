"""A comparison in TensorBoard: each algorithm's mean curves with 95 % intervals, and its seeds.

Tags name the environment, so that no two share an axis. SCALARS opens the first two groups of tags,
by name: `compare`, the means, and `seeds`; the ends of the intervals come after them, closed, for
CUSTOM SCALARS draws the bands. Runs are listed, and coloured, in the order of their first events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from seqrl.training.comparison.compare import Table, curves
from seqrl.training.comparison.recorded import Run, own_settings, read_evaluations, varying
from seqrl.training.runs.event_file import record, text_summary
from seqrl.training.runs.folder import plain_name
from seqrl.training.runs.hparams import session_end, session_start
from seqrl.training.statistics import Floats, bootstrap, mean, resample

EVENT_FILES = "events.out.tfevents.*.compare.seqrl"
OVERVIEW = "comparison"  # the run that has the tables and the charts
TITLES = {"evaluation": "greedy evaluations", "training": "training returns"}
Summaries = list[tuple[int, Summary]]  # with their env steps


class Curves(NamedTuple):
    """The curves of R runs, on a grid of env steps and as they are."""

    grid: np.ndarray  # [G]
    values: Floats  # [R, G], NaN where a run has none
    points: list[tuple[np.ndarray, Floats]]  # of each run, env steps [P] and values [P]


def write_charts(folder: Path, table: Table, text: str) -> None:
    """Write event files in folders of `folder`, which are TensorBoard's runs.

    Each ALGORITHM has its mean curves, ALGORITHM/seed-N the curves of a seed and a row under
    HPARAMS, `comparison` the tables' text and the layout of CUSTOM SCALARS. Those of an earlier
    comparison are removed.
    """
    for old in [*folder.rglob(EVENT_FILES)]:
        old.unlink()
    algorithms: dict[str, Summaries] = {}
    seeds: dict[str, Summaries] = {}
    names = varying([run for row in table.rows for run in row.group.runs])
    for row in table.rows:
        env, name = row.group.env, plain_name(row.group.name)
        runs = [run for run in row.group.runs if run.summary]
        own = curves_of(table, env, row.group.name, runs)
        algorithms.setdefault(name, []).extend(mean_points(env, own))
        for i, run in enumerate(runs):
            first = [(0, session_start(compared(run, names)))]
            seeds.setdefault(f"{name}/seed-{run.config['seed']}", first).extend(
                seed_points(env, own, i)
            )
    overview: Summaries = [(0, layout(table)), (0, text_summary("comparison", text))]
    ended = {name: [*told, (0, session_end(True))] for name, told in seeds.items()}
    now = time.time()
    for i, (name, told) in enumerate((algorithms | ended | {OVERVIEW: overview}).items()):
        write_events(folder / name, told, now + i / 1000)


def write_events(folder: Path, summaries: Summaries, now: float) -> None:
    """Write a whole event file; its session start makes TensorBoard drop the run's older points."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / EVENT_FILES.replace("*", str(int(now))), "wb") as file:
        start = SessionLog(status=SessionLog.START)
        events = [Event(file_version="brain.Event:2"), Event(session_log=start)]
        in_order = sorted(summaries, key=lambda one: one[0])
        for event in (*events, *(Event(step=step, summary=part) for step, part in in_order)):
            event.wall_time = now
            file.write(record(event))


def compared(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings `names` of a run, those that it has, and its seed."""
    own = {"agent": run.config["agent"], **own_settings(run.config)}
    return {**{name: own[name] for name in names if name in own}, "seed": run.config["seed"]}


def curves_of(table: Table, env: str, name: str, runs: Sequence[Run]) -> dict[str, Curves]:
    """Return the curves of an algorithm's finished runs, by the keys of TITLES, if there are."""
    found = {"evaluation": evaluations(runs)}
    if "training" in kinds(table, env):
        grid, trained = curves(table, env)
        points = [(grid, values) for values in trained[name]]
        found["training"] = Curves(grid, trained[name], points)
    return {kind: one for kind, one in found.items() if len(one.grid)}


def evaluations(runs: Sequence[Run]) -> Curves:
    """Return the curves of greedy evaluations.

    Runs may differ in the steps of an evaluation by a few: what is less than half the usual
    distance apart is one step of the grid. Its name is the first of them, so that an open
    TensorBoard, which drops what a new point precedes, keeps none of fewer seeds.
    """
    points = [read_evaluations(run.folder) for run in runs]
    distances = np.concatenate([np.diff(steps) for steps, _ in points])
    near = float(np.median(distances)) / 2 if len(distances) else 0.0
    first, last = neighbours(np.concatenate([steps for steps, _ in points]), near)
    ends = [run.end + near for run in runs]
    values = [resample(*one, last, end=end) for one, end in zip(points, ends, strict=True)]
    return Curves(first, np.array(values), points)


def neighbours(steps: Floats, near: float) -> tuple[Floats, Floats]:
    """Return the first and the last of each group of steps less than `near` behind its first."""
    at, first = np.unique(steps), list[float]()
    for step in at.tolist():
        if not first or step - first[-1] >= near:
            first.append(step)
    opens = np.searchsorted(at, first).astype(int)
    return at[opens], at[np.append(opens, len(at))[1:] - 1]


def mean_points(env: str, own: Mapping[str, Curves]) -> Iterator[tuple[int, Summary]]:
    """Yield env step and summary of an algorithm's mean curves, with the ends of the intervals.

    A chart with a band needs both ends everywhere: where one run has no interval, it is without
    width.
    """
    for kind, found in own.items():
        value, *ends = bootstrap(found.values, mean)
        low, high = (np.where(np.isnan(end), value, end) for end in ends)
        for step, *band in zip(found.grid.tolist(), value, low, high, strict=True):
            named = zip(("", "_low", "_high"), band, strict=True)
            yield int(step), scalars({tag(env, kind, end): x for end, x in named})


def seed_points(env: str, own: Mapping[str, Curves], i: int) -> Iterator[tuple[int, Summary]]:
    """Yield env step and summary of the curves of the run `i`."""
    for kind, found in own.items():
        for step, value in zip(*found.points[i], strict=True):
            yield int(step), scalars({f"seeds/{plain_name(env)}/{kind}": value})


def scalars(values: dict[str, float]) -> Summary:
    """Return the summary of one point of each tag, without what is NaN."""
    known = [(name, float(value)) for name, value in values.items() if not math.isnan(value)]
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in known])


def tag(env: str, kind: str, end: str = "") -> str:
    """Return the tag of an algorithm's mean, or with _low or _high of an end of its interval."""
    return f"{'seeds_interval' if end else 'compare'}/{plain_name(env)}/{kind}{end}"


def layout(table: Table) -> Summary:
    """Return the layout of CUSTOM SCALARS: for each environment a margin chart a kind of curve.

    TensorBoard shows an environment's charts from the last to the first.
    """
    charts = {env: [chart(env, x) for x in reversed(kinds(table, env))] for env in table.envs}
    categories = [layout_pb2.Category(title=env, chart=own) for env, own in charts.items()]
    tensor = TensorProto(dtype=DT_STRING)
    tensor.string_val.append(layout_pb2.Layout(category=categories).SerializeToString())
    about = metadata.create_summary_metadata()
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)
    return Summary(value=[value])


def kinds(table: Table, env: str) -> list[str]:
    """Return the kinds of curves of an environment: no training returns that are a teacher's."""
    return [kind for kind in TITLES if kind == "evaluation" or not table.evaluated(env)]


def chart(env: str, kind: str) -> layout_pb2.Chart:
    """Return a chart of a line and its 95 % interval for each selected run."""
    tags = [tag(env, kind, end) for end in ("", "_low", "_high")]
    series = layout_pb2.MarginChartContent.Series(value=tags[0], lower=tags[1], upper=tags[2])
    margin = layout_pb2.MarginChartContent(series=[series])
    return layout_pb2.Chart(title=f"{TITLES[kind]}: mean and 95 % interval", margin=margin)
