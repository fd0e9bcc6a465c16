"""What the experiments share: a table in the terminal, a picture beside the script."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Curves = dict[str, tuple[Iterable[float], Iterable[float]]]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a Markdown table."""
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(shown, row))} |", flush=True)


def shown(cell: Any) -> str:
    """Return a cell as text, numbers with three digits."""
    return cell if isinstance(cell, str) else f"{cell:.3g}"


def draw(script: str, curves: Curves, x: str, y: str, style: str = "-", log: bool = False) -> None:
    """Draw curves into SCRIPT.png, or into the folder SEQRL_PICTURES."""
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    for name, (at, value) in curves.items():
        axes.plot([*at], [*value], style, label=name, alpha=0.8)
    if log:
        axes.set_yscale("log")
    axes.legend(fontsize="small")
    path = Path(script).with_suffix(".png")
    figure.savefig(Path(os.environ.get("SEQRL_PICTURES", path.parent)) / path.name, dpi=80)
