"""The store of states in a folder that all machines have."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from seqrl.core.errors import UsageError
from seqrl.training.engines.packing import Packed, pack, unpack


class SharedFolder:
    """A store in a folder that all machines have: a file a run, replaced as a whole."""

    def __init__(self, folder: str):
        self.folder = Path(folder).absolute()
        self._seen: dict[str, int] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--storage {folder}: {error.strerror}; name another") from error

    def path(self, key: str) -> Path:
        """Return the file of a run."""
        return self.folder / f"{key}.zip"

    def save(self, key: str, folder: Path, *, whole: bool = True) -> None:
        """Keep what is in a run's folder in the place of what is kept of it."""
        part = self.folder / f"{key}.{os.getpid()}.part"
        try:
            pack(folder, part, whole=whole)
            part.replace(self.path(key))
        finally:
            part.unlink(missing_ok=True)

    def load(self, key: str, folder: Path) -> None:
        """Put what is kept of a run in the place of a folder."""
        unpack(self.path(key), folder)

    def news(self, keys: Iterable[str]) -> Iterator[tuple[str, Packed]]:
        """Yield the runs of which something else is kept than when this was last asked."""
        for key in keys:
            changed = self.path(key).stat().st_mtime_ns
            if self._seen.get(key, changed) != changed:
                yield key, self.path(key)
            self._seen[key] = changed

    def drop(self, key: str) -> None:
        """Forget a run."""
        self.path(key).unlink(missing_ok=True)
        self._seen.pop(key, None)
