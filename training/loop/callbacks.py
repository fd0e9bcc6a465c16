"""Callbacks by env steps: which are due, and which were interrupted."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.training.loop.interrupt import Stopped
from seqrl.training.loop.protocol import Callback

EVERY = 1_000  # env steps between the calls of a function that names no interval
Callbacks = Sequence[Callback | Callable[[Any], None]]


def listed(callbacks: Callbacks) -> list[Any]:
    """Return the callbacks as a list; refuse a single one that is in none."""
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise UsageError(f"callbacks {type(callbacks).__name__}: expected a list of them")
    return list(callbacks)


def interval(callback: Any) -> Any:
    """Return every how many env steps it is called; None where an object does not say."""
    plain = inspect.isroutine(callback) or isinstance(callback, partial)
    return getattr(callback, "every", EVERY if plain else None)


def check_callback(callback: Any) -> None:
    """Refuse what cannot be called every so many env steps."""
    name = getattr(callback, "__name__", type(callback).__name__)
    if not callable(callback) or isinstance(callback, type):
        raise UsageError(f"callback {name}: expected an object to call with the loop")
    every = interval(callback)
    if not isinstance(every, int | np.integer) or every < 1:
        expected = "expected a whole number of env steps, at least 1"
        raise UsageError(f"{name}.every {every!r}: {expected}; set it, to 1000 for instance")


class DueCallbacks:
    """Calls the callbacks of a loop that are due; one that is interrupted is called again."""

    def __init__(self, loop: Any):
        self.loop = loop
        self.pending: list[int] = []  # numbers of those that are due and not called through

    def check(self) -> None:
        """Refuse what cannot be called every so many env steps."""
        for callback in self.loop.callbacks:
            check_callback(callback)

    def next_due(self) -> float:
        """Return the next env step at which one is due."""
        every = [interval(callback) for callback in self.loop.callbacks]
        return min((n * (self.loop.steps // n + 1) for n in every), default=math.inf)

    def call(self, before: int) -> None:
        """Call those that became due since env step `before`."""
        every = [interval(callback) for callback in self.loop.callbacks]
        self.pending = [i for i, n in enumerate(every) if self.loop.steps // n > before // n]
        self.call_pending()

    def call_pending(self) -> None:
        """Call those that are due; what is interrupted, or stopped, stays pending."""
        while self.pending:
            i = self.pending.pop(0)
            try:
                self.loop.callbacks[i](self.loop)
            except Stopped:
                self.pending.insert(0, i)
                return
            except BaseException:
                self.pending.insert(0, i)
                raise

    def stateful(self) -> Iterator[tuple[Callback, dict[str, Any]]]:
        """Yield those with anything to keep: not a progress bar, which is not always there."""
        for callback in self.loop.callbacks:
            state: dict[str, Any] = getattr(callback, "state_dict", dict)()
            if state:
                yield callback, state
