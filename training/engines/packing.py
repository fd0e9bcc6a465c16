"""A run's folder, or the code that a run imports, packed into one file that can be sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from zipfile import ZIP_DEFLATED, ZipFile

from seqrl.core.errors import UsageError
from seqrl.training.runs import folder as runs

CODE_LIMIT = 20_000_000  # bytes of a user's modules
Packed = Path | IO[bytes]


def pack(folder: Path, file: Packed, *, whole: bool = True) -> None:
    """Write a run's folder into a zip file: the newest and the best checkpoint alone, or the whole.

    The run may go on meanwhile: what it logs after that checkpoint is cut off where it is resumed.
    """
    newest = runs.checkpoints(folder)[: None if whole else 1]
    best = folder / runs.CHECKPOINTS / "best.ckpt"
    saved = [*newest, *(path for path in [best] if path.exists())]
    with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=1) as packed:
        for path in [*saved, *logs(folder)]:  # first the checkpoints, then what is longer by now
            packed.writestr(str(path.relative_to(folder)), path.read_bytes())


def logs(folder: Path) -> Iterator[Path]:
    """Yield a run's files but for checkpoints, the lock and what is half written."""
    for path in sorted(folder.rglob("*")):
        own = path.parent.name == runs.CHECKPOINTS or path.name == runs.LOCK
        if path.is_file() and not own and path.suffix != ".part":
            yield path


def unpack(packed: Packed, folder: Path) -> None:
    """Put what is packed in the place of a folder, which is never there by half."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name[:100]}-", dir=folder.parent) as home:
        new = Path(home) / "new"
        new.mkdir()
        with ZipFile(packed) as file:
            file.extractall(new)  # which keeps every name below it, and makes no links
        if folder.exists():
            folder.rename(Path(home) / "old")
        new.rename(folder)


def unpack_logs(packed: Packed, folder: Path) -> None:
    """Bring the logs of a run under way up to date, a file at a time."""
    with ZipFile(packed) as file:
        for name in file.namelist():
            if name == Path(name).name:
                part = folder / f"{name}.part"
                part.write_bytes(file.read(name))
                part.replace(folder / name)


def code_files(folder: Path) -> list[Path]:
    """Return the modules in a folder, and all files of the packages in it."""
    packages = (path.parent for path in sorted(folder.glob("*/__init__.py")))
    inside = (path for package in packages for path in sorted(package.rglob("*")))
    found = [*sorted(folder.glob("*.py")), *inside]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def pack_code(folder: Path, file: Packed) -> None:
    """Write what can be imported from a folder into a zip file; UsageError where it is too much."""
    found = code_files(folder)
    size = sum(path.stat().st_size for path in found)
    if size > CODE_LIMIT:
        text = f"{folder}: its modules and packages are {size:,} bytes, more than {CODE_LIMIT:,}"
        raise UsageError(f"{text} that can be sent; start from a folder that has yours alone")
    with ZipFile(file, "w", ZIP_DEFLATED) as packed:
        for path in found:
            packed.write(path, path.relative_to(folder))


def has_code(folder: Path, packed: Packed) -> bool:
    """Return whether a folder has the packed modules, byte for byte."""
    with ZipFile(packed) as file:
        return all(_same(folder / name, file.read(name)) for name in file.namelist())


def _same(path: Path, contents: bytes) -> bool:
    return path.is_file() and path.read_bytes() == contents
