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

from seqrl.training.comparison.compare import Pair, Row, Table, profile
from seqrl.training.comparison.recorded import METRICS
from seqrl.training.runs.folder import jsonable
from seqrl.training.statistics import Estimate, median

WIDTH = 100  # columns of the terminal
Cells = list[list[str]]  # lines of a table


def terminal(table: Table) -> str:
    """Return the text for a terminal, lines of 100 characters at most."""
    return "\n".join(_document(table, _text_table, "{}", WIDTH)).rstrip()


def markdown(table: Table) -> str:
    """Return the text of compare.md."""
    return "\n".join(_document(table, _markdown_table, "## {}\n", 10**6)) + "\n"


def _document(
    table: Table, draw: Callable[[Cells], list[str]], heading: str, width: int
) -> Iterator[str]:
    """Yield the lines of all sections; `draw` formats a table's cells."""
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


def _cells(table: Table, env: str) -> Cells:
    """Return the header and a line for each algorithm; redundant columns are left out."""
    columns: dict[str, Callable[[Row], str]] = {
        "": lambda row: row.group.name,
        "runs": _runs,
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
    """Return the number of runs; "9/10" where one has no score."""
    total, missing = len(row.group.runs), len(row.group.missing)
    return f"{total - missing}/{total}" if missing else str(total)


def _scale(table: Table, env: str) -> Iterator[str]:
    scale = table.scales.get(env)
    if scale:
        yield f"random policy {_number(scale[0])}, best possible {_number(scale[1])}"


def _reached(table: Table, env: str) -> Iterator[str]:
    """Yield how many runs reached the threshold, and after how many env steps."""
    what = "greedy evaluations" if table.evaluated(env) else "mean of 100 episodes"
    for row in table.within(env):
        if row.reached is not None:
            n = int((~np.isnan(row.reached)).sum())
            when = f", the median of them after {_number(median(row.reached))} steps" if n else ""
            runs = f"{n} of {len(row.reached)} runs"
            reached = f"{row.group.name} reached {_number(table.threshold)} ({what})"
            yield f"{reached} in {runs}{when}"


def _sentence(pair: Pair) -> str:
    """Return the verdict on a pair with its numbers."""
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
    """Yield an explanation of the pairs' numbers."""
    tested = sum(pair.comparison is not None for pair in table.pairs)
    if tested:
        family = f", Holm's correction over {tested} pairs" if tested > 1 else ""
        wins = "wins: how often a run of the first beats one of the second"
        yield f"p: studentised permutation test of the difference of means{family}; {wins}"


def _list(items: Sequence[str], width: int) -> list[str]:
    """Return a bulleted list, wrapped."""
    wrapper = textwrap.TextWrapper(width, initial_indent="- ", subsequent_indent="  ")
    return [line for item in items for line in wrapper.wrap(item)]


def _text_table(lines: Cells) -> list[str]:
    """Return a text table, names left, numbers right; a name too long has its own line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = max(8, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    text = []
    for name, *cells in lines:
        if len(name) > widths[0]:
            text += textwrap.wrap(name, WIDTH)
            name = ""
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        text.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return text


def _markdown_table(lines: Cells) -> list[str]:
    """Return a Markdown table."""
    head, *rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(line) + " |" for line in [head, rule, *rows]]


def _number(value: Any) -> str:
    """Return a number of five digits or, if large, without decimals; "-" for NaN."""
    value = float(value)
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.5g}"


def _interval(estimate: Estimate) -> str:
    if math.isnan(float(estimate.low)):
        return "-"
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def as_csv(table: Table) -> str:
    """Return compare.csv: a line for each algorithm in each environment."""
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
    columns = list(dict.fromkeys(column for line in lines for column in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if jsonable(v) is None else v for k, v in x.items()} for x in lines)
    return text.getvalue()


def as_json(table: Table) -> str:
    """Return compare.json: the whole table and the scores of all runs; null where not known."""
    content = {
        "metric": table.metric,
        "threshold": table.threshold,
        "rows": [_row(row) for row in table.rows],
        "pairs": [_pair(pair) for pair in table.pairs],
        "pooled": [entry._asdict() for entry in table.pooled],
        "profiles": {env: profile(table, env) for env in table.envs},
        "scales": dict(table.scales),
        "notes": table.notes,
    }
    return json.dumps(json_types(content), indent=1) + "\n"


def _row(row: Row) -> dict[str, Any]:
    runs = [
        {"seed": run.config["seed"], "score": score, "folder": str(run.folder)}
        for run, score in zip(row.group.runs, row.group.scores, strict=True)
    ]
    entry: dict[str, Any] = {"env": row.group.env, "agent": row.group.name, **row.score}
    entry |= {"area": row.area, "normalized": row.normalized}
    return entry | {"steps_to_threshold": row.reached, "runs": runs}


def _pair(pair: Pair) -> dict[str, Any]:
    names = {"env": pair.first.env, "first": pair.first.name, "second": pair.second.name}
    tested = pair.comparison._asdict() if pair.comparison else {"verdict": "not tested"}
    return names | tested | {"probability_of_improvement": pair.improvement}


def json_types(value: Any) -> Any:
    """Return a value as JSON types, not finite numbers as None."""
    if isinstance(value, Estimate):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: json_types(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [json_types(part) for part in value]
    return jsonable(value)
