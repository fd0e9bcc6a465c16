"""Figures side by side: each round runs every case once, a slow moment hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def rate(run: Callable[[int], object], steps: int) -> float:
    """Env steps a CPU second of `run(steps)`: other programs may share the machine."""
    before = time.process_time()
    run(steps)
    return steps / (time.process_time() - before)


def side_by_side(
    cases: dict[str, tuple[Callable[[int], object], int]], rounds: int = 5
) -> dict[str, list[float]]:
    """Rates of each case (what runs a number of steps, and how many), a round after the other."""
    for run, steps in cases.values():
        run(max(1, steps // 20))  # imports, compilation, caches
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (run, steps) in cases.items():
            found[name].append(rate(run, steps))
    return found


def ratio(found: dict[str, list[float]], one: str, other: str) -> float:
    """Median over the rounds of one case's rate divided by another's."""
    return statistics.median(a / b for a, b in zip(found[one], found[other], strict=True))


def report(found: dict[str, list[float]], base: str, unit: str = "steps/s") -> None:
    """A line a case: median, range, ratio to `base`."""
    for name, rates in found.items():
        low, middle, high = min(rates), statistics.median(rates), max(rates)
        times = ratio(found, name, base)
        print(f"{name:<52} {middle:>13,.0f} {unit} ({low:,.0f} to {high:,.0f})  x {times:.3g}")
