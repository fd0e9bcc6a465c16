"""The executor: many training runs at once, each a process with a folder and a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from seqrl.agents.factory import Config
from seqrl.core import team
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError, explain
from seqrl.envs.registry import own_code
from seqrl.envs.wrapping import is_trusted, named
from seqrl.training.runs import folder as runs
from seqrl.training.runs.config import complete
from seqrl.training.runs.defaults import AUTO, DEFAULTS, EVAL_EPISODES
from seqrl.training.runs.load import CODE
from seqrl.training.runs.run_one import stored_config

POLL_INTERVAL = 0.05  # seconds between two polls of the processes
Handle = TypeVar("Handle")  # what an engine has of a job that goes on
Tell = Callable[[Sequence["Job"], Sequence["Job"]], object]  # the jobs that go on, those over


class Job(NamedTuple):
    """A run to execute."""

    config: Mapping[str, Any]  # as `run` takes it
    folder: Path | str  # new, empty, or that of a run of this config, which goes on
    name: str = ""  # what to call it
    flags: Sequence[str] = ()  # further ones for the command of the run's process


class Result(NamedTuple):
    """A job that is over."""

    job: Job
    reason: str = ""  # why it failed, "" where it did not

    @property
    def told(self) -> str:
        """Which run failed, why, and where its log is."""
        config = {**DEFAULTS, **self.job.config}
        run = f"{self.job.name} on {config['env']}, seed {config['seed']},"
        return f"{run} failed, {self.reason}; log: {log_path(self.job.folder)}"


class Executor(Protocol):
    """Executes jobs somewhere: in processes here, or on other machines."""

    def map(self, jobs: Iterable[Job]) -> Generator[Result]:
        """Yield the result of each job when it is over; a failed one stops no other."""


class Engine(Protocol[Handle]):
    """Where an executor has its jobs executed: what starts, awaits and ends them."""

    def room(self) -> int:
        """Return how many jobs may go on at once."""

    def start(self, job: Job) -> Handle:
        """Start or continue the run of a job; UsageError where its config or folder is wrong."""

    def ended(self, going: Mapping[Handle, Job]) -> Sequence[tuple[Handle, str]]:
        """Wait a moment; return the jobs that are over, each with why it failed or ""."""

    def end(self, going: Mapping[Handle, Job]) -> None:
        """End the jobs that go on; their folders have what was learned."""


def execute(
    jobs: Iterable[Job], engine: Engine[Handle], progress: Tell = lambda going, over: None
) -> Generator[Result]:
    """Yield the result of each job when it is over; the next is taken when there is room.

    `progress(going, over)` is told the jobs that go on and those that are over, some times a
    second. Where the generator is closed, or an error or KeyboardInterrupt is raised in it, the
    jobs under way are ended.
    """
    todo, over, going = iter(jobs), list[Job](), dict[Handle, Job]()
    try:
        while True:
            while len(going) < engine.room() and (job := next(todo, None)) is not None:
                try:
                    check_apart(job, going.values())
                    going[engine.start(job)] = job
                except UsageError as error:
                    yield Result(job, str(error))
                except Exception as error:  # whatever code of the user's may do
                    yield Result(job, explain(error))
            if not going:
                return
            for handle, reason in engine.ended(going):
                over.append(going.pop(handle))
                yield Result(over[-1], reason)
            progress([*going.values()], over)
    finally:
        engine.end(going)


class Processes:
    """An executor on this machine: `workers` jobs at a time (default: one a CPU), a process each.

    Each has one thread of torch unless its config says otherwise, and a log beside its folder,
    which is removed where nothing is in it. `progress` is that of `execute`.
    """

    def __init__(self, workers: int | None = None, *, progress: Tell = lambda going, over: None):
        team.refuse_several("many runs")
        self.workers = check_whole("workers", workers or os.cpu_count() or 1)
        self.progress = progress

    def map(self, jobs: Iterable[Job]) -> Generator[Result]:
        """Yield the result of each job when it is over; the next is taken when a worker is free.

        Where the iterator is closed, or an error or KeyboardInterrupt is raised in it, the
        processes are ended; their runs are saved.
        """
        return execute(jobs, self, self.progress)

    def room(self) -> int:
        """Return how many processes there may be."""
        return self.workers

    def start(self, job: Job) -> subprocess.Popen[bytes]:
        """Start or continue the run of a job."""
        return start(job)

    def ended(
        self, going: Mapping[subprocess.Popen[bytes], Job]
    ) -> list[tuple[subprocess.Popen[bytes], str]]:
        """Wait a moment; return the processes that are over, each with why it failed or ""."""
        time.sleep(POLL_INTERVAL)
        over = [one for one in going if one.poll() is not None]
        return [(one, failure(one.returncode, log_path(going[one].folder))) for one in over]

    def end(self, going: Mapping[subprocess.Popen[bytes], Job]) -> None:
        """Terminate the processes, which save, and wait for them."""
        for process in going:
            process.terminate()
        for process in going:
            process.wait()


def check_apart(job: Job, others: Iterable[Job]) -> None:
    """Refuse a job in the folder of one that goes on."""
    if Path(job.folder).absolute() in [Path(other.folder).absolute() for other in others]:
        raise UsageError(f"{job.folder}: a job that is under way has this folder; name another")


def log_path(folder: str | Path) -> Path:
    """Return the log's path: beside the run's folder, which has to be empty at the start."""
    return Path(f"{folder}.log")


def start(job: Job) -> subprocess.Popen[bytes]:
    """Start or continue the run of a job; UsageError where its config or folder does not fit."""
    words = run_words(job, prepare(job))
    with open(log_path(job.folder), "wb") as log:
        return subprocess.Popen(
            [sys.executable, *words, f"--resume={Path(job.folder)}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends each once
        )


def prepare(job: Job) -> Config:
    """Return the whole config of a job, which its folder has from now on."""
    folder = Path(job.folder)
    if (folder / runs.CONFIG).exists():
        return stored_config(folder, complete(job.config))
    config = complete(job.config)
    runs.write_config(runs.new_folder("", "", "", 0, str(folder)), config)
    return config


def run_words(job: Job, config: Config) -> list[str]:
    """Return the words for Python, but for the folder, that begin or continue the run of a job."""
    return ["-P", "-m", "seqrl", "train", "--quiet", *code_flags(config), *job.flags]


def code_flags(config: Mapping[str, Any]) -> list[str]:
    """Return the flags that allow a run to import the code which its config names."""
    flags = [f"--{x}={config[x]}" for x in CODE if ":" in str(config.get(x) or "")]
    if ":" in str(teacher := config["agent_args"].get("teacher")) and not Path(teacher).is_dir():
        flags += [f"--agent={config['agent']}", f"--teacher={teacher}"]
    names = (name for name, _ in named(config.get("wrappers")) if not is_trusted(name))
    flags += [f"--wrapper={name}" for name in names]
    tables = (config.get(table) or {} for table in ("env_args", "eval_env_args"))
    code = [item for args in tables for item in own_code(config["env"], args).items()]
    return flags + [f"--env-arg={name}={value}" for name, value in code]


def failure(status: int, log: Path) -> str:
    """Return why a process failed, with the last line of its log; "" where it did not."""
    if not status:
        if log.exists() and not log.stat().st_size:
            log.unlink()
        return ""
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"{how}: {last.removeprefix('seqrl: ')}" if last else how


def steps_done(folder: str | Path) -> int:
    """Return the env step of the last whole row in a run's episodes.csv, 0 without one."""
    try:
        with open(Path(folder) / "episodes.csv", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            return int(file.read().split(b"\n")[-2].split(b",")[0])
    except (OSError, ValueError, IndexError):  # not begun, or no episode has ended
        return 0


def finished_folder(logdir: str, names: Iterable[str], config: Mapping[str, Any]) -> Path | None:
    """Return the folder of a finished run of this config under one of the names, None without."""
    env, stored = Path(logdir) / runs.plain_name(config["env"]), runs.as_stored(dict(config))
    parents = [env / runs.plain_name(name) for name in names]
    endings = "", ".*", "-*"  # runs of 0.1 were numbered with a hyphen
    patterns = [f"seed-{config['seed']}{ending}" for ending in endings]
    for folder in (f for parent in parents for p in patterns for f in sorted(parent.glob(p))):
        try:
            same = as_today(runs.read_config(folder), stored) == stored
            if same and runs.read_summary(folder, stored) is not None:
                return folder
        except UsageError:  # no run's folder, or a run that was never begun
            continue
    return None


def as_today(found: Config, wanted: Config) -> Config:
    """Return a stored config as it would be stored today, beside one that is wanted.

    Settings that there were not yet are at their defaults. A run that says nothing of `eval_every`
    is from before curves, which change nothing of what is learned; 100 episodes were the default.
    Where the device is left to us, whichever it was is the one.
    """
    device = wanted.get("agent_args", {}).get("device")
    if device == AUTO and "device" in (args := found.get("agent_args", {})):
        found = {**found, "agent_args": {**args, "device": AUTO}}
    if found == wanted or any(found.get(x) != wanted.get(x) for x in (*CODE, "wrappers")):
        return found  # nothing to do, or with code that may not be imported
    known = dict(found)
    if "eval_every" not in found and wanted.get("eval_every") in (AUTO, 0):
        known["eval_every"] = wanted["eval_every"]
        if known.get("eval_episodes") == EVAL_EPISODES and "eval_episodes" not in wanted:
            del known["eval_episodes"]
    return runs.as_stored(complete(known))
