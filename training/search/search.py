"""A search under way: trials asked for as workers are free, executed as runs, and told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any, NamedTuple

from seqrl.core.checks import check_choice, check_whole
from seqrl.core.errors import UsageError
from seqrl.training.comparison.missing import Planned
from seqrl.training.comparison.recorded import METRICS, read_run, read_settings
from seqrl.training.engines.executor import Executor, Job, Result
from seqrl.training.runs.folder import CONFIG, as_stored
from seqrl.training.search.folders import busy_run, lock_of, search_folder, trial_folder
from seqrl.training.search.pruning import PRUNED, Report
from seqrl.training.search.settings import checked, looks, planned_of
from seqrl.training.search.space import Range, Values, read_range
from seqrl.training.search.study import PRUNERS, SAMPLERS, Study, import_optuna, in_turn

# attributes of a trial: why it failed, the env steps it took, where its runs are
REASON, STEPS, PLACE = "reason", "steps", "place"
WAIT = 0.5  # seconds between two looks at a run whose search is gone
TOLD, PATIENCE = 5.0, 120.0  # seconds after which a wait for it is told, and given up


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
    """A search of settings in a folder: trials up to a number, each the mean score of its seeds.

    The seeds of a trial, from `seed` on, run one after the other, so that a pruner ends it after a
    part of the first; several trials run at once. Trials that a process has left behind, killed or
    interrupted, go on from what they saved. Other processes may share the folder, or the study.

    Args:
        config: what all runs have in common, as `run` takes it.
        space: what is searched, ranges by the names of settings, as in "log:1e-4:3e-2".
        folder: new, empty, or that of the same search.
        trials: how many there are to be in all.
        seeds_per_trial: runs of a trial.
        seed: of the draws, and the first of each trial's runs.
        metric: what is searched for, one that a comparison knows.
        sampler: what draws the settings, tpe or random.
        pruner: what ends trials early, hyperband, median or none.
        study: path of the trials' journal, or URL of a database; study.log in the folder if None.
        plan: gives the run of a trial's values, with UsageError where there is none.
        looked: settings of the trials alone, for the pruner; where nobody chose them if None.
        heard: is told what failed, and what is waited for.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        space: Mapping[str, str | Range],
        folder: str | Path,
        *,
        trials: int = 50,
        seeds_per_trial: int = 1,
        seed: int = 0,
        metric: str = "eval_mean_reward",
        sampler: str = "tpe",
        pruner: str = "hyperband",
        study: str | None = None,
        plan: Callable[[Values], Planned] | None = None,
        looked: Mapping[str, int] | None = None,
        heard: Callable[[str], object] = lambda text: None,
    ):
        import_optuna()  # its absence is told before anything is made
        check_whole("trials", trials)
        check_whole("seeds_per_trial", seeds_per_trial)
        check_whole("seed", seed, 0)
        if not space:
            raise UsageError('space {}: expected ranges, as in {"learning_rate": "log:1e-4:1e-2"}')
        check_choice("metric", metric, METRICS)
        check_choice("sampler", sampler, SAMPLERS)
        check_choice("pruner", pruner, PRUNERS)
        self.space = {n: read_range(x) if isinstance(x, str) else x for n, x in space.items()}
        self.plan, chosen = plan or partial(planned_of, config), config
        if plan is None:
            config = checked(self.plan, self.space)
        if looked is None:
            looked = looks(config, chosen, metric, pruner, seeds_per_trial)
        self.looked = looked
        self.seeds = range(seed, seed + seeds_per_trial)
        self.trials, self.metric, self.pruner, self.heard = trials, metric, pruner, heard
        self.folder = search_folder(Path(folder)).absolute()
        where = study or str(self.folder / "study.log")
        shared = "://" in where
        self.turn = self.folder / "turn" if shared else Path(f"{Path(where).absolute()}.turn")
        name = self.folder.name if shared else "search"
        parameters = {**as_stored({**config, **looked}), "seed": seed, "metric": metric}
        parameters |= {"seeds_per_trial": seeds_per_trial}
        parameters["search"] = {name: each.text for name, each in self.space.items()}
        with in_turn(self.turn) if shared else nullcontext():  # databases make tables only once
            self.study = Study(where, name, parameters, self.space, sampler=sampler, seed=seed)
        self.under_way: dict[Path, UnderWay] = {}  # by the folder of the run that goes on
        self.ready: list[UnderWay] = []  # whose next seed waits for a worker
        self.left: set[int] = set()  # trials of others whose runs do not come to an end
        self.exhausted = False
        self.over = 0  # trials that this process has told

    def run(self, executor: Executor) -> bool:
        """Execute what is left of the search; its trials are told to the study as they end.

        Returns whether all are over, those of other processes too.
        """
        try:
            while not self.exhausted or self.ready:
                with closing(executor.map(self.jobs())) as results:
                    for result in results:
                        self.take(result)
        finally:
            for one in [*self.under_way.values(), *self.ready]:
                one.lock.close()
        return not self.study.trials("RUNNING")

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
            elif not self._is_free(one):
                self.left.add(one.trial.number)
                one.lock.close()
            elif not self.told(one):
                return one
        return None

    def _is_free(self, one: UnderWay) -> bool:
        """Wait until no run of a trial goes on; return whether that was soon enough.

        One whose search was killed soon notices it, and saves.
        """
        began, told = time.monotonic(), False
        while busy := busy_run(one.folder):
            waited, name = time.monotonic() - began, f"trial {one.trial.number}"
            if waited >= PATIENCE:
                self.heard(f"{name} is left as it is: {busy}")
                return False
            if waited >= TOLD and not told:
                told = True
                self.heard(f"{name} waits for its run, whose search is gone: {busy}")
            time.sleep(WAIT)
        return True

    def _left_behind(self) -> UnderWay | None:
        """Return a trial whose process is gone, by which its folder is locked no more."""
        for trial in self.study.trials("RUNNING"):
            if trial.number in self.left:
                continue
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
            config = {**self.plan(values).config, **self.looked}
            return UnderWay(trial, config, folder, lock, [])
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
