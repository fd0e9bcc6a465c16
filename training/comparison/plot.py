"""The figure of a comparison: learning curves with 95 % bands, and the scores of the runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.training.comparison.compare import Row, Table, curves
from seqrl.training.comparison.recorded import WINDOW
from seqrl.training.statistics import Estimate, Floats, bootstrap, mean

# Okabe and Ito's colours, which the colour-blind tell apart, neighbours light and dark; the line
# styles tell the curves apart in grey.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#D55E00", "#56B4E9")
LINE_STYLES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))
SIZE = (8.0, 3.6)  # inches for an environment, without the names
LETTER_WIDTH = 0.12  # inches for each letter of the longest name, which is written twice
WIDTH_RATIOS = (3.2, 1)  # curves, scores
GAP = 0.055  # least distance of two curves' labels, in heights of a panel


def draw(table: Table, path: Path) -> None:
    """Draw a PNG: learning curves and scores of each environment side by side.

    Raises UsageError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        problem = f"no picture without matplotlib ({error})"
        raise UsageError(f"{problem}: pip install -e .[plot]") from error
    envs = table.envs
    longest = max(len(shortened(row.group.name)) for row in table.rows)
    size = (SIZE[0] + LETTER_WIDTH * longest, SIZE[1] * len(envs))
    figure = Figure(size, layout="constrained")
    panels = figure.subplots(len(envs), 2, squeeze=False, width_ratios=WIDTH_RATIOS)
    for (left, right), env in zip(panels, envs, strict=True):
        draw_curves(left, table, env)
        draw_scores(right, table, env)
    figure.savefig(path, dpi=110)


def draw_curves(panel: Any, table: Table, env: str) -> None:
    """Draw the mean curve of each algorithm with its 95 % band, and its name at the end."""
    grid, values = curves(table, env)
    bands = {name: bootstrap(x, mean) for name, x in values.items()}
    ends = {}
    for i, (name, band) in enumerate(bands.items()):
        colour, style = COLOURS[i % len(COLOURS)], LINE_STYLES[i % len(LINE_STYLES)]
        panel.fill_between(grid, band.low, band.high, color=colour, alpha=0.25, linewidth=0)
        panel.plot(grid, band.value, color=colour, linestyle=style, linewidth=1.8)
        last = np.flatnonzero(~np.isnan(band.value))
        if len(last):
            ends[name] = (float(band.value[last[-1]]), colour)
    low, high, cut = y_limits(list(bands.values()), table.scales.get(env))
    panel.set_ylim(low, high)
    panel.set_xlim(0, grid[-1])
    write_names(panel, ends)
    draw_best(panel, table, env)
    if cut:
        label(panel, "lower values are cut off", (0.99, 0.01), "axes fraction", "0.35", ha="right")
    style_panel(panel, f"{env}: mean of {runs_in(table.within(env))} runs, 95 % interval")
    panel.set_xlabel("env steps")
    panel.locator_params(axis="x", nbins=5)
    what = "greedy evaluations" if table.evaluated(env) else f"{WINDOW} episodes"
    panel.set_ylabel(f"return, mean of {what}")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    panel.grid(axis="y", color="0.9", linewidth=0.6)


def draw_best(panel: Any, table: Table, env: str) -> None:
    """Draw a line at the optimal return, where it is known and in the panel's range."""
    scale = table.scales.get(env)
    low, high = panel.get_ylim()
    if scale and low <= scale[1] <= high:
        panel.axhline(scale[1], color="0.45", linewidth=0.8, zorder=0)
        text = f"best possible {scale[1]:.4g}"
        label(panel, text, (0.01, scale[1]), ("axes fraction", "data"), "0.35")


