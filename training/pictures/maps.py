"""Drawings of policies as maps: grid worlds, Taxi, Blackjack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.envs.grids import Grid
from seqrl.training.pictures import canvas
from seqrl.training.pictures.behaviour import CARDS, SUMS, Policies, Policy
from seqrl.training.pictures.canvas import (
    BLACK,
    EDGE,
    FOOT,
    GAP,
    HEAD,
    LABEL,
    LEFT,
    RED,
    RIGHT,
    WIDTH,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = ["#FFFFFF", "#CFE5F3", "#7FBBDD", "#3F9BCF"]  # of values, light enough for black arrows
ARROWS = {"←": (-1, 0), "→": (1, 0), "↑": (0, -1), "↓": (0, 1)}  # (x, y), y down
CELL_COLOURS = {"H": "#3C3C3C", "C": "#3C3C3C", "G": "#009E73"}  # holes, cliff, goal
START_FRAME = 0.45 * np.array([(-1, 1, 1, -1, -1), (-1, -1, 1, 1, -1)])  # around the start
TEXT_STYLE: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": "bold"}
ARROW_STYLE: dict[str, Any] = {"units": "xy", "angles": "xy", "scale_units": "xy", "scale": 1.7}
ARROW_STYLE |= {"pivot": "mid", "headwidth": 4, "headlength": 4}
CROSS = "\N{MULTIPLICATION SIGN}"


def value_colours(policies: Sequence[Policy], mask: np.ndarray) -> Any:
    """Return the mapping from values to colours shared by all policies; None without values."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    values = [policy.values[mask] for policy in policies if policy.values is not None]
    if not values:
        return None
    low, high = min(map(np.min, values)), max(map(np.max, values))
    norm = Normalize(low, high if high > low else low + 1)
    return ScalarMappable(norm, LinearSegmentedColormap.from_list("value", SHADES))


