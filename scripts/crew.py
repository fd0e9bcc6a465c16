"""Many training runs at once, each a process of its own with its folder and its log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PAUSE = 0.05  # seconds between two looks at the processes


class Job(NamedTuple):
    """A run that is wanted."""

    name: str  # the folder's: q-learning,gamma=0.9
    config: dict[str, Any]  # what its config.toml will hold
    flags: list[str]  # for scripts.train


class Failure(NamedTuple):
    """A run that went wrong."""

    job: Job
    folder: Path
    reason: str

    @property
    def log(self) -> Path:
        """What it printed."""
        return log_path(self.folder)


def log_path(folder: Path) -> Path:
    """Beside the run's folder, which has to be empty when it begins."""
    return folder.with_name(folder.name + ".log")


def finished_folder(logdir: str, job: Job) -> Path | None:
    """The folder in which the very same run has already come to its end."""
    from seqrl.core import UsageError
    from seqrl.training import folder as runs
    from seqrl.training.recorded import read_summary

    seed, env = job.config["seed"], job.config["env"]
    home = Path(logdir) / runs.plain_name(env) / runs.plain_name(job.name)
    for folder in sorted([*home.glob(f"seed-{seed}"), *home.glob(f"seed-{seed}-*")]):
        try:
            same = runs.read_config(folder) == runs.as_stored(job.config)
            if same and read_summary(folder, job.config) is not None:
                return folder
        except UsageError:  # not a run's, or one that was never begun
            continue
    return None


def run_all(
    jobs: Sequence[Job], logdir: str, workers: int, quiet: bool
) -> tuple[list[Path], list[Failure]]:
    """Run each job, `workers` at a time; answers their folders, and what went wrong.

    One that fails does not stop the others. Interrupted, all are ended and keep what they learned.
    """
    waiting, failures = deque(enumerate(jobs)), []
    folders = [Path()] * len(jobs)
    running: dict[subprocess.Popen[bytes], int] = {}
    with total_bar(jobs, quiet) as show, ending_all(running):
        while waiting or running:
            while waiting and len(running) < workers:
                i, job = waiting.popleft()
                process, folders[i] = start(job, logdir)
                running[process] = i
            time.sleep(PAUSE)
            for process in [one for one in running if one.poll() is not None]:
                i = running.pop(process)
                if process.returncode:
                    reason = reason_of(process.returncode, log_path(folders[i]))
                    failures.append(Failure(jobs[i], folders[i], reason))
                elif not log_path(folders[i]).stat().st_size:
                    log_path(folders[i]).unlink()
            under_way = sum(steps_done(folders[i]) for i in running.values())
            over = len(jobs) - len(waiting) - len(running)
            started = {*range(len(jobs))} - {i for i, _ in waiting} - {*running.values()}
            show(under_way + sum(jobs[i].config["steps"] for i in started), over)
    return folders, failures


def start(job: Job, logdir: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Begin a run in a new folder."""
    from seqrl.training import folder as runs

    seed, env = job.config["seed"], job.config["env"]
    folder = runs.new_folder(logdir, env, job.name, seed)
    command = [sys.executable, "-P", "-m", "seqrl.scripts.train", *job.flags]
    command += ["--seed", str(seed), f"--run-dir={folder}", "--quiet"]
    with open(log_path(folder), "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C comes to us, and from us once to each
        )
    return process, folder


def reason_of(status: int, log: Path) -> str:
    """How a process ended, and its last word."""
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    words = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(words) if line.strip()), "")
    return f"{how}: {last.removeprefix('seqrl: ')}" if last else how


def steps_done(folder: Path) -> int:
    """The env step of the last whole row in a run's episodes.csv."""
    try:
        with open(folder / "episodes.csv", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            return int(file.read().split(b"\n")[-2].split(b",")[0])
    except (OSError, ValueError, IndexError):  # not begun, or no episode over
        return 0


@contextmanager
def total_bar(jobs: Sequence[Job], quiet: bool) -> Iterator[Any]:
    """A function that shows env steps and runs done, on a terminal only."""
    if quiet or not sys.stderr.isatty() or not jobs:
        yield lambda steps, over: None
        return
    from tqdm import tqdm

    total = sum(job.config["steps"] for job in jobs)
    with tqdm(total=total, unit=" steps", unit_scale=True, leave=False, file=sys.stderr) as bar:

        def show(steps: int, over: int) -> None:
            bar.set_postfix_str(f"{over} of {len(jobs)} runs", refresh=False)
            bar.update(steps - bar.n)

        yield show


@contextmanager
def ending_all(running: dict[subprocess.Popen[bytes], int]) -> Iterator[None]:
    """Whatever happens, SIGTERM too, leave no process behind."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        signal.signal(signal.SIGTERM, before)
