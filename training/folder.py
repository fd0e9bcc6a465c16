"""A run's folder: where it is, what it holds, and that it never overwrites another."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from seqrl.core import UsageError

CONFIG, SUMMARY, CHECKPOINTS = "config.toml", "summary.json", "checkpoint"
LOCK = "lock"  # there while a process trains in the folder
PACKAGES = ("seqrl", "numpy", "gymnasium", "torch", "numba")


def new_folder(
    logdir: str, env: str, agent: str, seed: int, run_dir: str | None = None, *, seeds: int = 1
) -> Path:
    """Make LOGDIR/ENV/AGENT/seed-N, with a suffix if there is one; or `run_dir`, new or empty.

    Several seeds share seeds-K.
    """
    try:
        if run_dir is not None:
            folder = Path(run_dir)
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UsageError(f"run folder {folder} is not empty: name a new one")
            check_writable(folder)
            return folder
        home = Path(logdir) / plain_name(env) / plain_name(agent)
        home.mkdir(parents=True, exist_ok=True)
        return first_free(home, f"seed-{seed}" if seeds == 1 else f"seeds-{seeds}")
    except OSError as error:
        flag = "--logdir" if run_dir is None else "--run-dir"
        raise UsageError(
            f"run folder {error.filename or logdir}: {error.strerror}; name another {flag}"
        ) from error


def first_free(home: Path, name: str) -> Path:
    """`home/name`, or `home/name-1`, `-2` ... made by whoever comes first."""
    check_writable(home)
    taken = 0
    while True:
        folder = home / (f"{name}-{taken}" if taken else name)
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            taken += 1


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to before anything is trained."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "cannot be written to", str(folder))


def plain_name(text: str) -> str:
    """A name as a single folder: what is not a letter, digit or one of ._,=+- becomes a hyphen."""
    return re.sub(r"[^\w.,=+-]+", "-", text).strip("-.")[:200] or "run"


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Everything that makes the run, without what was left open (None)."""
    (folder / CONFIG).write_text(config_text(config), encoding="utf-8")


def config_text(config: dict[str, Any]) -> str:
    """What config.toml says."""
    return tomli_w.dumps({key: value for key, value in config.items() if value is not None})


def as_stored(config: dict[str, Any]) -> dict[str, Any]:
    """A config as `read_config` will give it back."""
    return tomllib.loads(config_text(config))


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run folder."""
    try:
        return tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no {CONFIG} there; name a run folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder / CONFIG}: {error}") from error


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """How the run went; numbers that are not finite become null."""
    text = json.dumps({key: jsonable(value) for key, value in summary.items()}, indent=2)
    draft = folder / (SUMMARY + ".part")
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, folder / SUMMARY)


def jsonable(value: Any) -> Any:
    """NaN and infinity have no form in JSON."""
    return None if isinstance(value, float) and value - value != 0 else value


@cache
def versions() -> dict[str, str]:
    """Of what the run's bits depend on."""
    return {package: version(package) for package in PACKAGES}


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, newest first; a link is not followed, nor what is behind it pruned."""
    if (folder / CHECKPOINTS).is_symlink():
        raise UsageError(f"{folder / CHECKPOINTS} is a link, expected the run's own folder")
    return sorted((folder / CHECKPOINTS).glob("step-*.ckpt"), reverse=True)


def checkpoint_path(folder: Path, steps: int) -> Path:
    """Where the checkpoint at an env step is kept."""
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    return folder / CHECKPOINTS / f"step-{steps:012d}.ckpt"


def best_path(folder: Path) -> Path:
    """Where the run is kept as it was at its best evaluation."""
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    return folder / CHECKPOINTS / "best.ckpt"


def clear(folder: Path) -> None:
    """Take away what an interrupted run left behind before it was ever saved, but its config."""
    leftovers = ("events.out.tfevents.*", "episodes.csv", SUMMARY, f"{CHECKPOINTS}/*")
    for path in (path for pattern in leftovers for path in folder.glob(pattern)):
        path.unlink()


def clear_drafts(folder: Path) -> None:
    """Take away what a save left that was killed before its end."""
    for path in [*folder.glob("*.part"), *(folder / CHECKPOINTS).glob("*.part")]:
        path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the lock of one that died does not count."""
    path = folder / LOCK
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise UsageError(f"{folder} is in use by {owner}; wait for it or stop it") from error
        if os.fstat(file.fileno()).st_nlink:
            break
        file.close()  # who held it has just taken the file away
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
