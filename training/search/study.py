"""The study of a search, kept by Optuna: opened, shared by processes, its trials asked for."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core.errors import UsageError, explain
from seqrl.training.runs.saved_run import differences
from seqrl.training.search.space import Range, Values

SAMPLERS, PRUNERS = ("tpe", "random"), ("hyperband", "median", "none")
PARAMETERS = "parameters"  # attribute of a study: what all its trials have in common
BEGINNING = 10.0  # seconds from the making of a study to its parameters, at most
RUNGS = 16  # the first decision of a pruner is after this part of a trial
KEPT = 3  # one in so many goes on at a rung of Hyperband


def import_optuna() -> Any:
    """Return the package, quiet; UsageError with the command that installs it."""
    try:
        import optuna
    except ImportError as error:
        raise UsageError('a search takes Optuna: pip install "seqrl[search]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_storage(where: str) -> Any:
    """Return Optuna's storage at a URL, or in a journal at a path."""
    optuna = import_optuna()
    if "://" in where:
        return optuna.storages.get_storage(where)
    backend = optuna.storages.journal.JournalFileBackend(where)
    return optuna.storages.JournalStorage(backend)


def make_pruner(name: str, resource: int) -> Any:
    """Return what decides which trials end early, those of `resource` env steps at most."""
    pruners, first = import_optuna().pruners, max(1, resource // RUNGS)
    if name == "hyperband":
        return pruners.HyperbandPruner(first, resource, reduction_factor=KEPT)
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=first)
    return pruners.NopPruner()


class Study:
    """A study of Optuna's whose trials are shared by all processes that open it.

    `where` is a URL or the path of a journal. `parameters` are the same in all processes;
    UsageError where the study has others. What trial N draws follows from `seed`, N and the scores
    that there are.
    """

    def __init__(
        self,
        where: str,
        name: str,
        parameters: Mapping[str, Any],
        space: Mapping[str, Range],
        *,
        sampler: str = "tpe",
        seed: int = 0,
    ):
        import_optuna()
        self.where = where if "://" in where else str(Path(where).absolute())
        self.name, self.space, self.sampler, self.seed = name, dict(space), sampler, seed
        try:
            self.storage = open_storage(self.where)
            self.study, stored = begun(self.storage, name, parameters)
        except Exception as error:  # of whatever database it is
            raise UsageError(f"--study {where}: {explain(error)}") from error
        if found := differences(dict(parameters), stored):
            other = f"--study {where} was begun with other settings: {found}"
            raise UsageError(f"{other}; name another --study, or another --out")

    def trials(self, *states: str) -> list[Any]:
        """Return the trials, by number; `states`: those in one of them."""
        wanted = [import_optuna().trial.TrialState[state] for state in states]
        return self.study.get_trials(deepcopy=False, states=wanted or None)

    def again(self, number: int) -> Any:
        """Return the trial of a number, which a process has begun that is gone."""
        of = self.storage.get_study_id_from_name(self.name)
        known = self.storage.get_trial_id_from_study_id_trial_number(of, number)
        return import_optuna().trial.Trial(self.study, known)

    def draw(self, trial: Any) -> Values:
        """Return the values of a trial, drawn where it has none by a sampler of its own.

        Samplers of one seed in two processes would draw the same.
        """
        samplers = import_optuna().samplers
        make = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler}[self.sampler]
        entropy = np.random.SeedSequence([self.seed, trial.number])
        self.study.sampler = make(seed=int(entropy.generate_state(1)[0]))
        return {name: each.draw(name, trial) for name, each in self.space.items()}

    def values_of(self, trial: Any) -> Values:
        """Return the values of a trial that is over."""
        fixed = import_optuna().trial.FixedTrial(trial.params)
        return {name: each.draw(name, fixed) for name, each in self.space.items()}

    def best(self, most: int) -> list[tuple[Any, Values]]:
        """Return the trials of the highest scores, no two of the same values."""
        found: dict[tuple[str, ...], tuple[Any, Values]] = {}
        for trial in sorted(self.trials("COMPLETE"), key=lambda trial: -trial.value):
            values = self.values_of(trial)
            found.setdefault(tuple(values.values()), (trial, values))
        return [*found.values()][:most]


def begun(storage: Any, name: str, parameters: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the study of a name and its parameters, these where there is none yet.

    Of several processes that begin it at once the storage lets one make it, whose parameters count;
    the others wait for them, unless that one has died meanwhile.
    """
    optuna = import_optuna()
    own = {"study_name": name, "storage": storage}
    try:
        study, until = optuna.create_study(**own, direction="maximize"), 0.0
    except optuna.exceptions.DuplicatedStudyError:
        study, until = optuna.load_study(**own), time.monotonic() + BEGINNING
    while (stored := study.user_attrs.get(PARAMETERS)) is None:
        if time.monotonic() >= until:
            study.set_user_attr(PARAMETERS, dict(parameters))
        else:
            time.sleep(0.05)
    return study, stored


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Let one process after the other do what is inside, of those that share the file."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
