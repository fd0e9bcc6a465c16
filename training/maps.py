"""Policies as maps: grid worlds, Taxi, Blackjack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.envs.grids import Grid
from seqrl.training.behaviour import CARDS, SUMS, Plan, Policy
from seqrl.training.pictures import (
    BLUE,
    GAP,
    INK,
    LEFT,
    ORANGE,
    RED,
    RIGHT,
    SMALL,
    USUAL,
    WIDTH,
    blank,
    few_ticks,
    head,
    note,
    place,
    show_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = ["#FFFFFF", "#CFE5F3", "#7FBBDD", "#3F9BCF"]  # of a value, light enough for black arrows
STEPS = {"←": (-1, 0), "→": (1, 0), "↑": (0, -1), "↓": (0, 1)}  # columns, rows
CELLS = {"H": "#3C3C3C", "C": "#3C3C3C", "G": "#009E73"}  # holes, cliff, goal
FRAME = 0.45 * np.array([(-1, 1, 1, -1, -1), (-1, -1, 1, 1, -1)])  # around the start
LETTER: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": "bold"}
ARROW: dict[str, Any] = {"units": "xy", "angles": "xy", "scale_units": "xy", "scale": 1.7}
ARROW |= {"pivot": "mid", "headwidth": 4, "headlength": 4}
CROSS = "\N{MULTIPLICATION SIGN}"


def value_scale(plans: Sequence[Plan], asked: np.ndarray) -> Any:
    """From values to colours, the same for all plans; None where there are no values."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    known = [plan.values[asked] for plan in plans if plan.values is not None]
    if not known:
        return None
    low, high = min(map(np.min, known)), max(map(np.max, known))
    norm = Normalize(low, high if high > low else low + 1)
    return ScalarMappable(norm, LinearSegmentedColormap.from_list("value", SHADES))


