"""Ctrl-C between two turns, where agent, environments and counters agree."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stopped(Exception):
    """Raised in what a loop's `stop` breaks off, such as an evaluation; it can be done again."""


class Interrupt:
    """Holds Ctrl-C back until the turn under way is over; pressed again it is raised at once.

    A context manager that raises KeyboardInterrupt at its end where one was `held`. It acts in the
    main thread, and only in place of Python's own handler: who has set another is asked by that.
    """

    def __init__(self) -> None:
        self.held = self.in_turn = self.installed = False

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self.installed = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self.installed:
            signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.held and kind is None:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.held or not self.in_turn:
            raise KeyboardInterrupt
        self.held = True
