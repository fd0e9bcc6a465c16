"""A comparison as text: the terminal's table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from seqrl.training.compare import Pair, Row, Table, profile
from seqrl.training.folder import jsonable
from seqrl.training.recorded import METRICS
from seqrl.training.statistics import Estimate, median

WIDTH = 100  # columns of the terminal
Lines = list[list[str]]  # cells


def terminal(table: Table) -> str:
    """What is printed: no line is longer than 100 characters."""
    return "\n".join(_document(table, _aligned, "{}", WIDTH)).rstrip()


def markdown(table: Table) -> str:
    """compare.md."""
    return "\n".join(_document(table, _piped, "## {}\n", 10**6)) + "\n"


def _document(
    table: Table, draw: Callable[[Lines], list[str]], heading: str, width: int
) -> Iterator[str]:
    """The parts in order; `draw` makes lines of cells."""
    for env in table.envs:
        yield heading.format(f"{env}: {table.metric}, {METRICS[table.metric]}")
        yield from draw(_cells(table, env))
        yield ""
        sentences = [_sentence(pair) for pair in table.pairs if pair.first.env == env]
        about = [*_scale(table, env), *_reached(table, env), *sentences]
        yield from _list(about, width)
        yield ""
    if table.pooled:
        yield heading.format("all environments: normalised scores, 0 random, 1 the best")
        head = ["", "mean", "95 % interval", "IQM", "95 % interval"]
        rows = [
            [name, _number(m.value), _interval(m), _number(i.value), _interval(i)]
            for name, m, i in table.pooled
        ]
        yield from [*draw([head, *rows]), ""]
    yield from _list([*_method(table), *(f"note: {note}" for note in table.notes)], width)


def _cells(table: Table, env: str) -> Lines:
    """The head and a line for each algorithm; a column that says nothing new is left out."""
    columns: dict[str, Callable[[Row], str]] = {
        "": lambda row: row.group.name,
        "runs": lambda row: _runs(row),
        "mean": lambda row: _number(row.score["mean"].value),
        "95 % interval": lambda row: _interval(row.score["mean"]),
        "median": lambda row: _number(row.score["median"].value),
        "IQM": lambda row: _number(row.score["iqm"].value),
        "area": lambda row: _number(row.area.value),
        "normalised": lambda row: f"{float(row.normalized.value):.3f}" if row.normalized else "-",
    }
    if table.metric == "area":
        del columns["area"]
    if not table.scales.get(env):
        del columns["normalised"]
    rows = [[cell(row) for cell in columns.values()] for row in table.within(env)]
    return [list(columns), *rows]


def _runs(row: Row) -> str:
    """How many runs there are; 9/10 where one has no score."""
    total, missing = len(row.group.runs), len(row.group.missing)
    return f"{total - missing}/{total}" if missing else str(total)


def _scale(table: Table, env: str) -> Iterator[str]:
    scale = table.scales.get(env)
    if scale:
        yield f"random policy {_number(scale[0])}, best possible {_number(scale[1])}"


def _reached(table: Table, env: str) -> Iterator[str]:
    """When the learning curves came to the threshold; a run that never did has no step."""
    for row in table.within(env):
        if row.reached is not None:
            there = int((~np.isnan(row.reached)).sum())
            when = f", the median of them after {_number(median(row.reached))} steps"
            yield (
                f"{row.group.name} reached {_number(table.threshold)} in {there} of "
                f"{len(row.reached)} runs{when if there else ''}"
            )


def _sentence(pair: Pair) -> str:
    """What may be said of a pair, never more than the data say."""
    if pair.comparison is None or pair.improvement is None:
        return f"{pair.first.name} and {pair.second.name}: not tested, a score is missing"
    gap, wins = pair.comparison.difference, pair.improvement
    first, second = pair.first.name, pair.second.name
    if pair.comparison.verdict == "worse":
        gap, (first, second) = -gap, (second, first)
        wins = Estimate(1 - wins.value, 1 - wins.high, 1 - wins.low)
    names = f"{first} is better than {second}"
    if pair.comparison.verdict == "not distinguishable":
        names = f"{first} and {second}: not distinguishable"
    between = "" if math.isnan(wins.low) else f" ({wins.low:.2f} to {wins.high:.2f})"
    numbers = f"difference {gap:+.4g}, p = {pair.comparison.adjusted:.2g}"
    return f"{names}; {numbers}, wins {wins.value:.2f}{between}"


def _method(table: Table) -> Iterator[str]:
    """What the numbers of the pairs are."""
    done = sum(pair.comparison is not None for pair in table.pairs)
    if done:
        family = f", Holm's correction over {done} pairs" if done > 1 else ""
        yield (
            f"p: permutation test of the difference of means{family}; "
            "wins: how often a run of the first beats one of the second"
        )


def _list(items: Sequence[str], width: int) -> list[str]:
    """Each item from a dash on, wrapped."""
    return [
        line
        for item in items
        for line in textwrap.wrap(item, width, initial_indent="- ", subsequent_indent="  ")
    ]


def _aligned(lines: Lines) -> list[str]:
    """Columns under each other, names left, numbers right; a name too long has its own line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = max(8, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    drawn = []
    for name, *cells in lines:
        if len(name) > widths[0]:
            drawn += textwrap.wrap(name, WIDTH)
            name = ""
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        drawn.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return drawn


def _piped(lines: Lines) -> list[str]:
    """A Markdown table."""
    head, *rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(line) + " |" for line in [head, rule, *rows]]