def draw_grid(grid: Grid, policy: Policy) -> Figure:
    """Values as colours with the greedy actions as arrows, the best possible beside or below."""
    plans = [policy.learned] + ([policy.best] if policy.best else [])
    rows, columns = policy.asked.shape
    beside = len(plans) == 2 and columns <= 1.5 * rows
    across = 2 if beside else 1
    width = (WIDTH - LEFT - RIGHT - GAP * (across - 1)) / across
    width = min(width, 3.6 * columns / rows)
    height = width * rows / columns
    down = len(plans) // across
    figure = blank(0.98 + down * height + (down - 1) * 0.55)
    scale = value_scale(plans, policy.asked)
    bottoms = [0.68 + (down - 1 - i // across) * (height + 0.55) for i in range(len(plans))]
    for i, (plan, name) in enumerate(zip(plans, ("learned", "best possible"), strict=False)):
        panel = place(figure, LEFT + (i % across) * (width + GAP), bottoms[i], width, height)
        draw_cells(panel, grid, policy, plan, scale)
        head(panel, name)
        panel.tick_params(labelleft=i % across == 0)
        panel.set_ylabel("row" if i % across == 0 else "", fontsize=SMALL)
        panel.set_xlabel("column" if bottoms[i] == bottoms[-1] else "", fontsize=SMALL)
    if scale is not None:
        tall = bottoms[0] + height - bottoms[-1]
        show_scale(figure, scale, bottoms[-1], tall, value_name(policy.gamma))
    start = "frame: start" if "S" in "".join(grid.cells) else ""
    note(figure, ".   ".join(filter(None, (start, count_wrong(policy, "red")))))
    return figure


def value_name(gamma: float) -> str:
    """What the colours of a value mean."""
    return "value (expected return)" if gamma == 1 else f"value (return, gamma {gamma:g})"


def count_wrong(policy: Policy, mark: str) -> str:
    """How often the policy is worse than the best."""
    if policy.best is None:
        return ""
    wrong, asked = int(policy.wrong.sum()), int(policy.asked.sum())
    return f"{mark}: worse than the best action, {wrong} of {asked} states"


def draw_cells(panel: Axes, grid: Grid, policy: Policy, plan: Plan, scale: Any) -> None:
    """One map."""
    from matplotlib.colors import to_rgba

    cells = np.array([list(row) for row in grid.cells])
    colours = np.ones((*cells.shape, 4))
    if scale is not None and plan.values is not None:
        colours = scale.to_rgba(plan.values)
    for letter, colour in CELLS.items():
        colours[cells == letter] = to_rgba(colour)
    panel.imshow(colours, aspect="equal", interpolation="nearest")
    size = min(12.0, 130.0 / max(cells.shape))
    for y, x in np.argwhere(np.isin(cells, ["H", "C", "G"])):
        panel.text(x, y, cells[y, x], color="white", fontsize=size, **LETTER)
    wrong = policy.wrong & (plan is policy.learned)
    draw_arrows(panel, [grid.arrows[a] for a in plan.actions.ravel()], policy.asked, wrong)
    rule(panel, cells.shape)
    for y, x in np.argwhere(cells == "S"):
        panel.plot(x + FRAME[0], y + FRAME[1], color=INK, linewidth=1.8)


def rule(panel: Axes, shape: tuple[int, ...]) -> None:
    """Lines between cells, and their numbers."""
    rows, columns = shape[:2]
    thin: dict[str, Any] = {"color": "0.7", "linewidth": 0.6}
    panel.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, **thin)
    panel.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, **thin)
    panel.xaxis.set_major_locator(few_ticks(9, whole=True))
    panel.yaxis.set_major_locator(few_ticks(9, whole=True))
    panel.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def draw_arrows(panel: Axes, symbols: Sequence[str], asked: np.ndarray, wrong: np.ndarray) -> None:
    """An arrow in each cell [rows, columns] where an action is asked for; other symbols as text."""
    places = [
        (x, y, symbols[y * asked.shape[1] + x], bool(wrong[y, x])) for y, x in np.argwhere(asked)
    ]
    moves = [(x, y, *STEPS[symbol], bad) for x, y, symbol, bad in places if symbol in STEPS]
    for colour, chosen in ((INK, False), (RED, True)):
        some = np.array([(x, y, u, v) for x, y, u, v, bad in moves if bad is chosen], float)
        if len(some):
            x, y, u, v = some.T
            panel.quiver(x, y, u, v, color=colour, width=0.1 if chosen else 0.07, **ARROW)
    for x, y, symbol, bad in places:
        if symbol not in STEPS:
            panel.text(x, y, symbol, color=RED if bad else INK, fontsize=SMALL, **LETTER)


# Taxi

STANDS = "RGYB"
TAXI = "↓↑→←PD"


def draw_taxi(desc: np.ndarray, policy: Policy) -> Figure:
    """Eight maps: the way to a passenger at each stand, and with one aboard to each stand.

    Arrays [row, column, passenger, destination]; `desc` is the environment's own map.
    """
    figure, size = blank(3.55), 1.02
    scale = value_scale([policy.learned], policy.asked)
    for k in range(8):
        i, aboard = k % 4, k >= 4
        at = (4, i) if aboard else (i, (i + 1) % 4)
        left, bottom = LEFT + i * (size + 0.11), 0.42 if aboard else 1.95
        panel = place(figure, left, bottom, size, size)
        values = policy.learned.values
        shown = np.ones((5, 5, 4)) if values is None else scale.to_rgba(values[:, :, *at])
        panel.imshow(shown, interpolation="nearest")
        rule(panel, (5, 5))
        symbols = [TAXI[a] for a in policy.learned.actions[:, :, *at].ravel()]
        draw_arrows(panel, symbols, policy.asked[:, :, *at], policy.wrong[:, :, *at])
        draw_walls(panel, desc)
        panel.set(xticks=[], yticks=[])
        goal = f"to {STANDS[i]}" if aboard else f"{STANDS[i]}, then {STANDS[at[1]]}"
        head(panel, goal)
    figure.text(LEFT / WIDTH, 3.26 / 3.55, "passenger waits at ... (P: pick up)", fontsize=USUAL)
    figure.text(LEFT / WIDTH, 1.73 / 3.55, "passenger aboard (D: drop off)", fontsize=USUAL)
    if scale is not None:
        show_scale(figure, scale, 0.42, 2.55, value_name(policy.gamma))
    note(figure, count_wrong(policy, "red"))
    return figure


