"""Environments in separate processes, stepped in parallel, which may die or hang."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.util import Finalize
from typing import Any

import numpy as np

from seqrl.core.errors import RunError, UsageError, explain
from seqrl.core.seeding import ints
from seqrl.core.types import Array
from seqrl.envs import worker as child
from seqrl.envs.adapter import Outcome, SeparateEnvs
from seqrl.envs.answers import told
from seqrl.envs.worker import ChildProcess, MakeEnv, Worker

TIMEOUT = 60.0  # seconds: longer than any step and most first resets
POLL_INTERVAL = 0.2  # seconds within which the end of a process is noticed
LOG = logging.getLogger("seqrl")


class Workers(SeparateEnvs):
    """N environments, each in a process of its own, stepped in parallel.

    The results are those of `Serial`, bit for bit. `makers` are functions without arguments, sent
    with cloudpickle: what the running script defines need not be importable. A worker that dies, or
    gives no answer for `timeout` seconds, ends the run with a RunError that names it. Up to
    `restarts` of them are replaced instead, with a log message: that step is `truncated` and not
    `valid`, and a new episode begins with a seed derived from the old. All processes end after an
    error, and also when the run is killed.
    """

    def __init__(self, makers: Sequence[MakeEnv], *, timeout: float = TIMEOUT, restarts: int = 0):
        if not timeout > 0:
            raise UsageError(f"worker timeout {timeout!r}: expected more than 0 seconds")
        if not isinstance(restarts, int) or restarts < 0:
            raise UsageError(f"worker restarts {restarts!r}: expected a whole number, 0 or more")
        self.timeout, self.restarts = timeout, restarts
        self._makers = list(makers)
        self._interrupted: list[int] = []  # workers replaced during a step
        self._closed = False
        self._watchdog = ChildProcess(child.watchdog)
        workers: list[Any] = []
        self._finalize = Finalize(self, close_all, (workers, self._watchdog), exitpriority=0)
        self.envs, self.seeds = workers, [None] * len(self._makers)
        with self._stop_on_error():
            for i in range(len(self._makers)):
                self._start_worker(i)
            self._describe()
        super().__init__(workers)

    def step(self, action: Array) -> Outcome:
        """Take one action in every environment [N, ...]."""
        with self._stop_on_error():
            for worker, each in zip(self.envs, self._unbatch(action), strict=True):
                worker.submit(child.step_env, each)
            self._wait_for_answers(self.envs)
            outcome = super().step(action)
        if not self._interrupted:
            return outcome
        valid = np.ones(self.num_envs, bool)
        valid[self._interrupted] = False
        self._interrupted.clear()
        return outcome._replace(valid=valid, real=int(valid.sum()))

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Truncate the episodes where `mask` [N] holds and begin new ones there."""
        with self._stop_on_error():
            for i in np.flatnonzero(mask):
                self.envs[i].submit(child.reset_env, None)
            return super().restart(mask, outcome)

    def _told_all(self) -> list[Any]:
        with self._stop_on_error():
            for worker in self.envs:
                worker.submit(child.call, told)
            for worker in self._silent(self.envs):
                if not self.restarts:
                    self._handle_failure(worker, replace=False)
                worker.answers.append([None, None])  # unknown; the next step replaces it
            return super()._told_all()

    def _tell(self, i: int) -> Any:
        return self.envs[i].result()

    def each(self, function: Callable[..., Any], *given: Sequence[Any]) -> list[Any]:
        """Return the results of an importable `function(env, *values)`, values from `given`.

        Raises RunError where a worker does not answer; else what the function raises.
        """
        self._check_open()
        for worker, *values in zip(self.envs, *given, strict=True):
            worker.submit(child.call, function, *values)
        self._wait_for_answers(self.envs, replace=False)
        return [worker.result() for worker in self.envs]

    def close(self) -> None:
        """Close the environments and end their processes; kill those that do not respond."""
        self._closed = True
        self._finalize()

    @contextmanager
    def _stop_on_error(self) -> Iterator[None]:
        """Stop all workers after an exception, so that no answer stays unread."""
        self._check_open()
        try:
            yield
        except BaseException:
            self._closed = True
            for worker in self.envs:
                worker.request_stop()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise RunError("the processes of these environments have ended; make new ones")

    def _start_worker(self, i: int) -> Worker:
        """Start a new process for environment i."""
        worker = Worker(self._makers[i])
        self.envs[i : i + 1] = [worker]
        self._watchdog.send([each.process.pid for each in self.envs])
        return worker

    def _describe(self) -> None:
        """Request the spaces; the first answer, so that an error in making shows here."""
        for worker in self.envs:
            worker.submit(child.describe)
        self._wait_for_answers(self.envs, replace=False)
        for i, worker in enumerate(self.envs):
            try:
                worker.observation_space, worker.action_space, worker.spec = worker.result().fn
            except Exception as error:
                text = f"environment {i} cannot be made: {explain(error)}"
                raise UsageError(text) from error

    def _reset_all(self, seeds: list[int | None]) -> list[Any]:
        with self._stop_on_error():
            for worker, seed in zip(self.envs, seeds, strict=True):
                worker.submit(child.reset_env, seed)
            self._wait_for_answers(self.envs)
            return super()._reset_all(seeds)

    def _reset_ended(self, indices: list[int], observations: list[Any]) -> tuple[Array, np.ndarray]:
        self._wait_for_answers(self.envs[i] for i in indices)
        return super()._reset_ended(indices, observations)

    def _wait_for_answers(self, workers: Iterable[Worker], replace: bool = True) -> None:
        """Wait for an answer of each worker; one without is replaced or ends the run."""
        for worker in self._silent(workers):
            self._handle_failure(worker, replace)

    def _silent(self, workers: Iterable[Worker]) -> Iterator[Worker]:
        """Wait for an answer of each worker; yield those that have none, as soon as it is known."""
        waiting = list(workers)
        deadline = time.monotonic() + self.timeout
        while waiting:
            remaining = deadline - time.monotonic()
            waiting[0].poll_answer(max(0.0, min(remaining, POLL_INTERVAL)))
            for worker in waiting:  # when the first has answered, most others have too
                worker.poll_answer(0)
                if not worker.answers and (worker.dead or remaining <= 0):
                    yield worker
            waiting = [worker for worker in waiting if not (worker.answers or worker.dead)]

    def _handle_failure(self, worker: Worker, replace: bool) -> None:
        """End a worker that has no answer; replace it or raise a RunError."""
        i = self.envs.index(worker)
        late = f"no answer for {self.timeout:g} s"
        cause = child.exit_cause(worker.process) if worker.dead else late
        worker.dead = True
        worker.end()
        problem = f"{self._name(i)}: {cause} {worker.request_context}"
        if not (replace and self.restarts):
            raise RunError(problem)
        self.restarts -= 1
        LOG.warning("seqrl: %s; replaced, %d more may be", problem, self.restarts)
        self._replace(i, worker)

    def _replace(self, i: int, failed: Worker) -> None:
        """Begin an episode in a new process; a step that was interrupted becomes a filler step."""
        seed = self.seeds[i]
        if seed is not None:
            seed = self.seeds[i] = ints(np.random.SeedSequence(seed, spawn_key=(0,)), 1)[0]
        replacement = self._start_worker(i)
        replacement.spec = failed.spec
        replacement.submit(child.reset_env, seed)
        self._wait_for_answers([replacement])  # may replace it in turn
        if failed.request[0] is child.step_env:
            self._interrupted.append(i)
            self.envs[i].answers.appendleft([None, (failed.last_obs, 0.0, False, True)])


def close_all(workers: list[Worker], watchdog: ChildProcess) -> None:
    """End all processes; those that respond close their environments first."""
    for worker in workers:
        worker.request_stop()
    deadline = time.monotonic() + child.CLOSE_TIMEOUT
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
    watchdog.request_stop()
    watchdog.end(child.CLOSE_TIMEOUT)
