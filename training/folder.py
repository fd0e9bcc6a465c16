"""A run's folder: where it is, what it holds, and that it never overwrites another."""

from __future__ import annotations

import json
import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from seqrl.core import UsageError

CONFIG, SUMMARY, CHECKPOINTS = "config.toml", "summary.json", "checkpoint"
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


def versions() -> dict[str, str]:
    """Of what the run's bits depend on."""
    return {package: version(package) for package in PACKAGES}


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, newest first."""
    return sorted((folder / CHECKPOINTS).glob("step-*.ckpt"), reverse=True)


def checkpoint_path(folder: Path, steps: int) -> Path:
    """Where the checkpoint at an env step is kept."""
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    return folder / CHECKPOINTS / f"step-{steps:012d}.ckpt"