def draw_walls(panel: Axes, desc: np.ndarray) -> None:
    """The walls between columns, | in the map; the stands' letters are its odd columns'."""
    inside = desc[1:6].astype(str)
    for y, x in np.argwhere(inside[:, 2:10:2] == "|"):
        panel.plot([x + 0.5] * 2, [y - 0.5, y + 0.5], color=INK, linewidth=3)


# Blackjack


def draw_blackjack(policy: Policy) -> Figure:
    """What to do and what it is worth, with and without a usable ace (Figure 5.2 of the book)."""
    figure, height = blank(5.15), 1.72
    width = (WIDTH - LEFT - RIGHT - GAP) / 2
    scale = value_scale([policy.learned], policy.asked)
    for k, ace in enumerate((1, 0)):
        left = LEFT + k * (width + GAP)
        above = place(figure, left, 2.95, width, height)
        draw_hands(above, policy, ace)
        head(above, "usable ace" if ace else "no usable ace")
        below = place(figure, left, 0.72, width, height)
        if scale is not None and policy.learned.values is not None:
            below.imshow(scale.to_rgba(policy.learned.values[ace]), **HANDS)
        for panel in (above, below):
            panel.set_xticks(range(10), ["A", *map(str, CARDS[1:])])
            panel.set_yticks(range(0, 11, 2), map(str, SUMS[::2]))
            panel.set_ylabel("" if k else "player's sum", fontsize=SMALL)
            panel.tick_params(labelleft=not k, labelsize=8)
        below.set_xlabel("dealer's card", fontsize=SMALL)
        if ace:
            shut(above)
            shut(below)
    explain_hands(figure)
    if scale is not None:
        show_scale(figure, scale, 0.72, height, "value (mean return)")
    note(figure, count_wrong(policy, CROSS))
    return figure


HANDS: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}


def shut(panel: Axes) -> None:
    """Grey where a hand cannot be: 11 with a usable ace."""
    panel.axhspan(-0.5, 0.5, color="0.85", zorder=3)


def draw_hands(panel: Axes, policy: Policy, ace: int) -> None:
    """Hit or stick by sum and card; a line where the best policy changes, a cross where missed."""
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([ORANGE, BLUE])
    actions, ink = policy.learned.actions[ace], (INK, "white")
    panel.imshow(actions, cmap=colours, vmin=0, vmax=1, **HANDS)
    for y, x in np.argwhere(policy.wrong[ace]):
        panel.text(x, y, CROSS, color=ink[actions[y, x]], fontsize=12, zorder=4, **LETTER)
    assert policy.best is not None
    best = policy.best.actions[ace]
    line: dict[str, Any] = {"color": INK, "linewidth": 2.2, "zorder": 5}
    low = 1 if ace else 0
    for y, x in np.argwhere(best[low:-1] != best[low + 1 :]):
        panel.plot([x - 0.5, x + 0.5], [y + low + 0.5] * 2, **line)
    for y, x in np.argwhere(best[low:, :-1] != best[low:, 1:]):
        panel.plot([x + 0.5] * 2, [y + low - 0.5, y + low + 0.5], **line)


def explain_hands(figure: Figure) -> None:
    """What the colours and the line of the upper maps mean, at their right."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    meanings = [Patch(color=ORANGE, label="stick"), Patch(color=BLUE, label="hit")]
    line = Line2D([], [], color=INK, linewidth=2.2, label="best:\nstick\nabove")
    across, up = figure.get_size_inches()
    place_at = ((WIDTH - RIGHT + 0.1) / across, (2.95 + 1.72) / up)
    figure.legend(
        handles=[*meanings, line],
        loc="upper left",
        bbox_to_anchor=place_at,
        fontsize=SMALL,
        frameon=False,
        handlelength=1.2,
        borderpad=0,
    )
