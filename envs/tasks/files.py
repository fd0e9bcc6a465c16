"""Files that tasks are made of; what is wrong with one is told in one line."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

from seqrl.core.errors import UsageError, explain


def read_bytes(name: str, path: str) -> bytes:
    """Return what is in the file that the option `name` names."""
    try:
        return Path(path).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{name} {path!r}: there is no such file") from error
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} {path!r}: it cannot be read: {explain(error)}") from error


def read_text(name: str, path: str) -> str:
    """Return the text, in UTF-8, of the file that the option `name` names."""
    try:
        return read_bytes(name, path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} {path!r}: expected text in UTF-8: {explain(error)}") from error


def mark(path: str) -> str:
    """Return a checksum of a file, by which a run notices that it is another one."""
    return f"{crc32(read_bytes('path', path)):08x}"
