"""The temporary folder of a run on another machine, which the next removes if its own cannot."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

PREFIX = "seqrl-run-"
LOCK = "lock"  # of the process that has the folder; the system lets go of it whatever kills that


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a temporary folder for as long as this lasts."""
    sweep()
    with TemporaryDirectory(prefix=PREFIX) as home:
        with open(Path(home) / "new", "wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            (Path(home) / "new").rename(Path(home) / LOCK)  # never there without its holder
            try:
                yield Path(home)
            finally:
                empty(Path(home))


def sweep() -> None:
    """Remove the temporary folders of this machine whose processes were killed."""
    for lock in Path(gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), open(lock, "rb") as held:  # in use, or just removed
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            empty(lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)


def empty(home: Path) -> None:
    """Remove the folders in one; its lock goes later, so what is killed here is found again."""
    for folder in home.glob("*/"):
        shutil.rmtree(folder, ignore_errors=True)
