"""Checks of numbers on a device, which are made later: a look at each would wait for the device.

What the host holds is checked at once. A check of a device's numbers travels with them, in a
`Decision` or an outcome, to the one look of a turn that also brings its rewards and flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from seqrl.core.arrays import hosted, is_on_host
from seqrl.core.types import Array, DeferredCheck, DeferredChecks


def require_not(wrong: Array, refuse: Callable[[], Any]) -> DeferredChecks:
    """Refuse now what the host knows to be wrong; return the check where a device knows it."""
    if not is_on_host(wrong):
        return (DeferredCheck(wrong, refuse),)
    if wrong:
        refuse()
    return ()


def require_finite(number: Array, refuse: Callable[[], Any]) -> DeferredChecks:
    """Refuse a number of the host that is not finite; return the check where a device knows."""
    if not is_on_host(number):
        return (DeferredCheck(~number.isfinite(), refuse),)
    if not math.isfinite(float(number)):
        refuse()
    return ()


def run_checks(checks: DeferredChecks) -> None:
    """Raise the error of the first check that fails, by one copy to the host."""
    next(checked_leaves([(checks, [])]))


def checked_leaves(
    asked: list[tuple[DeferredChecks, list[Array]]],
) -> Iterator[list[np.ndarray]]:
    """Yield lists of leaves as NumPy arrays, each after the checks beside it.

    From a device all come in one copy.
    """
    all_of_them = [x for checks, leaves in asked for x in (*(c.wrong for c in checks), *leaves)]
    found = iter(hosted(all_of_them))
    for checks, leaves in asked:
        for check in checks:
            if next(found):
                check.refuse()
        yield [next(found) for _ in leaves]


class Transaction:
    """Gradient steps that are checked together, and undone where a number was not finite.

    What the host holds is checked before a step is taken, and nothing is gathered here. A device
    would have to wait at every step: its checks are gathered and run behind the last step. Where
    one fails, all goes back to what it was before the first step.
    """

    def __init__(self, on_host: bool):
        self.on_host = on_host
        self._checks: DeferredChecks = ()
        self._undo: list[Callable[[], None]] = []

    def begin(self, keep: Callable[[], list[Callable[[], None]]]) -> None:
        """Before the first step on a device let `keep` return what undoes those to come."""
        if not self.on_host and not self._undo:
            self._undo = keep()

    def add(self, checks: DeferredChecks) -> None:
        """Gather the checks of a step."""
        self._checks += checks

    def commit(self) -> None:
        """Raise the error of the first check that fails, all steps undone."""
        if not self._checks:
            return
        checks, undo = self._checks, self._undo
        self._checks, self._undo = (), []
        try:
            run_checks(checks)
        except Exception:
            for back in undo:
                back()
            raise
