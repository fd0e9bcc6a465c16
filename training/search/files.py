"""The files of a search: a table of trials, a picture, rows under HPARAMS, the best settings."""

from __future__ import annotations

import csv
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.training.comparison.charts import EVENT_FILES, scalars, write_events
from seqrl.training.comparison.plot import COLOURS, label, style_panel
from seqrl.training.runs.folder import config_text
from seqrl.training.runs.hparams import session_end, session_start
from seqrl.training.search.search import PLACE, STEPS
from seqrl.training.search.space import Range, Values
from seqrl.training.search.study import Study, import_optuna

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
SIZE = (12.0, 3.6)  # inches
FEWEST = 4  # trials with a score, of which importance can be told


class Tried(NamedTuple):
    """A trial, as the files show it."""

    number: int
    state: str  # of STATES
    score: float  # of a pruned one the last that it reported; NaN where there is none
    steps: int  # env steps of all its runs
    values: Values
    drawn: Mapping[str, Any]  # the values as numbers, or choices, without what stands around them
    folder: str  # of its runs


def tried(study: Study) -> list[Tried]:
    """Return the trials of a study that have values, by number."""
    found = []
    for trial in study.trials():
        if trial.params.keys() != study.space.keys():
            continue
        reported = trial.intermediate_values.get(trial.last_step, math.nan)
        score = reported if trial.value is None else trial.value
        steps = max(trial.user_attrs.get(STEPS, 0), trial.last_step or 0)
        state = STATES.get(trial.state.name, "waiting")
        told = trial.number, state, float(score), int(steps)
        folder = trial.user_attrs.get(PLACE, ("", ""))[1]
        found.append(Tried(*told, study.values_of(trial), trial.params, folder))
    return found


def write_search(study: Study, folder: Path) -> str:
    """Write the files of the trials; return why the picture could not be drawn, or ""."""
    trials = tried(study)
    write_csv(trials, folder)
    write_rows(trials, folder / "hparams")
    try:
        draw(trials, study.space, importance(study), folder / "search.png")
    except UsageError as error:
        return str(error)
    return ""


def write_csv(trials: Sequence[Tried], folder: Path) -> None:
    """Write search.csv: a line a trial."""
    names = list(trials[0].values) if trials else []
    with open(folder / "search.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "state", "score", "steps", *names, "folder"])
        for one in trials:
            score = "" if math.isnan(one.score) else repr(one.score)
            values = one.values.values()
            writer.writerow([one.number, one.state, score, one.steps, *values, one.folder])


def write_rows(trials: Sequence[Tried], folder: Path) -> None:
    """Write a row a trial for HPARAMS in TensorBoard: what it drew, and its score."""
    for old in [*folder.rglob(EVENT_FILES)]:
        old.unlink()
    for one in (trial for trial in trials if not math.isnan(trial.score)):
        ended = session_end(one.state == "complete")
        score = scalars({"search/score": one.score})
        told = [(0, session_start(dict(one.drawn))), (one.steps, score), (one.steps, ended)]
        write_events(folder / f"trial-{one.number:04}", told, time.time())


def write_best(config: dict[str, Any], path: Path) -> None:
    """Write settings for `train --config`, without the seed."""
    own = {name: value for name, value in config.items() if name != "seed"}
    path.write_text(config_text(own), encoding="utf-8")


def importance(study: Study) -> dict[str, float]:
    """Return the share of each setting in what tells good trials from others; {} if too few."""
    if len(study.trials("COMPLETE")) < FEWEST:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return import_optuna().importance.get_param_importances(study.study)
        except (ValueError, RuntimeError):  # no two scores differ
            return {}


def draw(
    trials: Sequence[Tried], space: Mapping[str, Range], shares: Mapping[str, float], path: Path
) -> None:
    """Draw a PNG: scores by trial, shares of the settings, and what trials of each score had.

    Raises UsageError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        problem = f"no picture without matplotlib ({error})"
        raise UsageError(f"{problem}: pip install -e .[plot]") from error
    figure = Figure(SIZE, layout="constrained")
    history, bars, parallel = figure.subplots(1, 3, width_ratios=(1.2, 0.8, 1.6))
    draw_history(history, trials)
    draw_shares(bars, shares)
    draw_values(parallel, trials, space)
    figure.savefig(path, dpi=110)


def draw_history(panel: Any, trials: Sequence[Tried]) -> None:
    """Draw each trial's score, and the best one so far."""
    for state, marker, colour in (("complete", "o", COLOURS[0]), ("pruned", "x", COLOURS[1])):
        own = [one for one in trials if one.state == state]
        numbers, scores = [one.number for one in own], [one.score for one in own]
        panel.plot(numbers, scores, marker, color=colour, markersize=4, label=state)
    own = [one for one in trials if one.state == "complete"]
    best = np.maximum.accumulate([one.score for one in own] or [math.nan])
    panel.step([one.number for one in own] or [0], best, where="post", color=COLOURS[0])
    panel.legend(frameon=False, fontsize=8)
    panel.set_xlabel("trial")
    style_panel(panel, "scores, and the best so far")


def draw_shares(panel: Any, shares: Mapping[str, float]) -> None:
    """Draw a bar for each setting."""
    names = list(shares)
    panel.barh(range(len(names)), [shares[name] for name in names], color=COLOURS[0], height=0.4)
    for i, name in enumerate(names):
        label(panel, name, (0, i - 0.25), "data", "0.2")
    panel.set_yticks([])
    panel.set_ylim(len(names) - 0.5, -0.8)
    panel.set_xlabel("share" if names else f"told from {FEWEST} scores on")
    style_panel(panel, "importance")


def draw_values(panel: Any, trials: Sequence[Tried], space: Mapping[str, Range]) -> None:
    """Draw a line a trial through its values, the last axis its score; the best ones darkest."""
    scored = sorted((x for x in trials if x.state == "complete"), key=lambda one: one.score)
    scores = [one.score for one in scored]
    low, high = (scores[0], scores[-1]) if scores else (0.0, 1.0)
    for i, one in enumerate(scored):
        heights = [height(space[name], one.drawn[name]) for name in space]
        heights.append((one.score - low) / (high - low) if high > low else 0.5)
        shade = (i + 1) / len(scored)
        panel.plot(heights, color=COLOURS[0], alpha=0.1 + 0.9 * shade**3, linewidth=1)
    for i, (name, each) in enumerate(space.items()):
        first, last = (each.choices[0], each.choices[-1]) if each.choices else (each.low, each.high)
        write_axis(panel, i, name, str(first), str(last))
    write_axis(panel, len(space), "score", f"{low:.4g}", f"{high:.4g}")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_ylim(-0.15, 1.15)
    panel.margins(x=0.1)
    style_panel(panel, "values of the trials")
    panel.spines[["left", "bottom"]].set_visible(False)


def write_axis(panel: Any, x: int, name: str, low: str, high: str) -> None:
    """Draw one of the parallel axes with its name and ends."""
    panel.axvline(x, ymin=0.115, ymax=0.885, color="0.8", linewidth=0.8, zorder=0)
    label(panel, low, (x, 0), "data", "0.35", ha="center", xytext=(0, -10))
    label(panel, f"{name}\n{high}", (x, 1), "data", "0.35", ha="center")


def height(each: Range, value: Any) -> float:
    """Return where a value is between the ends of its range, from 0 to 1."""
    if each.choices:
        return each.choices.index(value) / max(1, len(each.choices) - 1)
    low, high, at = each.low, each.high, float(value)
    if each.kind == "log":
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)
