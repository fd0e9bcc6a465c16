"""A search under way: trials asked for as workers are free, executed as runs, and told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from socket import gethostname
from typing import Any, NamedTuple

from seqrl.core.errors import UsageError
from seqrl.training.comparison.recorded import read_run, read_settings
from seqrl.training.engines.executor import Executor, Job, Result
from seqrl.training.runs.folder import CONFIG, locked
from seqrl.training.search.pruning import PRUNED, Report
from seqrl.training.search.space import Values
from seqrl.training.search.study import Study, import_optuna, in_turn

# attributes of a trial: why it failed, the env steps it took, where its runs are
REASON, STEPS, PLACE = "reason", "steps", "place"
WAIT = 0.5  # seconds between two looks at a run whose search is gone


class UnderWay(NamedTuple):
    """A trial that this process works on."""

    trial: Any
    config: dict[str, Any]
    folder: Path  # of its runs
    lock: ExitStack  # tells other processes so; closed by the system where this one is killed
    scores: list[float]  # of the seeds that are done

    @property
    def steps(self) -> int:
        """The env steps of the seeds that are done."""
        return len(self.scores) * self.config["steps"]


class Search:
    """The trials of a study up to a number of them, each the mean score of its seeds.

    The seeds of a trial run one after the other, so that a pruner ends it after a part of the
    first; several trials run at once. Trials that a process has left behind, killed or interrupted,
    go on from what they saved. `config_of` gives the config of a trial's values (UsageError where
    there is none); `heard` is told what failed.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        config_of: Callable[[Values], dict[str, Any]],
        *,
        trials: int,
        seeds: Sequence[int],
        metric: str,
        pruner: str,
        heard: Callable[[str], object] = lambda text: None,
    ):
        self.study, self.folder, self.config_of = study, folder.absolute(), config_of
        self.turn = folder / "turn" if "://" in study.where else Path(f"{study.where}.turn")
        self.trials, self.seeds, self.metric, self.pruner = trials, seeds, metric, pruner
        self.heard = heard
        self.under_way: dict[Path, UnderWay] = {}  # by the folder of the run that goes on
        self.ready: list[UnderWay] = []  # whose next seed waits for a worker
        self.exhausted = False
        self.over = 0  # trials that this process has told

    def run(self, executor: Executor) -> None:
        """Execute what is left of the search; its trials are told to the study as they end."""
        try:
            while not self.exhausted or self.ready:
                with closing(executor.map(self.jobs())) as results:
                    for result in results:
                        self.take(result)
        finally:
            for one in [*self.under_way.values(), *self.ready]:
                one.lock.close()

    def jobs(self) -> Iterator[Job]:
        """Yield a run whenever a worker is free: of a trial that is begun, else of a new one."""
        while one := self.ready.pop(0) if self.ready else self.next_trial():
            seed = self.seeds[len(one.scores)]
            folder = one.folder / f"seed-{seed}"
            self.under_way[folder] = one
            where, name, number = self.study.where, self.study.name, one.trial.number
            parts = self.pruner, self.metric, len(self.seeds), one.scores
            report = Report(where, name, number, *parts)
            flags = ["--search-trial", report.text]
            yield Job({**one.config, "seed": seed}, folder, f"trial {number}", flags)

    def next_trial(self) -> UnderWay | None:
        """Return a trial that was left behind, or a new one; None where there is nothing to do."""
        while not self.exhausted:
            with in_turn(self.turn):
                one = self._left_behind() or self._new()
            if one is None:
                self.exhausted = True
                return None
            await_run(one.folder)
            if not self.told(one):
                return one
        return None

    def _left_behind(self) -> UnderWay | None:
        """Return a trial whose process is gone, by which its folder is locked no more."""
        for trial in self.study.trials("RUNNING"):
            host, place = trial.user_attrs.get(PLACE, (gethostname(), ""))
            folder = Path(place) if place else trial_folder(self.folder, trial.number)
            if host != gethostname() and not folder.exists():
                continue  # on another machine
            try:
                lock = lock_of(folder)
            except UsageError:
                continue
            if one := self._begun(self.study.again(trial.number), folder, lock):
                return one
        return None

    def _new(self) -> UnderWay | None:
        """Return a new trial; None where there are as many as are wanted."""
        while len(self.study.trials()) < self.trials:
            trial = self.study.study.ask()
            folder = trial_folder(self.folder, trial.number)
            trial.set_user_attr(PLACE, [gethostname(), str(folder)])
            if one := self._begun(trial, folder, lock_of(folder)):
                return one
        return None

    def _begun(self, trial: Any, folder: Path, lock: ExitStack) -> UnderWay | None:
        """Return a trial that is locked, None where it is told at once.

        That is one of values that were tried, for runs are exact and would give the same, or of
        values that no run can have together.
        """
        values = self.study.draw(trial)
        for other in self.study.trials("COMPLETE"):
            if self.study.values_of(other) == values:
                self._tell(trial, lock, other.value, steps=0)
                return None
        try:
            return UnderWay(trial, self.config_of(values), folder, lock, [])
        except UsageError as error:
            self._tell(trial, lock, reason=str(error), steps=0)
            return None

    def take(self, result: Result) -> None:
        """Go on with a trial one of whose runs is over."""
        one = self.under_way.pop(Path(result.job.folder))
        done = len(one.scores)
        if result.reason:
            self._tell(one.trial, one.lock, reason=result.told, steps=one.steps)
        elif not self.told(one):
            if len(one.scores) == done:
                self._tell(
                    one.trial, one.lock, reason=f"{one.folder}: interrupted", steps=one.steps
                )
            else:
                self.ready.append(one)

    def told(self, one: UnderWay) -> bool:
        """Read the scores of a trial's finished seeds; tell the study where it is over."""
        ended = self.study.trials()[one.trial.number].user_attrs.get(PRUNED)
        if ended is not None:
            self._tell(one.trial, one.lock, pruned=True, steps=ended)
            return True
        while len(one.scores) < len(self.seeds):
            folder = one.folder / f"seed-{self.seeds[len(one.scores)]}"
            if not (folder / CONFIG).exists() or read_settings(folder).summary is None:
                return False
            one.scores.append(read_run(folder).score(self.metric))
        self._tell(one.trial, one.lock, sum(one.scores) / len(one.scores), steps=one.steps)
        return True

    def _tell(
        self,
        trial: Any,
        lock: ExitStack,
        score: float = math.nan,
        *,
        steps: int,
        pruned: bool = False,
        reason: str = "",
    ) -> None:
        """Tell the study how a trial ended, and let go of it."""
        states = import_optuna().trial.TrialState
        trial.set_user_attr(STEPS, steps)
        if pruned:
            self.study.study.tell(trial, state=states.PRUNED)
        elif math.isfinite(score):
            self.study.study.tell(trial, score)
        else:
            reason = reason or f"trial {trial.number} has no {self.metric}"
            trial.set_user_attr(REASON, reason)
            self.study.study.tell(trial, state=states.FAIL)
            self.heard(reason)
        self.over += 1
        lock.close()


def lock_of(folder: Path) -> ExitStack:
    """Make and lock a trial's folder; UsageError where a process works on it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = ExitStack()
    lock.enter_context(locked(folder))
    return lock


def await_run(folder: Path) -> None:
    """Wait until no run of a trial goes on: one whose search was killed notices it, and saves."""
    for path in folder.glob("*/"):
        while True:
            try:
                with locked(path):
                    break
            except UsageError:
                time.sleep(WAIT)


def trial_folder(folder: Path, number: int) -> Path:
    """Return the folder of a trial's runs in that of its search."""
    return folder / "trials" / f"{number:04}"
