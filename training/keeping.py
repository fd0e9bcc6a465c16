"""Checkpoints of a run under way: when they are written, which are kept, which one is taken."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core import UsageError, forms
from seqrl.training import checkpoint
from seqrl.training import folder as runs
from seqrl.training.evaluation import Evaluator
from seqrl.training.interaction import Interaction
from seqrl.training.tensorboard import TensorBoard, flatten

LOG = logging.getLogger("seqrl")
SCHEMA = 2
KEPT = 3  # checkpoints, besides the best
SHARE = 0.01  # of a run's time that saves may take where nobody asked for an interval
FIRST_COST = 0.01  # seconds, until one has been measured
PARTS = 100  # a run is saved so many times, as far as that share allows


class Keeper:
    """A callback that saves the whole run; the newest three checkpoints are kept.

    `every` counts env steps; without one the run is saved up to a hundred times, but no more often
    than takes 1 % of its time. Call it after the other callbacks.
    """

    def __init__(
        self,
        folder: Path,
        logger: TensorBoard,
        config: dict[str, Any],
        *,
        every: int | None = None,
    ):
        self.folder, self.logger = folder, logger
        self.config = runs.as_stored(config)
        self.frugal = every is None
        self.every = every or max(1, config["steps"] // PARTS)
        self._began, self._spent, self._cost = time.perf_counter(), 0.0, FIRST_COST
        self._failing = False

    def __call__(self, loop: Interaction) -> None:
        """Save, unless that would take too much of the run's time; a full disk ends nothing."""
        passed = time.perf_counter() - self._began
        if self.frugal and self._spent + self._cost > SHARE * passed:
            return
        try:
            self.save(loop)
            self._failing = False
        except OSError as error:
            if not self._failing:
                LOG.warning("seqrl: no checkpoint could be written: %s; going on", error.strerror)
            self._failing = True

    def save(self, loop: Interaction) -> None:
        """Write a checkpoint, and remove the oldest ones."""
        before = time.perf_counter()
        checkpoint.save(runs.checkpoint_path(self.folder, loop.steps), self._state(loop))
        for path in runs.checkpoints(self.folder)[KEPT:]:
            path.unlink()
        self._cost = time.perf_counter() - before
        self._spent += self._cost

    def save_best(self, loop: Interaction) -> None:
        """Write the run as the best one so far."""
        checkpoint.save(runs.best_path(self.folder), self._state(loop))

    def _state(self, loop: Interaction) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "config": self.config,
            "versions": runs.versions(),
            "seconds": loop.watch.seconds,
            "log": self.logger.state_dict(),
            "random": global_random_state(),
            "loop": loop.state_dict(),
        }

    def restore(self, loop: Interaction, saved: dict[str, Any]) -> None:
        """Put the loop, its log and all random numbers where a checkpoint was written."""
        forms.check("checkpoint", saved, FORM)
        if saved["versions"] != runs.versions():
            LOG.warning(
                "seqrl: the checkpoint was written with other versions: %s; "
                "from here on the bits may differ",
                differences(runs.versions(), saved["versions"]),
            )
        loop.load_state_dict(saved["loop"])
        if saved["loop"]["envs"] is None:
            LOG.warning(
                "seqrl: the state of these environments cannot be kept: they begin new episodes"
            )
        with forms.taking("random"):
            set_global_random_state(saved["random"])
        loop.watch.add(saved["seconds"])
        if saved["log"] is not None:
            with forms.taking("log"):
                self.logger.resume(saved["log"], loop.steps)
        for path in runs.checkpoints(self.folder):
            if path > runs.checkpoint_path(self.folder, loop.steps):  # damaged, or of no use
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """Nothing that a run depends on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class Best:
    """A callback that looks at each evaluation: keeps the best agent, and ends the run in time.

    `stop_at`: a mean return that is enough. `patience`: evaluations without a better one before
    the run is given up. Call it right after the evaluator.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        keep: Callable[[Interaction], None],
        *,
        stop_at: float | None = None,
        patience: int | None = None,
    ):
        self.every, self.evaluator, self.keep = evaluator.every, evaluator, keep
        self.stop_at, self.patience = stop_at, patience
        self.mean, self.waited = -np.inf, 0
        self.ended = ""  # why the run ended early

    def __call__(self, loop: Interaction) -> None:
        """Keep the agent if it is the best one, and end the run if that is good enough."""
        assert self.evaluator.last is not None
        mean = self.evaluator.last[1].mean
        self.waited += 1
        if mean > self.mean:
            self.mean, self.waited = mean, 0
            self.keep(loop)
        if self.stop_at is not None and mean >= self.stop_at:
            self.ended = f"evaluation {mean:.6g} reached {self.stop_at:g}"
        elif self.patience is not None and self.waited >= self.patience:
            self.ended = f"no better evaluation than {self.mean:.6g} in {self.waited}"
        loop.stopped = loop.stopped or bool(self.ended)

    def state_dict(self) -> dict[str, Any]:
        """The best mean so far and how long ago it was."""
        return {"mean": float(self.mean), "waited": self.waited, "ended": self.ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.mean, self.waited, self.ended = state["mean"], state["waited"], state["ended"]


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run that is whole; None if nothing was saved.

    Those that are damaged are named on the way; if all are, that is an error.
    """
    problems: list[UsageError] = []
    for path in runs.checkpoints(folder):
        try:
            saved = read(path)
        except UsageError as error:
            problems.append(error)
            continue
        for problem in problems:
            LOG.warning("seqrl: %s: %s is taken", problem, path.name)
        return saved
    if problems:
        raise problems[0]
    return None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint in today's schema."""
    return migrated(checkpoint.load(path), path)


def migrated(saved: Any, path: Path) -> dict[str, Any]:
    """What was read from `path`, whatever version of ours wrote it."""
    if not isinstance(saved, dict):
        raise UsageError(f"checkpoint {path}: it holds no run")
    schema = saved.get("schema", 1)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UsageError(
            f"checkpoint {path}: its schema is {schema}, this version reads up to {SCHEMA}; "
            "install a newer seqrl"
        )
    for step in range(schema, SCHEMA):
        saved = MIGRATIONS[step](saved)
    if not isinstance(saved.get("loop"), dict):
        raise UsageError(f"checkpoint {path}: it holds no run")
    return saved


def from_1(saved: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 was the state of the loop alone: nothing is known of log, config and versions."""
    return {
        "schema": 2,
        "config": None,
        "versions": runs.versions(),
        "seconds": 0.0,
        "log": None,
        "random": {},
        "loop": {**saved, "owed": [], "metrics": {}, "callbacks": None},
    }


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: from_1}


def named(name: str, saved: Any) -> None:
    """The form of a dict with text for keys."""
    if not (isinstance(saved, dict) and all(isinstance(key, str) for key in saved)):
        forms.refuse(name, saved, "named entries")


FORM = {
    "schema": 0,
    "seconds": 0.0,
    **dict.fromkeys(("config", "log"), forms.maybe(named)),
    **dict.fromkeys(("versions", "random", "loop"), named),
}


def check_same_config(now: dict[str, Any], saved: dict[str, Any] | None) -> None:
    """Refuse to go on with other settings than those that made the checkpoint."""
    if saved is not None and saved != now:
        raise UsageError(
            f"config.toml is not what the checkpoint was made with: {differences(now, saved)}; "
            "put it back, or begin a new run"
        )


def differences(now: dict[str, Any], then: dict[str, Any]) -> str:
    """What differs, by name."""
    now, then = dict(flatten(now)), dict(flatten(then))
    names = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    return ", ".join(f"{name} {now.get(name)} (then {then.get(name)})" for name in names)


def global_random_state() -> dict[str, Any]:
    """Of generators that nobody owns and somebody's network or environment may draw from."""
    kind, *words = np.random.get_state(legacy=True)
    states: dict[str, Any] = {"numpy": [kind, *words]}
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state()
        states["cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return states


def set_global_random_state(states: dict[str, Any]) -> None:
    """The inverse of `global_random_state`."""
    if "numpy" in states:
        np.random.set_state(tuple(states["numpy"]))
    if "torch" in states:
        import torch

        torch.set_rng_state(torch.from_numpy(states["torch"]))
        for i, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(torch.from_numpy(state), i)
