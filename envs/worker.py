"""Worker processes with one environment each, which may die or hang, and a watchdog process.

A worker detects the end of the run by its pipe, the run that of a worker by its pipe or process.
When the run is killed, workers that do not read their pipe (an environment that hangs) are killed
by the watchdog.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import signal
import sys
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
from gymnasium.vector.utils import CloudpickleWrapper

from seqrl.core.errors import RunError, UsageError
from seqrl.envs.batches import first_obs

PROTOCOL = pickle.HIGHEST_PROTOCOL
STOP = b""
MakeEnv = Callable[[], gym.Env]
CLOSE_TIMEOUT = 2.0  # seconds that a worker has to close its environment
EXIT_TIMEOUT = 0.5  # seconds to wait for the exit code of an ended process
OWN_ERRORS: dict[str, type[Exception]] = {"RunError": RunError, "UsageError": UsageError}
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


# ---- in the child process: a request is one of these functions and its arguments


def describe(env: gym.Env) -> Iterator[Any]:
    """Yield the spaces and the spec of an environment."""
    description: Any = (env.observation_space, env.action_space, env.spec)
    yield CloudpickleWrapper(description)


def reset_env(env: gym.Env, seed: int | None) -> Iterator[Any]:
    """Begin a new episode; yield its first observation."""
    yield first_obs(env.reset(seed=seed))


def step_env(env: gym.Env, action: Any) -> Iterator[Any]:
    """Take a step and yield its result; at an episode's end also yield the next observation."""
    obs, reward, terminated, truncated, _ = env.step(action)
    yield obs, reward, terminated, truncated
    if terminated or truncated:
        yield from reset_env(env, None)


def call(env: gym.Env, function: Callable[..., Any], *given: Any) -> Iterator[Any]:
    """Yield what a function returns for the environment."""
    yield function(env, *given)


CONTEXT = {describe: "while it was made", reset_env: "at its reset", call: "between two steps"}


def run_worker(pipe: Connection) -> None:
    """Run a worker: make the environment, then answer requests until the pipe is closed."""
    new_process_group()
    env: Any = None
    with suppress(EOFError, OSError):
        make = pipe.recv_bytes()
        for number in count(1):
            request = pipe.recv_bytes()
            if request == STOP:
                break
            try:
                env = pickle.loads(make)() if env is None else env
                function, *given = pickle.loads(request)
                for answer in function(env, *given):  # sent before a buffer is reused
                    pipe.send_bytes(pickle.dumps((number, None, answer), PROTOCOL))
            except Exception as error:
                pipe.send_bytes(pickle.dumps((number, error_parts(error), None), PROTOCOL))
    if env is not None:
        env.close()


def error_parts(error: Exception) -> tuple[str, str, str]:
    """Return an exception as text that can always be pickled: type, message, traceback."""
    return type(error).__name__, str(error), traceback.format_exc()


def watchdog(pipe: Connection) -> None:
    """Run the watchdog: when the run ends without STOP, kill the workers that it named last."""
    new_process_group()
    workers: list[int] = []
    with suppress(EOFError, OSError):
        while (message := pipe.recv_bytes()) != STOP:
            workers = pickle.loads(message)
        return
    time.sleep(CLOSE_TIMEOUT)
    for worker in workers:
        kill_group(worker)


def new_process_group() -> None:
    """Lead a new process group, and leave the handling of signals to the run.

    Signals are caught rather than ignored, as child processes would inherit the latter.
    """
    os.setsid()
    for number in HANDLED:
        signal.signal(number, lambda number, frame: None)


def kill_group(group_id: int) -> None:
    """Kill a worker and the processes that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group_id, signal.SIGKILL)


# ---- in the parent process


class ChildProcess:
    """A new process and the parent's end of its pipe."""

    def __init__(self, target: Callable[[Connection], None]):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["seqrl.envs"])
        self.pipe, child_end = context.Pipe()
        self.process = context.Process(target=target, args=(child_end,))
        with no_main_module():
            self.process.start()
        child_end.close()

    def send(self, message: Any) -> None:
        """Send a message; a closed pipe is noticed when the answer is awaited."""
        message = pickle.dumps(message, PROTOCOL)
        with suppress(OSError):
            self.pipe.send_bytes(message)

    def request_stop(self) -> None:
        """Send STOP and close the pipe; a fork of this process may keep the pipe open."""
        with suppress(OSError):
            self.pipe.send_bytes(STOP)
        self.pipe.close()

    def end(self, wait: float = 0.0) -> None:
        """Kill the process group after `wait` seconds, and close the pipe."""
        self.process.join(wait)
        self.process.kill()
        kill_group(self.process.pid or 0)
        self.process.join()
        self.pipe.close()


@contextmanager
def no_main_module() -> Iterator[None]:
    """Keep a new process from importing the running script and its imports."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Worker(ChildProcess):
    """A process with one environment, with the interface of that environment.

    `step` and `reset` return the answers to requests submitted and polled for before.
    """

    def __init__(self, make: MakeEnv):
        super().__init__(run_worker)
        self.request: tuple[Any, ...] = (describe,)
        self.number = 0  # of the last request
        self.answers: deque[list[Any]] = deque()
        self.dead = False  # no more answers will come
        self.last_obs: Any = None
        self.observation_space: Any = None
        self.action_space: Any = None
        self.spec: Any = None
        self._ends = select.poll()
        for end in (self.pipe, self.process.sentinel):
            self._ends.register(end, select.POLLIN)
        self.send(CloudpickleWrapper(make))

    def submit(self, *request: Any) -> None:
        """Send a request: one of the functions above and its arguments."""
        self.request = request
        self.number += 1
        self.answers.clear()
        self.send(request)

    def poll_answer(self, seconds: float) -> None:
        """Wait at most so many seconds for an answer or the end of the process."""
        if self.answers or self.dead:
            return
        ends = [end for end, _ in self._ends.poll(1000 * seconds)]
        if ends and self.pipe.fileno() not in ends and not self.pipe.poll():
            self.dead = True  # a process that it started holds the pipe
        elif ends:
            self._receive()

    def _receive(self) -> None:
        try:
            message = self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.dead = True
            return
        try:
            number, *answer = pickle.loads(message)
        except Exception as error:  # of a type that cannot be imported here
            number, answer = self.number, [error_parts(error), None]
        if number == self.number:  # else the answer to a discarded request
            self.answers.append(answer)

    def result(self) -> Any:
        """Return the next answer; re-raise the environment's exception by its name."""
        failure, answer = self.answers.popleft()
        if failure:
            name, text, trace_text = failure
            error = OWN_ERRORS.get(name, type(name, (Exception,), {}))(text)
            error.add_note(trace_text)
            raise error
        return answer

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Return the result of the submitted step."""
        self.last_obs, reward, terminated, truncated = self.result()
        return self.last_obs, reward, terminated, truncated, {}

    def reset(self, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the first observation of the submitted reset."""
        self.last_obs = self.result()
        return self.last_obs, {}

    @property
    def request_context(self) -> str:
        """Return when the last request ran, as text for an error message."""
        function, *given = self.request
        return CONTEXT.get(function) or f"at action {given[0]}"


def exit_cause(process: Any) -> str:
    """Return how a process has ended, as text."""
    process.join(EXIT_TIMEOUT)
    code = process.exitcode
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    cause = ", for want of memory?" if code == -signal.SIGKILL else ""
    return f"its process was ended by {signal.Signals(-code).name}{cause}"
