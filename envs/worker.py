"""A process that plays one environment, which may die or hang: its work, and its near end.

Both ends notice when the other is gone: the process by the end of its pipe, the run also by the
end of the process. Where the run is killed, those that do not listen any more (an environment that
hangs) are ended by a guard: a process that waits for just that.
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

from seqrl.core import RunError, UsageError

PROTOCOL = pickle.HIGHEST_PROTOCOL
FAREWELL = b""
GRACE = 2.0  # seconds in which a worker may close its environment
FATE = 0.5  # seconds in which it becomes known how a process that is gone has ended
OURS: dict[str, type[Exception]] = {"RunError": RunError, "UsageError": UsageError}
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


# ---- at the far end: a request is one of these functions and what it needs


def describe(env: gym.Env) -> Iterator[Any]:
    """What the run has to know of an environment."""
    description: Any = (env.observation_space, env.action_space, env.spec)
    yield CloudpickleWrapper(description)


def begin(env: gym.Env, seed: int | None) -> Iterator[Any]:
    """A new episode; its first observation."""
    obs, _ = env.reset(seed=seed)
    yield obs


def advance(env: gym.Env, action: Any) -> Iterator[Any]:
    """One step; where it ends the episode the next one begins unasked, in a second answer."""
    obs, reward, terminated, truncated, _ = env.step(action)
    yield obs, reward, terminated, truncated
    if terminated or truncated:
        yield from begin(env, None)


def tell(env: gym.Env, function: Callable[..., Any], *given: Any) -> Iterator[Any]:
    """What a function says of the environment."""
    yield function(env, *given)


DOING = {describe: "while it was made", begin: "at its reset", tell: "between two steps"}


def work(pipe: Connection) -> None:
    """A worker: make an environment, then answer requests until nobody is there."""
    stand_alone()
    env: Any = None
    with suppress(EOFError, OSError):
        make = pipe.recv_bytes()
        for number in count(1):
            request = pipe.recv_bytes()
            if request == FAREWELL:
                break
            try:
                env = pickle.loads(make)() if env is None else env
                function, *given = pickle.loads(request)
                for answer in function(env, *given):  # sent before the environment changes it
                    pipe.send_bytes(pickle.dumps((number, None, answer), PROTOCOL))
            except Exception as error:
                pipe.send_bytes(pickle.dumps((number, in_words(error), None), PROTOCOL))
    if env is not None:
        env.close()


def in_words(error: Exception) -> tuple[str, str, str]:
    """An exception as what can always be sent: type, message, traceback."""
    return type(error).__name__, str(error), traceback.format_exc()


def guard(pipe: Connection) -> None:
    """The guard: when the run is gone without a word, end the workers it named last."""
    stand_alone()
    workers: list[int] = []
    with suppress(EOFError, OSError):
        while (message := pipe.recv_bytes()) != FAREWELL:
            workers = pickle.loads(message)
        return
    time.sleep(GRACE)
    for worker in workers:
        end_group(worker)


def stand_alone() -> None:
    """Head a process group of one's own, and leave it to the run what a signal means.

    The signals are caught rather than ignored: what the environment starts would inherit that.
    """
    os.setsid()
    for number in HANDLED:
        signal.signal(number, lambda number, frame: None)


def end_group(head: int) -> None:
    """Kill a worker and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(head, signal.SIGKILL)


# ---- at the near end


class Child:
    """A process made afresh, and the near end of the pipe to it."""

    def __init__(self, target: Callable[[Connection], None]):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["seqrl.envs"])
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=target, args=(far,))
        with no_main_module():
            self.process.start()
        far.close()

    def send(self, message: Any) -> None:
        """Send; that nobody is there any more shows when the answer is awaited."""
        message = pickle.dumps(message, PROTOCOL)
        with suppress(OSError):
            self.pipe.send_bytes(message)

    def dismiss(self) -> None:
        """Let it go; the end of the pipe alone may be kept from it by a copy of this process."""
        with suppress(OSError):
            self.pipe.send_bytes(FAREWELL)
        self.pipe.close()

    def end(self, wait: float = 0.0) -> None:
        """Close the pipe and kill what is there after so many seconds, with all that it started."""
        self.process.join(wait)
        self.process.kill()
        end_group(self.process.pid or 0)
        self.process.join()
        self.pipe.close()


@contextmanager
def no_main_module() -> Iterator[None]:
    """Keep a new process from importing the script that runs, and all that it imports."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Worker(Child):
    """A process with one environment, which has the face of that environment.

    `step` and `reset` are answered from what was asked, and has been listened for, before.
    """

    def __init__(self, make: Callable[[], gym.Env]):
        super().__init__(work)
        self.request: tuple[Any, ...] = (describe,)
        self.number = 0  # of that request
        self.answers: deque[list[Any]] = deque()
        self.gone = False  # nothing more will be heard
        self.seen: Any = None  # the last observation
        self.observation_space: Any = None
        self.action_space: Any = None
        self.spec: Any = None
        self._ends = select.poll()
        for end in (self.pipe, self.process.sentinel):
            self._ends.register(end, select.POLLIN)
        self.send(CloudpickleWrapper(make))

    def ask(self, *request: Any) -> None:
        """Have a request answered: one of the functions above and what it needs."""
        self.request = request
        self.number += 1
        self.answers.clear()
        self.send(request)

    def listen(self, seconds: float) -> None:
        """Wait so long at most for an answer, or for the notice that none will come."""
        if self.answers or self.gone:
            return
        ends = [end for end, _ in self._ends.poll(1000 * seconds)]
        if ends and self.pipe.fileno() not in ends and not self.pipe.poll():
            self.gone = True  # something that it started holds the pipe
        elif ends:
            self._receive()

    def _receive(self) -> None:
        try:
            message = self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.gone = True
            return
        try:
            number, *answer = pickle.loads(message)
        except Exception as error:  # of a type that is not known here
            number, answer = self.number, [in_words(error), None]
        if number == self.number:  # else to a question that nobody asks any more
            self.answers.append(answer)

    def take(self) -> Any:
        """The next answer; raises what the environment raised, by its name."""
        failure, answer = self.answers.popleft()
        if failure:
            name, text, trace = failure
            error = OURS.get(name, type(name, (Exception,), {}))(text)
            error.add_note(trace)
            raise error
        return answer

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """What the step brought."""
        self.seen, reward, terminated, truncated = self.take()
        return self.seen, reward, terminated, truncated, {}

    def reset(self, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation."""
        self.seen = self.take()
        return self.seen, {}

    @property
    def doing(self) -> str:
        """What it was asked for last."""
        what, *given = self.request
        return DOING.get(what) or f"at action {given[0]}"


def fate(process: Any) -> str:
    """How a process that is gone has ended."""
    process.join(FATE)
    code = process.exitcode
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    cause = ", for want of memory?" if code == -signal.SIGKILL else ""
    return f"its process was ended by {signal.Signals(-code).name}{cause}"
