"""What all pictures share: size, fonts, panels, colour bars and PNG output; and that of returns.

TensorBoard shows them about 400 pixels wide: hence 600 across, a large font, an opaque white
background (legible in dark mode too) and colours that the colour-blind tell apart. The same arrays
give the same bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 6.0, 100  # inches, pixels per inch
LEFT, RIGHT, GAP = 0.72, 1.05, 0.3  # inches beside and between panels; the colour bar is right
BLUE, ORANGE, RED, BLACK, GREY = "#0072B2", "#F0B94D", "#D55E00", "#000000", "#595959"
LIGHT_BLUE = "#56B4E9"
NOTE, LABEL, TITLE = 9, 11, 12  # font sizes in points
MAX_BARS, BINS = 12, 30  # distinct returns with a bar each; bins of a histogram of more
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
    panel.set_title(text, loc="left", fontsize=TITLE, fontweight="bold")


def set_labels(panel: Axes, across: str, up: str) -> None:
    """Set the labels of a panel's axes."""
    panel.set_xlabel(across, fontsize=LABEL)
    panel.set_ylabel(up, fontsize=LABEL)


def add_note(figure: Figure, text: str) -> None:
    """Write a line at the bottom of a figure."""
    figure.text(LEFT / WIDTH, 0.08 / figure.get_figheight(), text, fontsize=NOTE, color=GREY)


def colour_bar(
    figure: Figure, colours: Any, bottom: float, height: float, label: str, ticks: int = 5
) -> None:
    """Add a colour bar at the right of a figure, at `bottom` and of `height` inches."""
    panel = add_panel(figure, WIDTH - RIGHT + 0.12, bottom, 0.14, height)
    bar = figure.colorbar(colours, cax=panel)
    bar.set_label(label, fontsize=LABEL)
    bar.locator = max_ticks(ticks)


def max_ticks(n: int, whole: bool = False) -> Any:
    """Return a locator of about n ticks at most, at round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(n, integer=whole)


def draw_returns(returns: np.ndarray, low: float, high: float, truncated: int) -> Figure:
    """Draw the distribution of an evaluation's returns [episodes], their mean and its interval."""
    figure = new_figure(2.9)
    panel = add_panel(figure, LEFT, 0.85, WIDTH - LEFT - 0.2, 1.72)
    distinct = np.unique(returns)
    if len(distinct) <= MAX_BARS:
        counts = [int((returns == value).sum()) for value in distinct]
        gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
        panel.bar(distinct, counts, 0.7 * gap, color=LIGHT_BLUE)
        panel.set_xlim(distinct[0] - gap, distinct[-1] + gap)
    else:
        panel.hist(returns, BINS, color=LIGHT_BLUE)
    panel.margins(y=0.12)
    mean = float(returns.mean())
    panel.axvspan(low, high, color=RED, alpha=0.25, linewidth=0)
    panel.axvline(mean, color=RED, linewidth=1.8)
    set_title(panel, f"{len(returns):,} greedy episodes: mean return {mean:.4g}")
    set_labels(panel, "return of an episode (sum of its rewards)", "episodes")
    panel.xaxis.set_major_locator(max_ticks(8))
    if len(distinct) <= MAX_TICKS:
        panel.set_xticks(distinct, [f"{value:g}" for value in distinct])
    panel.yaxis.set_major_locator(max_ticks(5, whole=True))
    panel.spines[["top", "right"]].set_visible(False)
    cut = f".   {truncated:,} episodes cut" if truncated else ""
    add_note(figure, f"line and band: the mean, 95 % interval {low:.4g} to {high:.4g}{cut}")
    return figure
