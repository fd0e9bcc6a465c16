"""The callback of a trial's run: tells the study its evaluations, and ends it where that is due."""

from __future__ import annotations

import json
import math
import os
from typing import Any, NamedTuple

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.training.runs.run_one import RunUnderWay
from seqrl.training.search.study import RUNGS, import_optuna, make_pruner, open_storage

CALLS = 200  # a run: how soon it notices that nobody waits for it any more
PRUNED = "pruned"  # attribute of a trial: the env steps of all its seeds after which it was ended


class Report(NamedTuple):
    """What the run of a trial has to know, to be handed over as a text."""

    storage: str
    study: str
    trial: int  # its number
    pruner: str
    metric: str
    seeds: int  # runs of the trial, one after the other
    scores: list[float]  # of the runs before this one

    @property
    def text(self) -> str:
        """Return it as the text of a flag."""
        return json.dumps(self._asdict())


def read_report(text: str) -> Report:
    """Return what `Report.text` gave."""
    try:
        return Report(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise UsageError(f"--search-trial {text!r}: {error}; `seqrl search` sets it") from error


class Reporter:
    """A callback that reports a run to its trial and stops it, saved, where the pruner says so.

    What is reported is the mean of the scores of the trial's runs before and of the newest
    evaluation, or training mean, of this one; env steps are counted over all of them. A run whose
    parent process is gone is stopped too: nobody would hear of it.
    """

    def __init__(self, one: RunUnderWay, told: Report):
        optuna = import_optuna()
        self.one, self.told, self.steps = one, told, one.config["steps"]
        self.every = max(1, self.steps // CALLS)
        spacing = one.config.get("eval_every")
        self.spacing = spacing if isinstance(spacing, int) and spacing else self.steps // RUNGS or 1
        pruner = make_pruner(told.pruner, told.seeds * self.steps)
        options = {"sampler": optuna.samplers.RandomSampler(), "pruner": pruner}
        try:
            storage = open_storage(told.storage)
            study = optuna.load_study(study_name=told.study, storage=storage, **options)
        except Exception as error:  # of whatever database it is
            remedy = "machines without a common folder share a database: --study URL"
            raise UsageError(f"the study {told.storage} is not here: {remedy}") from error
        of = storage.get_study_id_from_name(told.study)
        number = storage.get_trial_id_from_study_id_trial_number(of, told.trial)
        self.trial = optuna.trial.Trial(study, number)
        self.before = len(told.scores) * self.steps  # env steps of the runs before
        known = storage.get_trial(number).intermediate_values
        self.reported = max(known, default=0) - self.before
        self.parent = os.getppid()

    def __call__(self, loop: Any) -> None:
        """Report what is new."""
        if os.getppid() != self.parent:
            self.one.interrupt()
            return
        step, value = self._newest(loop)
        tick = step // self.spacing * self.spacing
        if not self.reported < tick < self.steps or math.isnan(value):
            return
        self.reported = tick
        at = self.before + tick
        self.trial.report(float(np.mean([*self.told.scores, value])), at)
        if self.trial.should_prune():
            self.trial.set_user_attr(PRUNED, at)
            self.one.interrupt()

    def _newest(self, loop: Any) -> tuple[int, float]:
        """Return env step and mean return of the newest evaluation, or of training."""
        if self.told.metric != "eval_mean_reward":
            return loop.steps, loop.books.ep_rew_mean
        last = self.one.evaluator and self.one.evaluator.last
        return (last[0], last[1].mean) if last else (0, math.nan)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the study keeps what was reported."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what the study keeps."""
