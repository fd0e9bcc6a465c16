"""A file that grows record by record and outlives a full disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path

LOG = logging.getLogger("seqrl")
ROOM = 8192  # bytes that are collected before they are written


class GrowingFile:
    """Appends whole records to a file; those that a full disk refuses wait in memory, in order.

    The file never ends within a record. That it cannot be written is logged once, and tried again
    at every flush.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "ab", buffering=0)
        self._waiting = bytearray()
        self._failing = False

    def write(self, record: bytes) -> None:
        """Append a record; it is in the file after the next flush at the latest."""
        self._waiting += record
        if len(self._waiting) >= ROOM and not self._failing:
            self.flush()

    def flush(self) -> None:
        """Write what waits, all or nothing."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            rest = memoryview(bytes(self._waiting))
            while rest:
                rest = rest[self._file.write(rest) :]
            self._waiting.clear()
            self._failing = False
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            if not self._failing:
                LOG.warning("seqrl: %s: %s; going on", self.path, error.strerror)
            self._failing = True
        except BaseException:  # a signal; what waits is written by the next flush
            if self._waiting:
                os.ftruncate(self._file.fileno(), size)
            raise

    def sync(self) -> bytes:
        """Flush to the disk itself; return what still waits."""
        self.flush()
        os.fsync(self._file.fileno())
        return bytes(self._waiting)

    def close(self) -> None:
        """Flush and close; log what is lost because the disk has no room for it still."""
        self.flush()
        if self._waiting:
            LOG.error("seqrl: %s lacks its last %s bytes", self.path, f"{len(self._waiting):,}")
        self._file.close()
