"""Interleaved timing: each round runs every case once, so that slow moments hit all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def rate(run: Callable[[int], object], steps: int) -> float:
    """Return the env steps a CPU second of `run(steps)`: other programs may share the machine."""
    began = time.process_time()
    run(steps)
    return steps / (time.process_time() - began)


def interleaved(
    cases: dict[str, tuple[Callable[[int], object], int]], rounds: int = 5
) -> dict[str, list[float]]:
    """Return the rates of each case (a function of a number of steps, and that number)."""
    for run, steps in cases.values():
        run(max(1, steps // 20))  # imports, compilation, caches
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (run, steps) in cases.items():
            rates[name].append(rate(run, steps))
    return rates


def ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median over the rounds of one case's rate divided by another's."""
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def report(rates: dict[str, list[float]], base: str, unit: str = "steps/s") -> None:
    """Print a line a case: median, range, ratio to `base`."""
    for name, values in rates.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        factor = ratio(rates, name, base)
        print(f"{name:<52} {middle:>13,.0f} {unit} ({low:,.0f} to {high:,.0f})  x {factor:.3g}")