def draw_grid(grid: Grid, policy: Policies) -> Figure:
    """Draw values as colours and greedy actions as arrows, the optimal ones beside or below."""
    policies = [policy.learned] + ([policy.optimal] if policy.optimal else [])
    rows, columns = policy.reachable.shape
    beside = len(policies) == 2 and columns <= 1.5 * rows
    across = 2 if beside else 1
    width = (WIDTH - LEFT - RIGHT - GAP * (across - 1)) / across
    width = min(width, 2.4 * columns / rows)
    height, gap = width * rows / columns, 0.45
    down = len(policies) // across
    figure = canvas.new_figure(FOOT + down * height + (down - 1) * gap + HEAD)
    scale = value_colours(policies, policy.reachable)
    bottoms = [FOOT + (down - 1 - i // across) * (height + gap) for i in range(len(policies))]
    for i, (greedy, name) in enumerate(zip(policies, ("learned", "best possible"), strict=False)):
        left = LEFT + (i % across) * (width + GAP)
        panel = canvas.add_panel(figure, left, bottoms[i], width, height)
        draw_cells(panel, grid, policy, greedy, scale)
        canvas.set_title(panel, name)
        panel.tick_params(labelleft=i % across == 0)
        last = bottoms[i] == bottoms[-1]
        canvas.set_labels(panel, "column" if last else "", "row" if i % across == 0 else "")
    if scale is not None:
        tall = bottoms[0] + height - bottoms[-1]
        canvas.colour_bar(figure, scale, bottoms[-1], tall, value_label(policy.gamma))
    start = "frame: start" if "S" in "".join(grid.cells) else ""
    canvas.add_note(figure, start, suboptimal_note(policy, "red"))
    return figure


def value_label(gamma: float) -> str:
    """Return the label of the colour bar."""
    return "value" if gamma == 1 else f"value, gamma {gamma:g}"


def suboptimal_note(policy: Policies, mark: str) -> str:
    """Return a line that counts the suboptimal actions; "" where the optimum is unknown."""
    if policy.optimal is None:
        return ""
    wrong, states = int(policy.suboptimal.sum()), int(policy.reachable.sum())
    return f"{mark}: not a best action, {wrong} of {states} states"


def draw_cells(panel: Axes, grid: Grid, policy: Policies, greedy: Policy, scale: Any) -> None:
    """Draw the map of one policy."""
    from matplotlib.colors import to_rgba

    cells = np.array([list(row) for row in grid.cells])
    colours = np.ones((*cells.shape, 4))
    if scale is not None and greedy.values is not None:
        colours = scale.to_rgba(greedy.values)
    for letter, colour in CELL_COLOURS.items():
        colours[cells == letter] = to_rgba(colour)
    panel.imshow(colours, aspect="equal", interpolation="nearest")
    size = min(11.0, 40 * panel.get_position().width * WIDTH / cells.shape[1])
    for y, x in np.argwhere(np.isin(cells, ["H", "C", "G"])):
        panel.text(x, y, cells[y, x], color="white", fontsize=size, **TEXT_STYLE)
    wrong = policy.suboptimal & (greedy is policy.learned)
    draw_arrows(panel, [grid.arrows[a] for a in greedy.actions.ravel()], policy.reachable, wrong)
    draw_cell_borders(panel, cells.shape)
    for y, x in np.argwhere(cells == "S"):
        panel.plot(x + START_FRAME[0], y + START_FRAME[1], color=BLACK, linewidth=1.8)


def draw_cell_borders(panel: Axes, shape: tuple[int, ...]) -> None:
    """Draw lines between the cells, and number them."""
    rows, columns = shape[:2]
    thin: dict[str, Any] = {"color": "0.7", "linewidth": 0.6}
    panel.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, **thin)
    panel.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, **thin)
    panel.xaxis.set_major_locator(canvas.max_ticks(5, whole=True))
    panel.yaxis.set_major_locator(canvas.max_ticks(5, whole=True))
    panel.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def draw_arrows(panel: Axes, symbols: Sequence[str], mask: np.ndarray, wrong: np.ndarray) -> None:
    """Draw an arrow in each cell of a mask [rows, columns]; other symbols as text."""
    cells, n = np.argwhere(mask), mask.shape[1]
    marks = [(x, y, symbols[y * n + x], bool(wrong[y, x])) for y, x in cells]
    moves = [(x, y, *ARROWS[symbol], bad) for x, y, symbol, bad in marks if symbol in ARROWS]
    for colour, chosen in ((BLACK, False), (RED, True)):
        some = np.array([(x, y, u, v) for x, y, u, v, bad in moves if bad is chosen], float)
        if len(some):
            x, y, u, v = some.T
            panel.quiver(x, y, u, v, color=colour, width=0.1 if chosen else 0.07, **ARROW_STYLE)
    for x, y, symbol, bad in marks:
        if symbol not in ARROWS:
            panel.text(x, y, symbol, color=RED if bad else BLACK, fontsize=LABEL, **TEXT_STYLE)


# Taxi

LOCATIONS = "RGYB"
TAXI_ACTIONS = "↓↑→←PD"


def draw_taxi(desc: np.ndarray, policy: Policies) -> Figure:
    """Draw eight maps: the way to a passenger at each location, and with one aboard to each.

    Arrays [row, column, passenger, destination]; `desc` is the environment's own map.
    """
    gap, between, foot = 0.08, 0.52, 0.34
    size = (WIDTH - EDGE - RIGHT - 3 * gap) / 4
    figure = canvas.new_figure(foot + 2 * size + 2 * between)
    scale = value_colours([policy.learned], policy.reachable)
    for k in range(8):
        i, aboard = k % 4, k >= 4
        at = (4, i) if aboard else (i, (i + 1) % 4)
        left, bottom = EDGE + i * (size + gap), foot if aboard else foot + size + between
        panel = canvas.add_panel(figure, left, bottom, size, size)
        values = policy.learned.values
        colours = np.ones((5, 5, 4)) if values is None else scale.to_rgba(values[:, :, *at])
        panel.imshow(colours, interpolation="nearest")
        draw_cell_borders(panel, (5, 5))
        symbols = [TAXI_ACTIONS[a] for a in policy.learned.actions[:, :, *at].ravel()]
        draw_arrows(panel, symbols, policy.reachable[:, :, *at], policy.suboptimal[:, :, *at])
        draw_walls(panel, desc)
        panel.set(xticks=[], yticks=[])
        canvas.set_title(panel, f"{'' if aboard else LOCATIONS[i]} → {LOCATIONS[at[1]]}")
    canvas.add_heading(figure, "passenger waits (P: pick up)")
    middle = (foot + size + 0.28) / figure.get_figheight()
    figure.text(EDGE / WIDTH, middle, "passenger aboard (D: drop off)", fontsize=LABEL)
    if scale is not None:
        canvas.colour_bar(figure, scale, foot, 2 * size + between, value_label(policy.gamma))
    canvas.add_note(figure, suboptimal_note(policy, "red"))
    return figure