def _number(value: Any) -> str:
    """Six digits at most; a dash where nothing is known."""
    value = float(value)
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.5g}"


def _interval(estimate: Estimate) -> str:
    if math.isnan(float(estimate.low)):
        return "-"
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def as_csv(table: Table) -> str:
    """compare.csv: a line for each algorithm in each environment."""
    lines = []
    for row in table.rows:
        estimates = {**row.score, "area": row.area}
        if row.normalized:
            estimates["normalized"] = row.normalized
        line: dict[str, Any] = {"env": row.group.env, "agent": row.group.name}
        line |= {"metric": table.metric, "runs": len(row.group.runs) - len(row.group.missing)}
        for name, estimate in estimates.items():
            ends = zip(("", "_low", "_high"), estimate, strict=True)
            line |= {name + end: float(value) for end, value in ends}
        lines.append(line)
    heads = list(dict.fromkeys(head for line in lines for head in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if jsonable(v) is None else v for k, v in x.items()} for x in lines)
    return text.getvalue()


def as_json(table: Table) -> str:
    """compare.json: everything, with the runs' own scores; what is not known is null."""
    found = {
        "metric": table.metric,
        "threshold": table.threshold,
        "rows": [_row(row) for row in table.rows],
        "pairs": [_pair(pair) for pair in table.pairs],
        "pooled": [entry._asdict() for entry in table.pooled],
        "profiles": {env: _profile(table, env) for env in table.envs},
        "scales": dict(table.scales),
        "notes": table.notes,
    }
    return json.dumps(plain(found), indent=1) + "\n"


def _row(row: Row) -> dict[str, Any]:
    runs = [
        {"seed": run.config["seed"], "score": score, "folder": str(run.folder)}
        for run, score in zip(row.group.runs, row.group.scores, strict=True)
    ]
    known: dict[str, Any] = {"env": row.group.env, "agent": row.group.name, **row.score}
    known |= {"area": row.area, "normalized": row.normalized}
    return known | {"steps_to_threshold": row.reached, "runs": runs}


def _pair(pair: Pair) -> dict[str, Any]:
    known = {"env": pair.first.env, "first": pair.first.name, "second": pair.second.name}
    tested = pair.comparison._asdict() if pair.comparison else {"verdict": "not tested"}
    return known | tested | {"probability_of_improvement": pair.improvement}


def _profile(table: Table, env: str) -> dict[str, Any]:
    scores, above = profile(table, env)
    return {"scores": scores, "above": above}


def plain(value: Any) -> Any:
    """What JSON has a form for."""
    if isinstance(value, Estimate):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return jsonable(value)
