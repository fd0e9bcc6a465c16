"""Drawings of a network's memory over one episode: gates, attention, the gradient through time.

They draw arrays, computed by `seqrl.networks.diagnosis.activity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.training.pictures import canvas
from seqrl.training.pictures.canvas import FOOT, GAP, GREY, HEAD, LEFT, NOTE, RIGHT, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEANINGS = {
    "input gate": "input gate: 1 lets the new in",
    "forget gate": "forget gate: 1 keeps, 0 forgets",
    "output gate": "output gate: 1 shows the cell",
    "reset gate": "reset gate: 0 ignores the past",
    "update gate": "update gate: 1 keeps, 0 replaces",
    "cell": "cell: what is remembered",
    "output": "output: what the gate shows",
    "memory": "memory: what is carried on",
}
SORT_GATES = ("forget gate", "update gate")  # units are sorted by the one there is
MAX_HEADS = 4  # of attention drawn
VANISHED = 1e-12  # a smaller gradient is drawn as vanished


def draw_memory(layer: str, parts: Mapping[str, np.ndarray]) -> Figure:
    """Draw a layer's gates (0 to 1) and memory, [T, H] each, one below the other over time."""
    names = sorted(parts, key=lambda name: (not name.endswith("gate"), name))
    height, gap = 0.58, 0.3
    figure = canvas.new_figure(FOOT + len(names) * (height + gap) + HEAD)
    canvas.add_heading(figure, f"{layer} over one episode")
    gates = [name for name in names if name.endswith("gate")]
    sorter = next((name for name in SORT_GATES if name in parts), names[-1])
    order = np.argsort(parts[sorter].mean(0), kind="stable")
    for i, name in enumerate(names):
        bottom = FOOT + (len(names) - 1 - i) * (height + gap)
        panel = canvas.add_panel(figure, LEFT, bottom, WIDTH - LEFT - RIGHT, height)
        values = parts[name].T[order]  # [H, T]
        most = float(np.abs(values).max()) or 1.0
        low, high, colours = (0.0, 1.0, "cividis") if name in gates else (-most, most, "PuOr")
        style: dict[str, Any] = {"cmap": colours, "vmin": low, "vmax": high, "aspect": "auto"}
        shown = panel.imshow(values, interpolation="nearest", **style)
        last = i == len(names) - 1
        canvas.set_title(panel, MEANINGS[name])
        canvas.set_labels(panel, "env step of the episode" if last else "", "unit")
        panel.tick_params(labelbottom=last)
        panel.yaxis.set_major_locator(canvas.max_ticks(3, whole=True))
        panel.xaxis.set_major_locator(canvas.max_ticks(7, whole=True))
        if name not in gates:
            canvas.colour_bar(figure, shown, bottom, height, "", 3)
        elif name == gates[-1]:
            tall = len(gates) * (height + gap) - gap
            several = len(gates) > 1
            label = "0 shut, 1 open" if several else ""
            canvas.colour_bar(figure, shown, bottom, tall, label, 5 if several else 2)
    canvas.add_note(figure, f"units are sorted by the mean of their {sorter}")
    return figure


