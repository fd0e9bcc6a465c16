"""Pictures of behaviour, drawn with matplotlib and answered as PNG.

They are made for TensorBoard, which shows them about 400 points wide: 600 across, large letters, an
opaque white ground (legible in the dark as well), colours that the colour-blind tell apart. The
same arrays give the same bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.core import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 6.0, 100  # inches, and points an inch
LEFT, RIGHT, GAP = 0.72, 1.05, 0.3  # inches beside and between panels; right is the scale's
BLUE, ORANGE, RED, INK, GREY = "#0072B2", "#F0B94D", "#D55E00", "#000000", "#595959"
SKY = "#56B4E9"
FOOT, SMALL, USUAL = 9, 11, 12  # of letters, in points
MOST_RETURNS, BINS = 12, 30  # different returns that get a bar each, bars of more
TICKS = 5  # different returns that are all written at the axis


def blank(height: float) -> Figure:
    """An empty picture of `height` inches; UsageError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            f"no picture without matplotlib ({error}): pip install -e .[plot]"
        ) from error
    return Figure((WIDTH, height), dpi=DPI, facecolor="white")


def png(figure: Figure) -> bytes:
    """The picture as a file, without a date or a version in it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """A panel at a place in inches."""
    across, up = figure.get_size_inches()
    panel = figure.add_axes((left / across, bottom / up, width / across, height / up))
    panel.tick_params(labelsize=SMALL)
    return panel


def head(panel: Axes, text: str) -> None:
    """A heading above a panel, at its left."""
    panel.set_title(text, loc="left", fontsize=USUAL, fontweight="bold")


def note(figure: Figure, text: str) -> None:
    """A line at the foot of a picture."""
    figure.text(LEFT / WIDTH, 0.08 / figure.get_figheight(), text, fontsize=FOOT, color=GREY)


def show_scale(
    figure: Figure, scale: Any, bottom: float, height: float, label: str, ticks: int = 5
) -> None:
    """A scale of colours at the right of a picture, as high as the panels beside it."""
    panel = place(figure, WIDTH - RIGHT + 0.12, bottom, 0.14, height)
    bar = figure.colorbar(scale, cax=panel)
    bar.set_label(label, fontsize=SMALL)
    bar.locator = few_ticks(ticks)
    panel.tick_params(labelsize=SMALL)


def few_ticks(n: int, whole: bool = False) -> Any:
    """At most n or so, at round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(n, integer=whole)


def draw_returns(returns: np.ndarray, low: float, high: float, truncated: int) -> Figure:
    """How the returns of an evaluation [episodes] are spread, with their mean and its interval."""
    figure = blank(2.9)
    panel = place(figure, LEFT, 0.85, WIDTH - LEFT - 0.2, 1.72)
    different = np.unique(returns)
    if len(different) <= MOST_RETURNS:
        counts = [int((returns == value).sum()) for value in different]
        gap = float(np.diff(different).min()) if len(different) > 1 else 1.0
        panel.bar(different, counts, 0.7 * gap, color=SKY)
        panel.set_xlim(different[0] - gap, different[-1] + gap)
    else:
        panel.hist(returns, BINS, color=SKY)
    panel.margins(y=0.12)
    mean = float(returns.mean())
    panel.axvspan(low, high, color=RED, alpha=0.25, linewidth=0)
    panel.axvline(mean, color=RED, linewidth=1.8)
    head(panel, f"{len(returns):,} greedy episodes: mean return {mean:.4g}")
    panel.set_xlabel("return of an episode (sum of its rewards)", fontsize=SMALL)
    panel.set_ylabel("episodes", fontsize=SMALL)
    panel.xaxis.set_major_locator(few_ticks(8))
    if len(different) <= TICKS:
        panel.set_xticks(different, [f"{value:g}" for value in different])
    panel.yaxis.set_major_locator(few_ticks(5, whole=True))
    panel.spines[["top", "right"]].set_visible(False)
    cut = f".   {truncated:,} episodes cut" if truncated else ""
    note(figure, f"line and band: the mean, 95 % interval {low:.4g} to {high:.4g}{cut}")
    return figure
