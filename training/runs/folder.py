"""A run's folder: its path, its files, and a lock that keeps other processes out."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import tomli_w

from seqrl.core import team
from seqrl.core.errors import UsageError

CONFIG, SUMMARY, CHECKPOINTS = "config.toml", "summary.json", "checkpoint"
LONGEST = 200  # bytes of a folder's name; file systems have 255, and a number may follow
LOCK = "lock"  # there while a process trains in the folder
PACKAGES = ("seqrl", "numpy", "gymnasium", "torch", "numba")


def new_folder(
    logdir: str, env: str, agent: str, seed: int, run_dir: str | None = None, *, seeds: int = 1
) -> Path:
    """Make LOGDIR/ENV/AGENT/seed-N or seeds-K, numbered if it exists; or `run_dir`, if empty.

    `agent` may have the settings that tell its runs from others, as in `ppo,network=gru`.
    """
    if run_dir is not None:
        return empty_folder(run_dir)
    try:
        parent = Path(logdir) / plain_name(env) / plain_name(agent)
        parent.mkdir(parents=True, exist_ok=True)
        return make_numbered_folder(parent, f"seed-{seed}" if seeds == 1 else f"seeds-{seeds}")
    except OSError as error:
        problem = f"run folder {error.filename or logdir}: {error.strerror}"
        raise UsageError(f"{problem}; name another --logdir") from error


def empty_folder(name: str, flag: str = "--run-dir", what: str = "run folder") -> Path:
    """Make the folder that a flag names, unless it is there and empty."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{what} {folder} is not empty: name a new one")
        check_writable(folder)
    except OSError as error:
        problem = f"{what} {error.filename or name}: {error.strerror}"
        raise UsageError(f"{problem}; name another {flag}") from error
    return folder


def make_numbered_folder(parent: Path, name: str) -> Path:
    """Make `parent/name`, or the first of `name.1`, `name.2`, ... that does not exist."""
    check_writable(parent)
    number = 0
    while True:
        folder = parent / (f"{name}.{number}" if number else name)
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to before anything is trained."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "cannot be written to", str(folder))


def plain_name(text: str) -> str:
    """Return a name for one folder: all but letters, digits and ._,=+- become hyphens."""
    return shortened(re.sub(r"[^\w.,=+-]+", "-", text).strip("-.") or "run", LONGEST)


def shortened(name: str, most: int) -> str:
    """Return a name of at most so many bytes; six digits of a hash stand for the rest of it."""
    whole = name.encode()
    if len(whole) <= most:
        return name
    return f"{whole[: most - 7].decode(errors='ignore')}-{sha256(whole).hexdigest()[:6]}"


def run_label(folder: Path) -> str:
    """Return what tells a run's folder from others: also its agent, where it is named by a seed."""
    by_seed = folder.name.startswith("seed-") and folder.parent.name
    shown = f"{folder.parent.name}-{folder.name}" if by_seed else folder.name
    return shown.replace(",", "+")


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write a config to config.toml, without its entries that are None."""
    path = folder / CONFIG

    def write() -> None:
        try:
            path.write_text(config_text(config), encoding="utf-8")
        except OSError as error:
            path.unlink(missing_ok=True)  # half a config is no run's
            remedy = "make room or name another --logdir"
            raise UsageError(f"{path}: {error.strerror}; {remedy}") from error

    team.in_first("the config", write)


def config_text(config: dict[str, Any]) -> str:
    """Return a config as TOML, without its entries that are None."""
    return tomli_w.dumps({key: value for key, value in config.items() if value is not None})


def as_stored(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config as `read_config` would after `write_config`."""
    return tomllib.loads(config_text(config))


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of a run folder."""
    try:
        return tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{folder}: no {CONFIG} there; name a run folder, which `seqrl list --runs` shows"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder / CONFIG}: {error}") from error


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json atomically; numbers that are not finite become null."""
    text = json.dumps({key: jsonable(value) for key, value in summary.items()}, indent=2)
    temporary = folder / (SUMMARY + ".part")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, folder / SUMMARY)
    finally:
        temporary.unlink(missing_ok=True)


def read_summary(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return a run's summary, None if it has not reached the end that its config names."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        reached = summary["steps"] >= config["steps"]
        if config.get("episodes"):
            reached = reached or summary["episodes"] >= config["episodes"]
        scores = [summary.get(name) for name in ("eval_mean_reward", "ep_rew_mean")]
        if not all(isinstance(score, int | float | None) for score in scores):
            raise TypeError(f"{scores} are no scores")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{folder / SUMMARY} is not what a run writes: {error}") from error
    return summary if summary.get("finished", reached) else None


def jsonable(value: Any) -> Any:
    """Return the value, None for NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and value - value != 0 else value


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages on which a run's bits depend."""
    return {package: version(package) for package in PACKAGES}


def checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, newest first; refuse a link, whose target is not to be pruned."""
    if (folder / CHECKPOINTS).is_symlink():
        raise UsageError(f"{folder / CHECKPOINTS} is a link, expected the run's own folder")
    return sorted((folder / CHECKPOINTS).glob("step-*.ckpt"), reverse=True)


def checkpoint_path(folder: Path, steps: int) -> Path:
    """Return the path of the checkpoint at an env step."""
    return best_path(folder).with_name(f"step-{steps:012d}.ckpt")


def best_path(folder: Path) -> Path:
    """Return the path of the checkpoint of the best evaluation."""
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    return folder / CHECKPOINTS / "best.ckpt"


def clear_unsaved_run(folder: Path) -> None:
    """Remove the files of a run that ended before its first checkpoint, except its config."""
    remove(folder, ("events.out.tfevents.*", "episodes.csv", SUMMARY, f"{CHECKPOINTS}/*"))


def clear_temporary_files(folder: Path) -> None:
    """Remove the temporary files of a save that was killed."""
    remove(folder, ("*.part", f"{CHECKPOINTS}/*.part"))


def remove(folder: Path, patterns: Sequence[str]) -> None:
    """Remove the files of a run's folder that any of the patterns fits."""

    def unlink() -> None:
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            path.unlink()

    team.in_first("the removal of files", unlink)


def logdir_of(folder: Path, config: dict[str, Any]) -> Path:
    """Return the folder for TensorBoard: that of all runs if the run is among them."""
    above = folder.parents
    inside = len(above) > 2 and above[1].name == plain_name(config["env"])
    return above[2] if inside else folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder against other processes; the lock of a dead process is void.

    Of a run's processes the first one holds it for all; UsageError in all where it is in use.
    """
    held = team.in_first("a lock", lambda: acquired(folder))
    with ExitStack() as at_the_end:
        if held is not None:
            at_the_end.enter_context(held)
            at_the_end.callback((folder / LOCK).unlink, missing_ok=True)
        yield


def acquired(folder: Path) -> IO[bytes]:
    """Return the locked file of a run's folder; UsageError where another process has it."""
    path = folder / LOCK
    while True:
        file = open(path, "a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().decode(errors="replace").strip() or "another process"
            file.close()
            raise UsageError(f"{folder} is in use by {owner}; wait for it or stop it") from error
        if os.fstat(file.fileno()).st_nlink:
            break
        file.close()  # its holder has just removed the file
    file.truncate(0)
    with suppress(OSError):  # a full disk: it is locked without a name, too
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file