def draw_attention(layer: str, parts: Mapping[str, np.ndarray]) -> Figure:
    """Draw the attention weights of each step on those before, [T, T] a head, side by side."""
    shown = list(parts.items())[:MAX_HEADS]
    across = min(2, len(shown))
    size, gap = (WIDTH - LEFT - RIGHT - GAP * (across - 1)) / across, 0.32
    down = -(-len(shown) // across)
    figure = canvas.new_figure(FOOT + down * (size + gap) + HEAD)
    canvas.add_heading(figure, f"{layer} over one episode")
    most = max(brightest_weight(weights) for _, weights in shown)
    for i, (name, weights) in enumerate(shown):
        row, column = divmod(i, across)
        bottom = FOOT + (down - 1 - row) * (size + gap)
        panel = canvas.add_panel(figure, LEFT + column * (size + GAP), bottom, size, size)
        known = np.ma.masked_equal(weights, 0.0)
        image = panel.imshow(known, interpolation="nearest", cmap="cividis", vmin=0.0, vmax=most)
        panel.set_facecolor("0.9")  # masked: later steps, and those before the window
        canvas.set_title(panel, name)
        left, last = not column, row == down - 1
        labels = "looks at step" if last else "", "env step" if left else ""
        canvas.set_labels(panel, *labels)
        panel.tick_params(labelleft=left, labelbottom=last)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(canvas.max_ticks(5, whole=True))
    tall = down * size + (down - 1) * gap
    canvas.colour_bar(figure, image, FOOT, tall, "weight")
    more = f"{MAX_HEADS} of {len(parts)} heads" if len(parts) > MAX_HEADS else ""
    canvas.add_note(figure, more, f"weights above {most:.2g} have its colour")
    return figure


def draw_reading(weights: np.ndarray, said: Sequence[str], source: Sequence[str]) -> Figure:
    """Draw where a reply looks in its source: weights [T, L], a row a token that is said."""
    row = 0.2
    height, width = max(1.2, row * len(said)), WIDTH - LEFT - RIGHT
    below = max(FOOT, 0.35 + 0.075 * max(map(len, source)))  # words stand upright
    figure = canvas.new_figure(below + height + HEAD)
    canvas.add_heading(figure, "attention of a reply to its source")
    panel = canvas.add_panel(figure, LEFT + 0.2, below, width - 0.2, height)
    style: dict[str, Any] = {"cmap": "cividis", "vmin": 0.0, "vmax": 1.0, "aspect": "auto"}
    image = panel.imshow(weights, interpolation="nearest", **style)
    turned = 90 if max(map(len, source)) > 1 else 0
    panel.set_xticks(range(len(source)), source, rotation=turned, fontsize=NOTE)
    panel.set_yticks(range(len(said)), said, fontsize=NOTE)
    canvas.set_labels(panel, "the source", "")
    canvas.colour_bar(figure, image, below, height, "weight", 3)
    canvas.add_note(figure, "each row, a token that was said, sums to 1")
    return figure


def brightest_weight(weights: np.ndarray) -> float:
    """Return the weight that gets the brightest colour: the 99th percentile.

    The first steps spread their weight over few steps and would else leave the rest dark.
    """
    return float(np.quantile(weights[np.tri(len(weights), dtype=bool)], 0.99))


def draw_gradient(gradient: np.ndarray) -> Figure:
    """Draw the norms |dh_T / dm_t| for t = 1 ... T - 1, and 1 for T, on a logarithmic scale."""
    height = 1.4
    figure = canvas.new_figure(FOOT + height + HEAD)
    panel = canvas.add_panel(figure, LEFT + 0.1, FOOT, WIDTH - LEFT - 0.25, height)
    steps = np.arange(1, len(gradient) + 2)
    norms = np.append(np.clip(gradient, 0.0, 1e38), 1.0)
    vanished = norms < VANISHED
    panel.axhline(1.0, color=GREY, linewidth=0.9)
    panel.plot(steps, np.where(vanished, np.nan, norms), color=canvas.BLUE, linewidth=2, marker=".")
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, 0.05), max(high, 20.0))
    if vanished.any():
        panel.axvspan(0.5, steps[vanished].max() + 0.5, color=canvas.RED, alpha=0.2, linewidth=0)
    canvas.set_title(panel, "gradient" + factor_text(norms[~vanished]))
    canvas.set_labels(panel, "env step t of the episode; T the last", "norm of $dh_T / dh_t$")
    panel.set_xlim(0.5, len(steps) + 0.5)
    panel.xaxis.set_major_locator(canvas.max_ticks(7, whole=True))
    panel.spines[["top", "right"]].set_visible(False)
    red = f"; red: below {VANISHED:g}" if vanished.any() else ""
    about = "how much the memory after t still changes the last output"
    canvas.add_note(figure, about, f"above 1 it explodes, below 1 it vanishes{red}")
    return figure


def factor_text(norms: np.ndarray) -> str:
    """Return the text of the factor per step back in time, a geometric mean."""
    if len(norms) < 2:
        return ""
    factor = float((norms[-1] / norms[0]) ** (-1 / (len(norms) - 1)))
    return f": times {factor:.3g} a step back"
