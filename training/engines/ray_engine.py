"""Runs on a Ray cluster: a task each, in which the run is a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from seqrl.core.checks import check_whole
from seqrl.core.errors import RunError, UsageError, explain
from seqrl.training.engines.depot import Depot
from seqrl.training.engines.executor import (
    Job,
    Result,
    Tell,
    code_flags,
    execute,
    failure,
    log_path,
    prepare,
    run_words,
)
from seqrl.training.engines.packing import pack_code, unpack_logs
from seqrl.training.engines.remote import (
    PATIENCE,
    Killed,
    Task,
    attempt,
    check_versions,
    travelling,
)
from seqrl.training.engines.scratch import sweep
from seqrl.training.engines.shared_folder import SharedFolder
from seqrl.training.runs import folder as runs

STATES = 100  # that reach the store in a second, at most, of all runs together
WAIT = 0.1  # seconds for a task to be over
TELL = 1.0  # seconds between two looks at the runs under way
LOOK = 5.0  # seconds between two looks at the cluster
ANSWER = 120.0  # seconds for a machine to say what it has


class Ray:
    """An executor on the machines of a Ray cluster that is there: a task a job.

    The newest state of each run leaves its machine as it is saved, into `storage`, a folder that
    all machines have, or else into the memory of this one. A run whose process, worker or machine
    is lost goes on from there, `retries` times. As many go on at once as the cluster has room for
    with `cpus_per_run` and `gpus_per_run`, or `workers`. Raises UsageError where there is no
    cluster, or a machine of it has other versions of what decides a run's bits.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str = "auto",
        cpus_per_run: float = 1.0,
        gpus_per_run: float = 0.0,
        retries: int = 3,
        storage: str | None = None,
        progress: Tell = lambda going, over: None,
    ):
        self.workers = None if workers is None else check_whole("workers", workers)
        self.retries = check_whole("--retries", retries, 0)
        self.needs = {"CPU": cpus_per_run, "GPU": gpus_per_run}
        check_share("--cpus-per-run", cpus_per_run)
        check_share("--gpus-per-run", gpus_per_run)
        if not cpus_per_run + gpus_per_run > 0:
            raise UsageError("--cpus-per-run 0: a run that needs nothing is never full; name more")
        self.progress = progress
        connect(address)
        if not self._slots():
            needed = " and ".join(f"{x:g} {name}" for name, x in self.needs.items() if x)
            raise UsageError(f"no machine of the cluster has {needed} for a run; ask for less")
        check_machines()
        self.store: Depot | SharedFolder = SharedFolder(storage) if storage else Depot()
        self._code: Any = None
        self._keys: dict[Any, str] = {}
        self._looked = self._told = -LOOK

    def map(self, jobs: Iterable[Job]) -> Generator[Result]:
        """Yield the result of each job when it is over; the next is taken when there is room.

        Where the iterator is closed, or an error or KeyboardInterrupt is raised in it, the runs
        are ended; their folders here have what was learned. RunError where the cluster is lost.
        """
        try:
            yield from execute(jobs, self, self.progress)
        except RayError as error:
            left = "the same command, on another one, does what is not finished"
            raise RunError(f"the Ray cluster is gone ({type(error).__name__}); {left}") from error

    def room(self) -> int:
        """Return how many runs there may be; of a cluster that lost all its machines, one."""
        if self.workers is not None:
            return self.workers
        if time.monotonic() - self._looked > LOOK:
            self._looked, self._room = time.monotonic(), max(1, self._slots())
        return self._room

    def _slots(self) -> int:
        """Return how many runs the cluster's machines have room for."""
        needs = {name: x for name, x in self.needs.items() if x}
        return sum(
            min(int(node["Resources"].get(name, 0) / x + 1e-9) for name, x in needs.items())
            for node in machines()
        )

    def start(self, job: Job) -> Any:
        """Submit the run of a job, new or begun."""
        config, folder = prepare(job), Path(job.folder)
        with runs.locked(folder):  # refuses one that is under way here
            key = uuid4().hex
            self.store.save(key, folder, whole=False)
        task = Task(
            key,
            str(folder),
            run_words(job, config),
            os.getcwd(),
            travelling(os.environ),
            runs.versions(),
            max(1.0, self.room() / STATES),
            self.needs["GPU"],
        )
        play = ray.remote(attempt).options(
            name=job.name or folder.name,
            num_cpus=self.needs["CPU"],
            num_gpus=self.needs["GPU"],
            max_retries=self.retries,
            retry_exceptions=[Killed],
        )
        ref = play.remote(task, self._packed_code() if code_flags(config) else b"", self.store)
        self._keys[ref] = key
        return ref

    def _packed_code(self) -> Any:
        """Return the modules of the current folder, which each machine gets once."""
        if self._code is None:
            file = BytesIO()
            pack_code(Path.cwd(), file)
            self._code = ray.put(file.getvalue())
        return self._code

    def ended(self, going: Mapping[Any, Job]) -> list[tuple[Any, str]]:
        """Wait a moment; return the runs that are over, each with why it failed or ""."""
        over, _ = ray.wait([*going], num_returns=1, timeout=WAIT, fetch_local=False)
        found = [(ref, self._outcome(ref, going[ref])) for ref in over]
        if time.monotonic() - self._told > TELL:
            self._told = time.monotonic()
            folders = {self._keys[ref]: job.folder for ref, job in going.items() if ref not in over}
            for key, state in self.store.news(folders):
                unpack_logs(state, Path(folders[key]))
        return found

    def _outcome(self, ref: Any, job: Job) -> str:
        """Bring a run that is over to its folder; return why it failed or ""."""
        log, reason = log_path(job.folder), ""
        try:
            status, said = ray.get(ref)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, Killed):
                status, said = cause.args
            else:
                status, said, reason = 1, b"", explain(cause)
        log.write_bytes(said)
        return self._bring(ref, job) or reason or failure(status, log)

    def _bring(self, ref: Any, job: Job) -> str:
        """Put the last state of a run in its folder, and forget it; return why not or ""."""
        key = self._keys.pop(ref)
        try:
            with runs.locked(Path(job.folder)):
                self.store.load(key, Path(job.folder))
        except (UsageError, RayError, OSError) as error:
            return explain(error)
        self.store.drop(key)
        return ""

    def end(self, going: Mapping[Any, Job]) -> None:
        """End the runs under way, which save, and bring what they learned to their folders."""
        for ref in going:
            with suppress(RayError):  # of a cluster that is gone
                ray.cancel(ref)
        late = ray.wait([*going], num_returns=len(going), timeout=PATIENCE)[1] if going else []
        for ref in late:
            ray.cancel(ref, force=True)
        for ref, job in going.items():
            self._bring(ref, job)
        sweep()


