"""A run of a job on another machine: a process that ends with its parent, from the newest state."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from seqrl.core.errors import UsageError
from seqrl.training.engines.packing import has_code, unpack
from seqrl.training.engines.scratch import scratch
from seqrl.training.runs import folder as runs

POLL_INTERVAL = 0.1  # seconds
COST = 20  # times what it took to send a state pass before the next one is sent
PATIENCE = 60.0  # seconds for a run that is to end
KEPT = 1_000_000  # bytes of a log's end
# a process that Linux kills with its parent, and that then becomes the command
TETHERED = (
    "import ctypes, os, signal, sys; parent, *command = sys.argv[1:]\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() != int(parent): sys.exit(1)\n"
    "os.execv(command[0], command)"
)
# what of a user's environment is for the run, not for a machine
TRAVELS = (
    *("OMP_", "MKL_", "OPENBLAS_", "CUBLAS_", "NUMBA_", "TORCH_", "PYTORCH_", "SEQRL_"),
    *("PYTHONHASHSEED", "MUJOCO_GL", "SDL_", "MINARI_DATASETS_PATH", "HF_HOME", "HF_HUB_OFFLINE"),
)


class Store(Protocol):
    """Keeps the newest state of each run, outside of the machine that plays it."""

    def save(self, key: str, folder: Path, *, whole: bool = True) -> None:
        """Keep what is in a run's folder in the place of what is kept of it."""

    def load(self, key: str, folder: Path) -> None:
        """Put what is kept of a run in the place of a folder."""


class Task(NamedTuple):
    """What another machine has to know of a run, its state apart."""

    key: str
    folder: str  # of the run, where the command was typed
    command: Sequence[str]  # without Python and the folder
    cwd: str  # where the command was typed
    environ: Mapping[str, str]
    versions: Mapping[str, str]  # of what decides a run's bits
    interval: float = 1.0  # least seconds between two states that are sent
    gpus: float = 0


class Killed(Exception):
    """The process of a run was killed, and may go on elsewhere: its status and log."""


def travelling(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that a run elsewhere has as well."""
    return {name: value for name, value in environ.items() if name.startswith(TRAVELS)}


def attempt(task: Task, code: bytes, store: Store) -> tuple[int, bytes]:
    """Play a run from its newest state to its end; return its exit status and its log.

    However it ends, its last state is in the store; raises Killed where a signal ended it, and
    UsageError where its bits would be others here.
    """
    check_versions(socket.gethostname(), runs.versions(), task.versions)
    with scratch() as home:
        folder, log = home / "run", home / "log"
        store.load(task.key, folder)
        with open(log, "wb") as file:
            process = start(task, folder, file, place(home, task.cwd, code))
        try:
            # ignored in all that a shell has started in the background, and Ray interrupts so
            with on_interrupt(signal.default_int_handler):
                follow(process, folder, lambda: store.save(task.key, folder, whole=False), task)
        finally:
            with on_interrupt(signal.SIG_IGN):  # a second one breaks off nothing
                end(process)
                store.save(task.key, folder)
        said = log.read_bytes()[-KEPT:].replace(os.fsencode(folder), os.fsencode(task.folder))
        if process.returncode < 0 or process.returncode == 128 + signal.SIGTERM:
            raise Killed(process.returncode, said)
        return process.returncode, said


def check_versions(name: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse a machine that has other versions than that whose runs these are."""
    for package, version in here.items():
        if there[package] != version:
            has = f"has {package} {there[package]}" if there[package] else f"has no {package}"
            remedy = "install the same there, by the wheel and constraints.txt"
            raise UsageError(f"{name} {has}, the command's machine {version}; {remedy}")


def place(home: Path, cwd: str, code: bytes) -> Path:
    """Return the folder to start in: that of the command where it is here with the same code."""
    if Path(cwd).is_dir() and (not code or has_code(Path(cwd), BytesIO(code))):
        return Path(cwd)
    if code:
        unpack(BytesIO(code), home / "code")
        return home / "code"
    return home


def start(task: Task, folder: Path, log: IO[bytes], cwd: Path) -> subprocess.Popen[bytes]:
    """Start the process of a run."""
    python = [sys.executable, "-I", "-S", "-c", TETHERED, str(os.getpid()), sys.executable]
    environ = {**os.environ, **task.environ, "OMP_NUM_THREADS": "1"}
    if not task.gpus:
        environ["CUDA_VISIBLE_DEVICES"] = ""  # those of others
    return subprocess.Popen(
        [*python, *task.command, f"--resume={folder}"],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def follow(
    process: subprocess.Popen[bytes], folder: Path, send: Callable[[], object], task: Task
) -> None:
    """Send the state of a run as it is saved, until its process is over."""
    sent, due = runs.checkpoints(folder)[:1], time.monotonic() + task.interval
    while process.poll() is None:
        time.sleep(POLL_INTERVAL)
        newest = runs.checkpoints(folder)[:1]
        if newest != sent and time.monotonic() >= due:
            began = time.monotonic()
            try:
                send()
                sent = newest
            except FileNotFoundError:  # removed for newer ones meanwhile
                continue
            took = time.monotonic() - began
            due = began + max(task.interval, COST * took)


@contextmanager
def on_interrupt(handler: Any) -> Iterator[None]:
    """Let Python's main thread answer an interrupt so, whatever it was told to do before."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, handler) if main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that goes on: it saves; one that does not end in time is killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
