"""What all pictures share: size, fonts, panels, colour bars and PNG output; and that of returns.

TensorBoard shows them about 350 pixels wide, where a point is then 1.2 pixels: hence no font below
8.5 points, 600 pixels in all for sharp screens, an opaque white background (legible in dark mode
too) and colours that the colour-blind tell apart. The same arrays give the same bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 4.0, 150  # inches, pixels per inch
LEFT, RIGHT, GAP = 0.6, 0.92, 0.16  # inches beside and between panels; the colour bar is right
FOOT, HEAD = (
    0.8,
    0.28,
)  # inches below the lowest panel, for its labels and a note; above the highest
EDGE = 0.08  # inches around text at the edge
BLUE, ORANGE, RED, BLACK, GREY = "#0072B2", "#F0B94D", "#D55E00", "#000000", "#595959"
LIGHT_BLUE = "#56B4E9"
NOTE, LABEL, TITLE = 8.5, 9.5, 10.5  # font sizes in points
NOTE_WIDTH = 58  # characters a line
MAX_BARS, BINS = 12, 30  # distinct returns with a bar each; bins of a histogram of others
MAX_TICKS = 5  # distinct returns that each get a tick


def new_figure(height: float) -> Figure:
    """Return an empty figure of `height` inches; UsageError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        problem = f"no picture without matplotlib ({error})"
        raise UsageError(f"{problem}: pip install -e .[plot]") from error
    return Figure((WIDTH, height), dpi=DPI, facecolor="white")


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG, without a date or a version in it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def add_panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Return new axes at a position in inches."""
    across, up = figure.get_size_inches()
    panel = figure.add_axes((left / across, bottom / up, width / across, height / up))
    panel.tick_params(labelsize=LABEL)
    return panel


def set_title(panel: Axes, text: str) -> None:
    """Set the title of a panel, aligned left."""
    panel.set_title(text, loc="left", fontsize=TITLE, pad=4)


def set_labels(panel: Axes, across: str, up: str) -> None:
    """Set the labels of a panel's axes."""
    panel.set_xlabel(across, fontsize=LABEL, labelpad=2)
    panel.set_ylabel(up, fontsize=LABEL, labelpad=2)


def add_note(figure: Figure, *parts: str) -> None:
    """Write one or two texts at the bottom of a figure, in one line where there is room."""
    known = [part for part in parts if part]
    line = "; ".join(known)
    text = line if len(line) <= NOTE_WIDTH else "\n".join(known)
    figure.text(EDGE / WIDTH, EDGE / figure.get_figheight(), text, fontsize=NOTE, color=GREY)


def add_heading(figure: Figure, text: str) -> None:
    """Write a line at the top of a figure."""
    top = 1 - EDGE / figure.get_figheight()
    figure.text(EDGE / WIDTH, top, text, fontsize=LABEL, va="top")


def colour_bar(
    figure: Figure, colours: Any, bottom: float, height: float, label: str, ticks: int = 5
) -> None:
    """Add a colour bar at the right of a figure, at `bottom` and of `height` inches."""
    panel = add_panel(figure, WIDTH - RIGHT + 0.1, bottom, 0.12, height)
    bar = figure.colorbar(colours, cax=panel)
    bar.set_label(label, fontsize=LABEL)
    bar.locator = max_ticks(ticks)
    panel.tick_params(pad=2)


def max_ticks(n: int, whole: bool = False) -> Any:
    """Return a locator of about n ticks at most, at round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(n, integer=whole)


def draw_returns(returns: np.ndarray, low: float, high: float, truncated: int) -> Figure:
    """Draw the distribution of an evaluation's returns [episodes], their mean and its interval."""
    height = 1.3
    figure = new_figure(FOOT + height + HEAD)
    panel = add_panel(figure, LEFT, FOOT, WIDTH - LEFT - 0.15, height)
    distinct = np.unique(returns)
    gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
    if len(distinct) <= MAX_BARS and gap * BINS >= np.ptp(distinct):
        counts = [int((returns == value).sum()) for value in distinct]
        panel.bar(distinct, counts, 0.7 * gap, color=LIGHT_BLUE)
        panel.set_xlim(distinct[0] - gap, distinct[-1] + gap)
    else:
        panel.hist(returns, BINS, color=LIGHT_BLUE)
    panel.margins(y=0.12)
    mean = float(returns.mean())
    if low <= high:  # a single episode has no interval
        panel.axvspan(low, high, color=RED, alpha=0.25, linewidth=0)
    panel.axvline(mean, color=RED, linewidth=1.8)
    set_title(panel, f"{len(returns):,} greedy episodes: mean return {mean:.4g}")
    set_labels(panel, "return of an episode (sum of rewards)", "episodes")
    panel.xaxis.set_major_locator(max_ticks(6))
    if len(distinct) <= MAX_TICKS:
        panel.set_xticks(distinct, [f"{value:g}" for value in distinct])
    panel.yaxis.set_major_locator(max_ticks(5, whole=True))
    panel.spines[["top", "right"]].set_visible(False)
    band = f" and band: the mean, 95 % interval {low:.4g} to {high:.4g}"
    known = f"line{band if low <= high else ': the mean'}"
    add_note(figure, known, f"{truncated:,} at a time limit" if truncated else "")
    return figure