def check_share(flag: str, number: float) -> None:
    """Refuse an amount of CPUs or GPUs that Ray does not take: above 1 it is a whole number."""
    if not 0 <= number < float("inf") or (number > 1 and number != int(number)):
        raise UsageError(f"{flag} {number:g}: expected a whole number, or a share below 1")


def machines() -> list[dict[str, Any]]:
    """Return what Ray knows of the machines that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def connect(address: str) -> None:
    """Connect to a cluster, unless this process has one; UsageError where there is none."""
    if ray.is_initialized():
        return
    start = "start one by `ray start --head`, or name another by --address HOST:PORT"
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdecimal()):
        raise UsageError(f"--address {address}: expected auto or HOST:PORT")
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=5).close()
        with kept_handler():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        # or each worker that is lost gets paragraphs on stdout; results say what came of it
        ray._private.worker.print_to_stdstream = lambda *args, **kwargs: None
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise UsageError(f"--address {address}: no Ray cluster is there; {start}") from error


@contextmanager
def kept_handler() -> Iterator[None]:
    """Put back what SIGTERM does, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def reporter(packages: tuple[str, ...]) -> Callable[[], dict[str, str]]:
    """Return a function that says which versions a machine has, "" for none.

    It is sent by value: the machine may have no seqrl.
    """

    def report() -> dict[str, str]:
        from importlib.metadata import PackageNotFoundError, version

        found = {}
        for package in packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = ""
        return found

    return report


def check_machines() -> None:
    """Refuse a cluster of which a machine would play other bits than this one."""
    report, nodes, asked = reporter(runs.PACKAGES), machines(), []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(ray.remote(report).options(num_cpus=0, scheduling_strategy=there).remote())
    for node, answer in zip(nodes, asked, strict=True):
        name = f"the cluster's {node['NodeManagerAddress']}"
        try:
            found = ray.get(answer, timeout=ANSWER)
        except RayError as error:
            raise UsageError(f"{name} does not answer: {explain(error)}") from error
        check_versions(name, found, runs.versions())
