"""compare.png: a comparison's learning curves with their bands, and the scores of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core import UsageError
from seqrl.training.compare import Row, Table, curves
from seqrl.training.recorded import WINDOW
from seqrl.training.statistics import Estimate, Floats, bootstrap, mean

# Okabe and Ito's colours, which the colour-blind tell apart, neighbours light and dark; the line
# styles tell the curves apart in grey.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#D55E00", "#56B4E9")
STYLES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))
SIZE = (8.0, 3.6)  # inches of an environment, without the names
LETTER = 0.12  # inches for each letter of the longest name, which is written twice
SHARES = (3.2, 1)  # of its width: curves, scores
GAP = 0.055  # between the labels of two curves, in heights of a panel


def draw(table: Table, path: Path) -> None:
    """Write the picture: learning curves and scores of each environment side by side.

    Raises UsageError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            f"no picture without matplotlib ({error}): pip install -e .[plot]"
        ) from error
    envs = table.envs
    longest = max(len(shortened(row.group.name)) for row in table.rows)
    size = (SIZE[0] + LETTER * longest, SIZE[1] * len(envs))
    figure = Figure(size, layout="constrained")
    panels = figure.subplots(len(envs), 2, squeeze=False, width_ratios=SHARES)
    for (left, right), env in zip(panels, envs, strict=True):
        draw_curves(left, table, env)
        draw_scores(right, table, env)
    figure.savefig(path, dpi=110)


def draw_curves(panel: Any, table: Table, env: str) -> None:
    """The mean curve of each algorithm, its 95 % interval as a band, its name at the end."""
    grid, found = curves(table, env)
    bands = {name: bootstrap(values, mean) for name, values in found.items()}
    ends = {}
    for i, (name, band) in enumerate(bands.items()):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        panel.fill_between(grid, band.low, band.high, color=colour, alpha=0.25, linewidth=0)
        panel.plot(grid, band.value, color=colour, linestyle=style, linewidth=1.8)
        last = np.flatnonzero(~np.isnan(band.value))
        if len(last):
            ends[name] = (float(band.value[last[-1]]), colour)
    low, high, cut = limits(list(bands.values()), table.scales.get(env))
    panel.set_ylim(low, high)
    panel.set_xlim(0, grid[-1])
    write_names(panel, ends)
    draw_best(panel, table, env)
    if cut:
        write(panel, "lower values are cut off", (0.99, 0.01), "axes fraction", "0.35", ha="right")
    dress(panel, f"{env}: mean of {runs_in(table.within(env))} runs, 95 % interval")
    panel.set_xlabel("env steps")
    panel.locator_params(axis="x", nbins=5)
    panel.set_ylabel(f"return, mean of {WINDOW} episodes")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    panel.grid(axis="y", color="0.9", linewidth=0.6)


def draw_best(panel: Any, table: Table, env: str) -> None:
    """A line at the best that is possible, where it is known and in sight."""
    scale = table.scales.get(env)
    low, high = panel.get_ylim()
    if scale and low <= scale[1] <= high:
        panel.axhline(scale[1], color="0.45", linewidth=0.8, zorder=0)
        text = f"best possible {scale[1]:.4g}"
        write(panel, text, (0.01, scale[1]), ("axes fraction", "data"), "0.35")


def draw_scores(panel: Any, table: Table, env: str) -> None:
    """Every run's score as a dot, the mean of each algorithm with its interval."""
    rows = table.within(env)
    for i, row in enumerate(rows):
        colour, known = COLOURS[i % len(COLOURS)], row.group.scores[~np.isnan(row.group.scores)]
        spread = i + np.linspace(-0.18, 0.18, len(known))  # equal scores stay visible
        panel.plot(known, spread, "o", color=colour, alpha=0.45, markersize=4, linewidth=0)
        value, low, high = (float(part) for part in row.score["mean"])
        panel.plot([low, high], [i - 0.3] * 2, color=darker(colour), linewidth=1.5)
        panel.plot(value, i - 0.3, "D", color=darker(colour), markersize=5)
        text = f"{shortened(row.group.name)} {value:.4g}"
        write(panel, text, (value, i - 0.36), "data", darker(colour), ha="center", size=9)
    panel.set_ylim(len(rows) - 0.6, -0.7)  # the first on top
    panel.set_yticks([])
    panel.margins(x=0.35)
    panel.locator_params(axis="x", nbins=3)
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.6g}")
    dress(panel, table.metric)
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("dot: a run; diamond: the mean", fontsize=9)


def runs_in(rows: list[Row]) -> str:
    """How many runs the algorithms have: 10, or 9 to 10."""
    counts = sorted({len(row.group.runs) - len(row.group.missing) for row in rows})
    return " to ".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))


def write(
    panel: Any, text: str, at: Any, space: Any, colour: str, ha: str = "left", size: int = 8
) -> None:
    """Small words just above a place."""
    offset = {"xytext": (0, 3), "textcoords": "offset points", "annotation_clip": False}
    panel.annotate(text, at, xycoords=space, color=colour, fontsize=size, ha=ha, **offset)


def dress(panel: Any, title: str) -> None:
    """Title and spines."""
    panel.set_title(title, loc="left", fontsize=10, fontweight="bold")
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_axisbelow(True)


def limits(bands: list[Estimate], scale: tuple[float, float] | None) -> tuple[float, float, bool]:
    """The ends of the axis, and whether it cuts: the first clumsy episodes may leave it below.

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
    """Each curve's name and last value right of its end, moved apart where they would overlap."""
    low, high = panel.get_ylim()
    order = sorted(ends, key=lambda name: ends[name][0])
    heights = apart(np.array([(ends[name][0] - low) / (high - low) for name in order]), GAP)
    for name, height in zip(order, heights.tolist(), strict=True):
        value, colour = ends[name]
        panel.annotate(
            f"{shortened(name)} {value:.4g}",
            (1.0, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=darker(colour),
            annotation_clip=False,
        )


def shortened(name: str, most: int = 32) -> str:
    """A long name without its middle; the settings at its end tell it from others."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[-most + most // 3 + 1 :]}"


def darker(colour: str) -> str:
    """A colour that is legible as text on white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    bright = 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]
    factor = min(1.0, 105 / max(bright, 1))
    return "#" + "".join(f"{int(part * factor):02x}" for part in parts)


def apart(heights: Floats, gap: float) -> Floats:
    """Ascending heights [k] moved as little as it takes to be `gap` apart, in [0, 1] if they fit.

    Neighbours that are too close become a block around their middle.
    """
    blocks: list[list[float]] = []  # the sum of what its members ask for, and their number
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
