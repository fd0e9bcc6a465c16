"""The executor: many training runs at once, each a process with a folder and a log."""

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

from seqrl.core.errors import UsageError
from seqrl.training.runs import folder as runs

POLL_INTERVAL = 0.05  # seconds between two polls of the processes


class Job(NamedTuple):
    """A run to execute."""

    name: str  # of its folder: q-learning,gamma=0.9
    config: dict[str, Any]  # as in its config.toml
    flags: list[str]  # of `seqrl train`


class Failure(NamedTuple):
    """A run that failed, and why."""

    job: Job
    folder: Path
    reason: str


def log_path(folder: Path) -> Path:
    """Return the log's path: beside the run's folder, which has to be empty at the start."""
    return folder.with_name(folder.name + ".log")


def finished_folder(logdir: str, job: Job) -> Path | None:
    """Return the folder of a finished run with the same config, None if there is none."""
    seed, env = job.config["seed"], job.config["env"]
    parent = Path(logdir) / runs.plain_name(env) / runs.plain_name(job.name)
    for folder in sorted([*parent.glob(f"seed-{seed}"), *parent.glob(f"seed-{seed}-*")]):
        try:
            same = runs.read_config(folder) == runs.as_stored(job.config)
            if same and runs.read_summary(folder, job.config) is not None:
                return folder
        except UsageError:  # no run's folder, or a run that was never begun
            continue
    return None


def run_all(
    jobs: Sequence[Job], logdir: str, workers: int, quiet: bool
) -> tuple[list[Path], list[Failure]]:
    """Run the jobs, `workers` at a time; return their folders and the failures.

    A failed run does not stop the others. On an interrupt all are ended, and save their state.
    """
    waiting, failures = deque(enumerate(jobs)), []
    folders = [Path()] * len(jobs)
    running: dict[subprocess.Popen[bytes], int] = {}
    with progress_bar(jobs, quiet) as update, terminate_on_exit(running):
        while waiting or running:
            while waiting and len(running) < workers:
                i, job = waiting.popleft()
                process, folders[i] = start(job, logdir)
                running[process] = i
            time.sleep(POLL_INTERVAL)
            for process in [one for one in running if one.poll() is not None]:
                i = running.pop(process)
                if process.returncode:
                    reason = failure_reason(process.returncode, log_path(folders[i]))
                    failures.append(Failure(jobs[i], folders[i], reason))
                elif not log_path(folders[i]).stat().st_size:
                    log_path(folders[i]).unlink()
            running_steps = sum(steps_done(folders[i]) for i in running.values())
            done = {*range(len(jobs))} - {i for i, _ in waiting} - {*running.values()}
            update(running_steps + sum(jobs[i].config["steps"] for i in done), len(done))
    return folders, failures


def start(job: Job, logdir: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a run in a new folder; return its process and the folder."""
    seed, env = job.config["seed"], job.config["env"]
    folder = runs.new_folder(logdir, env, job.name, seed)
    command = [sys.executable, "-P", "-m", "seqrl", "train", *job.flags]
    command += ["--seed", str(seed), f"--run-dir={folder}", "--quiet"]
    with open(log_path(folder), "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends each once
        )
    return process, folder


def failure_reason(status: int, log: Path) -> str:
    """Return how a process ended, and the last line of its log."""
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"{how}: {last.removeprefix('seqrl: ')}" if last else how


def steps_done(folder: Path) -> int:
    """Return the env step of the last whole row in a run's episodes.csv, 0 without one."""
    try:
        with open(folder / "episodes.csv", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            return int(file.read().split(b"\n")[-2].split(b",")[0])
    except (OSError, ValueError, IndexError):  # not begun, or no episode has ended
        return 0


@contextmanager
def progress_bar(jobs: Sequence[Job], quiet: bool) -> Iterator[Any]:
    """Yield a function that shows the env steps and runs done, on a terminal only."""
    if quiet or not sys.stderr.isatty() or not jobs:
        yield lambda steps, finished: None
        return
    from tqdm import tqdm

    total = sum(job.config["steps"] for job in jobs)
    with tqdm(total=total, unit=" steps", unit_scale=True, leave=False, file=sys.stderr) as bar:

        def update(steps: int, finished: int) -> None:
            bar.set_postfix_str(f"{finished} of {len(jobs)} runs", refresh=False)
            bar.update(steps - bar.n)

        yield update


@contextmanager
def terminate_on_exit(running: dict[subprocess.Popen[bytes], int]) -> Iterator[None]:
    """Terminate the processes that still run at the end, also on an error or SIGTERM."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        signal.signal(signal.SIGTERM, previous)
