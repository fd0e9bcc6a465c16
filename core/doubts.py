"""What may be wrong with numbers on a device, where a look at each would let the device wait.

What the host holds is refused at once. A doubt about a device's numbers travels with them, in a
`Decision` or an outcome, to the one look of a turn that also brings its rewards and flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from seqrl.core.arrays import hosted, is_on_host
from seqrl.core.types import Array, Doubt, Doubts


def doubt(wrong: Array, refuse: Callable[[], Any]) -> Doubts:
    """Refuse now what the host knows to be wrong; return the doubt where a device knows it."""
    if not is_on_host(wrong):
        return (Doubt(wrong, refuse),)
    if wrong:
        refuse()
    return ()


def finite(number: Array, refuse: Callable[[], Any]) -> Doubts:
    """Refuse a number of the host that is not finite; return the doubt where a device knows."""
    if not is_on_host(number):
        return (Doubt(~number.isfinite(), refuse),)
    if not math.isfinite(float(number)):
        refuse()
    return ()


def look(doubts: Doubts) -> None:
    """Refuse what is wrong, the first first, by one copy to the host."""
    next(looks([(doubts, [])]))


def looks(asked: list[tuple[Doubts, list[Array]]]) -> Iterator[list[np.ndarray]]:
    """Yield lists of leaves as NumPy arrays, each after refusing what is wrong beside it.

    From a device all come in one copy.
    """
    found = iter(hosted([x for doubts, leaves in asked for x in (*wrongs(doubts), *leaves)]))
    for doubts, leaves in asked:
        for each in doubts:
            if next(found):
                each.refuse()
        yield [next(found) for _ in leaves]


def wrongs(doubts: Doubts) -> list[Array]:
    """Return whether each doubt holds, as the device knows it."""
    return [each.wrong for each in doubts]


class Trial:
    """Steps of which a number may be wrong: looked at together, and undone where one is.

    What the host holds is looked at before a step is taken, and nothing is gathered here. A device
    would have to wait at every step: its doubts are gathered, and one look behind the last step
    finds the first that holds. Then all goes back to what it was before the first step.
    """

    def __init__(self) -> None:
        self._doubts: Doubts = ()
        self._undo: list[Callable[[], None]] = []

    def begin(self, keep: Callable[[], list[Callable[[], None]]]) -> None:
        """Before the first step let `keep` return what undoes those to come."""
        self._undo = self._undo or keep()

    def add(self, doubts: Doubts) -> None:
        """Gather what is doubted of a step."""
        self._doubts += doubts

    def settle(self) -> None:
        """Raise the error of the first doubt that holds, all steps undone."""
        if not self._doubts:
            return
        doubts, undo = self._doubts, self._undo
        self._doubts, self._undo = (), []
        try:
            look(doubts)
        except Exception:
            for back in undo:
                back()
            raise