def draw_walls(panel: Axes, desc: np.ndarray) -> None:
    """Draw the walls between columns, | in the map, whose odd columns hold the cells."""
    cells = desc[1:6].astype(str)
    for y, x in np.argwhere(cells[:, 2:10:2] == "|"):
        panel.plot([x + 0.5] * 2, [y - 0.5, y + 0.5], color=BLACK, linewidth=2)


# Blackjack


def draw_blackjack(policy: Policies) -> Figure:
    """Draw actions and values, with and without a usable ace (Sutton & Barto, Figure 5.2)."""
    height, between = 1.2, 0.3
    figure = canvas.new_figure(FOOT + 2 * height + between + HEAD)
    upper, width = FOOT + height + between, (WIDTH - LEFT - RIGHT - GAP) / 2
    scale = value_colours([policy.learned], policy.reachable)
    for k, ace in enumerate((1, 0)):
        left = LEFT + k * (width + GAP)
        above = canvas.add_panel(figure, left, upper, width, height)
        draw_hands(above, policy, ace)
        canvas.set_title(above, "usable ace" if ace else "no usable ace")
        below = canvas.add_panel(figure, left, FOOT, width, height)
        if scale is not None and policy.learned.values is not None:
            below.imshow(scale.to_rgba(policy.learned.values[ace]), **IMAGE_STYLE)
        for panel in (above, below):
            panel.set_xticks(range(0, 10, 2), ["A", *map(str, CARDS[2::2])])
            panel.set_yticks(range(0, 11, 2), map(str, SUMS[::2]))
            across = "dealer's card" if panel is below else ""
            canvas.set_labels(panel, across, "" if k else "player's sum")
            panel.tick_params(labelleft=not k)
            if ace:  # which makes 11 impossible
                panel.axhspan(-0.5, 0.5, color="0.85", zorder=3)
    add_legend(figure, upper + height)
    if scale is not None:
        canvas.colour_bar(figure, scale, FOOT, height, "value")
    canvas.add_note(figure, suboptimal_note(policy, CROSS))
    return figure


IMAGE_STYLE: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}


def draw_hands(panel: Axes, policy: Policies, ace: int) -> None:
    """Draw hit or stick by sum and card, the optimal boundary as a line, errors as crosses."""
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([canvas.ORANGE, canvas.BLUE])
    actions, contrast = policy.learned.actions[ace], (BLACK, "white")
    panel.imshow(actions, cmap=colours, vmin=0, vmax=1, **IMAGE_STYLE)
    for y, x in np.argwhere(policy.suboptimal[ace]):
        panel.text(x, y, CROSS, color=contrast[actions[y, x]], fontsize=8.5, zorder=4, **TEXT_STYLE)
    assert policy.optimal is not None
    best = policy.optimal.actions[ace]
    line: dict[str, Any] = {"color": BLACK, "linewidth": 2.2, "zorder": 5}
    low = 1 if ace else 0
    for y, x in np.argwhere(best[low:-1] != best[low + 1 :]):
        panel.plot([x - 0.5, x + 0.5], [y + low + 0.5] * 2, **line)
    for y, x in np.argwhere(best[low:, :-1] != best[low:, 1:]):
        panel.plot([x + 0.5] * 2, [y + low - 0.5, y + low + 0.5], **line)


def add_legend(figure: Figure, top: float) -> None:
    """Add the legend of the upper maps, at their right, `top` inches from the bottom."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    patches = [Patch(color=canvas.ORANGE, label="stick"), Patch(color=canvas.BLUE, label="hit")]
    line = Line2D([], [], color=BLACK, linewidth=2.2, label="best:\nstick\nabove")
    across, up = figure.get_size_inches()
    anchor = ((WIDTH - RIGHT + 0.1) / across, top / up)
    style: dict[str, Any] = {"fontsize": LABEL, "frameon": False, "handlelength": 1.2}
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": anchor, "borderpad": 0}
    figure.legend(handles=[*patches, line], **style, **place)
