"""Recorded episodes on disk: a folder with a header to read and arrays that hold no code."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import tomli_w

from seqrl.agents.experience.recording import TIMED, Recording
from seqrl.core.arrays import check_memory
from seqrl.core.errors import UsageError, explain
from seqrl.envs.described import described, space_of
from seqrl.envs.recorded import SPACES, fitted

HEADER, ARRAYS = "dataset.toml", "episodes.npz"
FORMAT = 1  # of what is written here
EPISODES = ("length", "terminated")
UNREADABLE = (EOFError, KeyError, MemoryError, OSError, TypeError, ValueError, BadZipFile)


def write(folder: Path, recording: Recording) -> None:
    """Write a recording into a new folder; the header comes last and says that all is there."""
    header = {"format": FORMAT, "episodes": len(recording.length), "steps": recording.steps}
    spaces = {name: described(getattr(recording, name)) for name in SPACES}
    text = tomli_w.dumps({**header, **recording.about, **spaces})
    arrays = {name: getattr(recording, name) for name in EPISODES}
    for name in TIMED:
        arrays |= dict(named(name, getattr(recording, name)))
    np.savez(folder / ARRAYS, allow_pickle=False, **arrays)
    temporary = folder / f"{HEADER}.part"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, folder / HEADER)


def named(name: str, part: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the leaves of a tree by their place in it, as obs.key.0."""
    if isinstance(part, dict | tuple):
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            yield from named(f"{name}.{key}", inner)
    else:
        yield name, part


def read_header(folder: Path) -> dict[str, Any]:
    """Return the header of a recording, with its spaces as spaces."""
    try:
        header = tomllib.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--dataset {folder}: {HEADER}: {explain(error)}") from error
    if header.get("format") != FORMAT:
        found = f"its format is {header.get('format')!r}"
        raise UsageError(f"--dataset {folder}: {found}, this version reads {FORMAT}")
    try:
        return header | {name: space_of(header.get(name)) for name in SPACES}
    except UsageError as error:
        raise UsageError(f"--dataset {folder}: {HEADER}: {error}") from error


def read(folder: Path) -> Recording:
    """Return a recording of ours; UsageError for what is damaged, or not of its spaces."""
    header = read_header(folder)
    spaces = {name: header.pop(name) for name in SPACES}
    with damage_named(folder):
        arrays = read_arrays(folder / ARRAYS)
        template = spaces["observation_space"]
        parts: dict[str, Any] = {"obs": unnamed("obs", template, arrays)}
        parts |= {name: arrays[name] for name in ("action", "reward", *EPISODES)}
    return fitted(Recording(**parts, **spaces, about=header), f"--dataset {folder}")


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what a damaged file raises into a UsageError that names it."""
    try:
        yield
    except UsageError:
        raise
    except UNREADABLE as error:
        text = f"{ARRAYS} is damaged or incomplete: {explain(error)}"
        raise UsageError(f"--dataset {folder}: {text}; record it anew") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file, whose sums are checked; refused without memory."""
    with ZipFile(path) as packed:
        size = sum(entry.file_size for entry in packed.infolist())
    check_memory(size, str(path), "record fewer episodes")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def unnamed(name: str, space: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return the arrays under a name as a tree of the form of a space."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, dict):
        return {key: unnamed(f"{name}.{key}", part, arrays) for key, part in parts.items()}
    if parts is not None:
        return tuple(unnamed(f"{name}.{i}", part, arrays) for i, part in enumerate(parts))
    return arrays[name]