def draw_scores(panel: Any, table: Table, env: str) -> None:
    """Draw every run's score as a dot, and the mean of each algorithm with its interval."""
    rows = table.within(env)
    for i, row in enumerate(rows):
        colour, known = COLOURS[i % len(COLOURS)], row.group.scores[~np.isnan(row.group.scores)]
        spread = i + np.linspace(-0.18, 0.18, len(known))  # equal scores stay visible
        panel.plot(known, spread, "o", color=colour, alpha=0.45, markersize=4, linewidth=0)
        value, low, high = (float(part) for part in row.score["mean"])
        panel.plot([low, high], [i - 0.3] * 2, color=darker(colour), linewidth=1.5)
        panel.plot(value, i - 0.3, "D", color=darker(colour), markersize=5)
        text = f"{shortened(row.group.name)} {value:.4g}"
        label(panel, text, (value, i - 0.36), "data", darker(colour), 9, ha="center")
    panel.set_ylim(len(rows) - 0.6, -0.7)  # the first on top
    panel.set_yticks([])
    panel.margins(x=0.35)
    panel.locator_params(axis="x", nbins=3)
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.6g}")
    style_panel(panel, table.metric)
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("dot: a run; diamond: the mean", fontsize=9)


def runs_in(rows: list[Row]) -> str:
    """Return the number of runs an algorithm: "10", or "9 to 10"."""
    counts = sorted({len(row.group.runs) - len(row.group.missing) for row in rows})
    return " to ".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))


def label(
    panel: Any, text: str, at: Any, space: Any, colour: str, size: int = 8, **place: Any
) -> None:
    """Write small text just above a position, or at `xytext` points from it."""
    offset = {"xytext": (0, 3), "textcoords": "offset points", "annotation_clip": False}
    panel.annotate(text, at, xycoords=space, color=colour, fontsize=size, **(offset | place))


def style_panel(panel: Any, title: str) -> None:
    """Set title and spines of a panel."""
    panel.set_title(title, loc="left", fontsize=10, fontweight="bold")
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_axisbelow(True)


def y_limits(bands: list[Estimate], scale: tuple[float, float] | None) -> tuple[float, float, bool]:
    """Return the limits of the axis, and whether lower values (of early episodes) are cut off.

    The upper end shows all; the lower one cuts at most the lowest quarter of the points, and only
    where they would take most of the height.
    """
    values = np.concatenate([np.ravel(part) for band in bands for part in band])
    values = values[~np.isnan(values)]
    if not values.size:
        return 0.0, 1.0, False
    low, quarter, high = (float(np.quantile(values, q)) for q in (0, 0.25, 1))
    if scale and high <= scale[1] <= high + (high - quarter):
        high = scale[1]
    bottom = max(low, high - 1.6 * (high - quarter)) if high > quarter else low
    margin = 0.08 * (high - bottom) or 1.0
    return bottom - margin, high + margin, bottom > low


def write_names(panel: Any, ends: dict[str, tuple[float, str]]) -> None:
    """Write each curve's name and last value right of its end, without overlaps."""
    low, high = panel.get_ylim()
    order = sorted(ends, key=lambda name: ends[name][0])
    heights = spaced(np.array([(ends[name][0] - low) / (high - low) for name in order]), GAP)
    for name, height in zip(order, heights.tolist(), strict=True):
        value, colour = ends[name]
        text, side = f"{shortened(name)} {value:.4g}", {"xytext": (6, 0), "va": "center"}
        label(panel, text, (1.0, height), "axes fraction", darker(colour), 9, **side)


def shortened(name: str, most: int = 32) -> str:
    """Return a name cut to `most` letters in its middle; its end tells it from others."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[-most + most // 3 + 1 :]}"


def darker(colour: str) -> str:
    """Return a colour darkened until it is legible as text on white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    luminance = 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]
    factor = min(1.0, 105 / max(luminance, 1))
    return "#" + "".join(f"{int(part * factor):02x}" for part in parts)


def spaced(heights: Floats, gap: float) -> Floats:
    """Return ascending heights [k] moved minimally to be `gap` apart, in [0, 1] if they fit.

    Neighbours that are too close become a block around their mean (isotonic regression).
    """
    blocks: list[list[float]] = []  # sum of its members' positions, their number
    for i, height in enumerate(heights):
        blocks.append([float(height) - i * gap, 1])
        while len(blocks) > 1 and _level(blocks[-2]) >= _level(blocks[-1]):
            total, number = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + number]
    levels = np.array([_level(block) for block in blocks for _ in range(int(block[1]))])
    top = max(0.0, 1 - (len(heights) - 1) * gap)
    return np.clip(levels, 0, top) + np.arange(len(heights)) * gap


def _level(block: list[float]) -> float:
    return block[0] / block[1]
