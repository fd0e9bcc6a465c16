"""Recorded runs: their settings, scores and learning curves, read from their folders."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.training.runs.event_file import read_scalar
from seqrl.training.runs.folder import CONFIG, read_config, read_summary, run_label
from seqrl.training.runs.hparams import UNCOMPARED, flatten
from seqrl.training.statistics import Floats, area_under_curve, steps_to_threshold

METRICS = {
    "eval_mean_reward": "mean return of the greedy episodes after training",
    "ep_rew_mean": "mean return of the last 100 training episodes",
    "area": "mean height of the learning curve",
}
WINDOW = 100  # episodes in a point of the curve, as in rollout/ep_rew_mean
# the same for all runs compared
TASK_KEYS = ("env", "env_args", "eval_env_args", "wrappers", "max_episode_steps")


class Run(NamedTuple):
    """One run; its curve is the mean return of the last 100 episodes at each episode's end.

    Of an `evaluated` one it is the mean return of each greedy evaluation.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any] | None  # None: not finished
    steps: Floats  # [P] env steps, ascending
    values: Floats  # [P], NaN where a return in the mean is not finite
    evaluated: bool = False

    @property
    def end(self) -> int:
        """The env step at which it ended, -1 if it is not finished."""
        return -1 if self.summary is None else self.summary["steps"]

    @property
    def task(self) -> dict[str, Any]:
        """The settings of the task, without those that are empty."""
        return {name: self.config[name] for name in TASK_KEYS if self.config.get(name)}

    def score(self, metric: str) -> float:
        """Return the score by a name in METRICS; NaN where it is not known."""
        if self.summary is None:
            return math.nan
        if metric == "area":
            return area_under_curve(self.steps, self.values, end=self.end)
        score = self.summary.get(metric)
        return math.nan if score is None else float(score)

    def steps_to(self, threshold: float) -> float:
        """Return the env step from which the curve is at least that; else NaN.

        A mean of fewer than 100 episodes, as the curve begins with, may be that of a lucky first
        episode.
        """
        full = slice(0 if self.evaluated else WINDOW - 1, None)
        return steps_to_threshold(self.steps[full], self.values[full], threshold)


def find_runs(patterns: Iterable[str]) -> list[Path]:
    """Return the run folders that match glob patterns, or lie inside folders that match."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = [pattern] if Path(pattern).is_dir() else sorted(glob(pattern, recursive=True))
        inside = [file.parent for match in matches for file in sorted(Path(match).rglob(CONFIG))]
        if not inside:
            raise UsageError(f"--runs {pattern}: no run folder there, one that holds {CONFIG}")
        found |= dict.fromkeys(inside)
    return list(found)


def read_runs(patterns: Iterable[str]) -> tuple[list[Run], list[Path]]:
    """Return the runs that glob patterns name, and the folders of many seeds, which are left out.

    These hold training curves alone: no run of theirs was evaluated. UsageError where no run is
    left.
    """
    folders = find_runs(patterns)
    many = [folder for folder in folders if read_settings(folder).config.get("seeds")]
    runs = [read_run(folder) for folder in folders if folder not in many]
    if not runs:
        remedy = "compare runs of a seed each, as `seqrl compare --agents` makes them"
        raise UsageError(f"{many[0]} holds the curves of many seeds, no run to compare: {remedy}")
    return runs, many


def read_run(folder: Path, config: dict[str, Any] | None = None) -> Run:
    """Read a run from its folder; `config` stands in where the folder has none."""
    run = read_settings(folder, config)
    if run.summary is None:
        return run
    steps, values = read_curve(folder / "episodes.csv")
    return run._replace(steps=steps, values=values)


def read_settings(folder: Path, config: dict[str, Any] | None = None) -> Run:
    """Read a run's settings and summary, without its curve."""
    if config is None or (folder / CONFIG).exists():
        config = read_config(folder)
    which = "seeds" if config.get("seeds") else "seed"
    missing = sorted({"agent", "env", which, "steps"} - config.keys())
    if missing:
        raise UsageError(f"{folder / CONFIG}: no {', '.join(missing)} in it, so it is no run's")
    kinds = {"agent": str, "env": str, which: int, "steps": int}
    for name, kind in kinds.items():
        if not isinstance(config[name], kind):
            raise UsageError(f"{folder / CONFIG}: {name} is {config[name]!r}, which is no run's")
    return Run(folder, config, read_summary(folder, config), np.empty(0), np.empty(0))


