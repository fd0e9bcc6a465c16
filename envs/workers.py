"""Environments in processes of their own, stepped at the same time, which may die or hang."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.util import Finalize
from typing import Any

import gymnasium as gym
import numpy as np

from seqrl.core import Array, RunError, UsageError, explain
from seqrl.core.seeding import ints
from seqrl.envs.adapter import Outcome, Rows
from seqrl.envs.worker import (
    GRACE,
    Child,
    Worker,
    advance,
    begin,
    describe,
    fate,
    guard,
    tell,
)

TIMEOUT = 60.0  # seconds: longer than any step and most first resets, shorter than patience
GLANCE = 0.2  # seconds after which a death is noticed at the latest
LOG = logging.getLogger("seqrl")


class Workers(Rows):
    """N environments, each in a process of its own, stepped at the same time.

    They play what `Serial` plays, to the last bit. `makers` are functions without arguments, sent
    with cloudpickle: what the running script defines need not be importable. A worker that dies, or
    gives no answer for `timeout` seconds, ends the run with a RunError that names it. With
    `restarts` up to as many are replaced instead, which is logged: in that turn the row is
    `truncated` and not `valid`, and a new episode begins under a seed that follows from the old.
    After an error all processes are gone; they also go when the run is killed.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gym.Env]],
        *,
        timeout: float = TIMEOUT,
        restarts: int = 0,
    ):
        if not timeout > 0:
            raise UsageError(f"worker timeout {timeout!r}: expected more than 0 seconds")
        if not isinstance(restarts, int) or restarts < 0:
            raise UsageError(f"worker restarts {restarts!r}: expected a whole number, 0 or more")
        self.timeout, self.restarts = timeout, restarts
        self._makers = list(makers)
        self._lost: list[int] = []  # rows whose process was replaced in the middle of a step
        self._ended = False
        self._guard = Child(guard)
        workers: list[Any] = []
        self._finalize = Finalize(self, close_all, (workers, self._guard), exitpriority=0)
        self.envs, self.seeds = workers, [None] * len(self._makers)
        with self._all_or_none():
            for i in range(len(self._makers)):
                self._hire(i)
            self._describe()
        super().__init__(workers)

    def step(self, action: Array) -> Outcome:
        """One action in every environment [N, ...]."""
        with self._all_or_none():
            for worker, each in zip(self.envs, self._unbatch(action), strict=True):
                worker.ask(advance, each)
            self._gather(self.envs)
            outcome = super().step(action)
        if not self._lost:
            return outcome
        valid = np.ones(self.num_envs, bool)
        valid[self._lost] = False
        self._lost.clear()
        return outcome._replace(valid=valid, real=int(valid.sum()))

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Cut the episodes of the rows in `mask` [N] and begin new ones there."""
        with self._all_or_none():
            for i in np.flatnonzero(mask):
                self.envs[i].ask(begin, None)
            return super().restart(mask, outcome)

    def each(self, function: Callable[..., Any], *given: Sequence[Any]) -> list[Any]:
        """What a function, found there by its name, says of each environment and what is given.

        RunError where one cannot answer; else what the function raises.
        """
        self._refuse_ended()
        for worker, *values in zip(self.envs, *given, strict=True):
            worker.ask(tell, function, *values)
        self._gather(self.envs, replace=False)
        return [worker.take() for worker in self.envs]

    def close(self) -> None:
        """Close the environments and end their processes, by force where they do not listen."""
        self._ended = True
        self._finalize()

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Leave no process with an answer that nobody has heard."""
        self._refuse_ended()
        try:
            yield
        except BaseException:
            self._ended = True
            for worker in self.envs:
                worker.dismiss()
            raise

    def _refuse_ended(self) -> None:
        if self._ended:
            raise RunError("the processes of these environments have ended; make new ones")

    def _hire(self, i: int) -> Worker:
        """A new process for row i."""
        worker = Worker(self._makers[i])
        self.envs[i : i + 1] = [worker]
        self._guard.send([each.process.pid for each in self.envs])
        return worker

    def _describe(self) -> None:
        """Ask for the spaces; the first answer, so that this is where making fails."""
        for worker in self.envs:
            worker.ask(describe)
        self._gather(self.envs, replace=False)
        for i, worker in enumerate(self.envs):
            try:
                worker.observation_space, worker.action_space, worker.spec = worker.take().fn
            except Exception as error:
                text = f"environment {i} cannot be made: {explain(error)}"
                raise UsageError(text) from error

    def _open(self, seeds: list[int | None]) -> list[Any]:
        with self._all_or_none():
            for worker, seed in zip(self.envs, seeds, strict=True):
                worker.ask(begin, seed)
            self._gather(self.envs)
            return super()._open(seeds)

    def _begin(self, rows: list[int], seen: list[Any]) -> tuple[Array, np.ndarray]:
        self._gather(self.envs[i] for i in rows)
        return super()._begin(rows, seen)

    def _gather(self, workers: Iterable[Worker], replace: bool = True) -> None:
        """Wait until each has an answer; one that has none is replaced or ends the run."""
        waiting = list(workers)
        deadline = time.monotonic() + self.timeout
        while waiting:
            left = deadline - time.monotonic()
            waiting[0].listen(max(0.0, min(left, GLANCE)))
            for worker in waiting:  # when the first has answered, most others have, too
                worker.listen(0)
                if not worker.answers and (worker.gone or left <= 0):
                    self._lose(worker, replace)
            waiting = [worker for worker in waiting if not (worker.answers or worker.gone)]

    def _lose(self, worker: Worker, replace: bool) -> None:
        """End a worker that has no answer; replace it, or raise a RunError."""
        i = self.envs.index(worker)
        how = fate(worker.process) if worker.gone else f"no answer for {self.timeout:g} s"
        worker.gone = True
        worker.end()
        problem = f"{self._name(i)}: {how} {worker.doing}"
        if not (replace and self.restarts):
            raise RunError(problem)
        self.restarts -= 1
        LOG.warning("seqrl: %s; replaced, %d more may be", problem, self.restarts)
        self._replace(i, worker)

    def _replace(self, i: int, old: Worker) -> None:
        """Begin an episode in a new process; where a step was under way it becomes none."""
        seed = self.seeds[i]
        if seed is not None:
            seed = self.seeds[i] = ints(np.random.SeedSequence(seed, spawn_key=(0,)), 1)[0]
        new = self._hire(i)
        new.spec = old.spec
        new.ask(begin, seed)
        self._gather([new])  # in which it may be replaced in turn
        if old.request[0] is advance:
            self._lost.append(i)
            self.envs[i].answers.appendleft([None, (old.seen, 0.0, False, True)])


def close_all(workers: list[Worker], guard: Child) -> None:
    """End all processes; those that listen close their environments first."""
    for worker in workers:
        worker.dismiss()
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
    guard.dismiss()
    guard.end(GRACE)
