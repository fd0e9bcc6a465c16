"""The folders of a search and of its trials: made, locked, and found in use."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from seqrl.core.errors import UsageError
from seqrl.training.runs.folder import check_writable, locked


def search_folder(out: Path) -> Path:
    """Make the folder of a search, new, empty, or that of an earlier one, which goes on."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_writable(out)
        if any(out.iterdir()) and not (out / "trials").exists():
            raise UsageError(f"{out} holds something else than a search: name another --out")
        (out / "trials").mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}; name another --out") from error
    return out


def trial_folder(folder: Path, number: int) -> Path:
    """Return the folder of a trial's runs in that of its search."""
    return folder / "trials" / f"{number:04}"


def lock_of(folder: Path) -> ExitStack:
    """Make and lock a trial's folder; UsageError where a process works on it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = ExitStack()
    lock.enter_context(locked(folder))
    return lock


def busy_run(folder: Path) -> str:
    """Return which process has a run of a trial, "" where none has."""
    for path in folder.glob("*/"):
        try:
            with locked(path):
                pass
        except UsageError as error:
            return str(error)
    return ""