def own_returns(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with curves of what their agents earn by themselves.

    Where a teacher has driven one, the returns of its training are the teacher's: all runs in that
    environment get the curves of their greedy evaluations, so that these can be compared.
    """
    taught = {run.config["env"] for run in runs if run.summary and was_driven(run.folder)}
    return [evaluated(run) if run.config["env"] in taught else run for run in runs]


def was_driven(folder: Path) -> bool:
    """Return whether a teacher, or recorded episodes, had a part in a run's training returns."""
    return len(read_scalar(folder, "teacher/ep_rew_mean")[0]) > 0


def evaluated(run: Run) -> Run:
    """Return the run with the curve of its greedy evaluations."""
    steps, values = read_evaluations(run.folder)
    return run._replace(steps=steps, values=values, evaluated=True)


def read_evaluations(folder: Path) -> tuple[Floats, Floats]:
    """Return env steps [P] and mean returns [P] of a run's greedy evaluations."""
    steps, values = read_scalar(folder, "eval/mean_reward")
    return steps, np.where(np.isfinite(values), values, np.nan)


def read_curve(path: Path) -> tuple[Floats, Floats]:
    """Return env steps [P] and mean returns of the last 100 episodes [P] of an episodes.csv."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            lines = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2, usecols=(0, 1))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not what a run writes: {error}") from error
    steps, returns = lines[:, 0], lines[:, 1]
    return steps, running_mean(np.where(np.isfinite(returns), returns, np.nan), WINDOW)


def running_mean(values: Floats, window: int) -> Floats:
    """Return the mean of the last `window` values at each one, of fewer at the beginning."""
    first = np.cumsum(values[: window - 1]) / np.arange(1, len(values[: window - 1]) + 1)
    if len(values) < window:
        return first
    return np.append(first, np.lib.stride_tricks.sliding_window_view(values, window).mean(-1))


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run's algorithm: its agent, and the settings in which its runs differ.

    Runs of the same name differ only in seed, task and length: within a task they may be averaged.
    """
    agents = [run.config["agent"] for run in runs]
    settings = begun_shortly([own_settings(run.config) for run in runs])
    each: dict[str, list[dict[str, Any]]] = {}
    for agent, own in zip(agents, settings, strict=True):
        each.setdefault(agent, []).append(own)
    telling = {agent: differing(owns) for agent, owns in each.items()}
    return [
        ",".join([agent, *(f"{short(k)}={v}" for k, v in own.items() if k in telling[agent])])
        for agent, own in zip(agents, settings, strict=True)
    ]


def differing(settings: Sequence[dict[str, Any]]) -> set[str]:
    """Return the names of the settings in which an agent's runs differ.

    Where the runs that they begin from tell them apart it is that alone: a preset comes with it.
    """
    kinds = {frozenset(own.items()) for own in settings}
    if len({own.get("from") for own in settings}) == len(kinds) > 1:
        return {"from"}
    first = settings[0].items()
    return {name for own in settings for name, _ in own.items() ^ first}


def begun_shortly(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return settings with short names of the runs that others begin from, where these differ."""
    places = {own["from"] for own in settings if "from" in own}
    names = {place: run_label(Path(place)) for place in places}
    if len({*names.values()}) < len(places):
        return settings
    return [{**own, "from": names[own["from"]]} if "from" in own else own for own in settings]


def short(name: str) -> str:
    """Return a setting's name as a run's folder has it: attention of network_args.attention."""
    return name.removeprefix("network_args.")


def own_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the algorithm: without seed, task and length."""
    others = {"agent", "seed", *TASK_KEYS, *UNCOMPARED}
    return dict(flatten({key: value for key, value in config.items() if key not in others}))


def varying(runs: Sequence[Run]) -> list[str]:
    """Return the names of the settings, "agent" among them, in which runs differ that have them.

    What only one agent has, and always the same, tells nothing.
    """
    settings = [{"agent": run.config["agent"], **own_settings(run.config)} for run in runs]
    known = {own["agent"]: set[str]() for own in settings}
    for own in settings:
        known[own["agent"]] |= own.keys()
    found: dict[str, set[Any]] = {}
    for own in settings:
        for name in known[own["agent"]]:
            found.setdefault(name, set()).add(own.get(name))
    return sorted(name for name, values in found.items() if len(values) > 1)
