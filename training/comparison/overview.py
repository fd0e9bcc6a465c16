"""What runs there are in a folder, and how they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from seqrl.core.errors import UsageError
from seqrl.training.comparison.recorded import Run, find_runs, labels, read_settings
from seqrl.training.engines.executor import steps_done
from seqrl.training.runs.folder import checkpoints, plain_name


class Row(NamedTuple):
    """A run: the agent's part of its folder, with the settings in which runs of one part differ."""

    name: str
    folder: Path
    score: float | None  # of the greedy episodes; without them of the last 100 in training
    steps: int  # env steps
    state: str


def overview(home: Path) -> tuple[dict[str, list[Row]], list[str]]:
    """Return a row a run by environment, and what is wrong with runs that cannot be read.

    UsageError for a folder without runs.
    """
    runs, damaged = list[Run](), list[str]()
    for folder in find_runs([str(home)]):
        try:
            runs.append(read_settings(folder))
        except UsageError as error:
            damaged.append(str(error))
    envs = sorted({run.config["env"] for run in runs})
    return {e: sorted(rows([r for r in runs if r.config["env"] == e])) for e in envs}, damaged


def rows(runs: Sequence[Run]) -> Iterator[Row]:
    """Yield the rows of the runs of one environment."""
    parts = dict[str, list[Run]]()
    for run in runs:
        above = run.folder.absolute().parents
        if above[1].name == plain_name(run.config["env"]):
            parts.setdefault(above[0].name, []).append(run)
        else:  # a folder of the user's own name, which tells it from others
            yield Row(run.config["agent"], run.folder, *standing(run))
    for part, group in parts.items():
        for name, run in zip(labels(group), group, strict=True):
            own = part + name.removeprefix(run.config["agent"])
            yield Row(own, run.folder, *standing(run))


def standing(run: Run) -> tuple[float | None, int, str]:
    """Return a run's score, its env steps, and whether it is finished and evaluated."""
    folder, config, summary, *_ = run
    if summary is None:
        return None, steps_kept(folder), f"not finished, of {config['steps']:,}"
    score = summary.get("eval_mean_reward")
    if score is not None:
        return score, summary["steps"], "finished"
    return summary.get("ep_rew_mean"), summary["steps"], "finished, not evaluated"


def steps_kept(folder: Path) -> int:
    """Return the env steps of a run under way: of its checkpoint, or its last episode's end."""
    kept = (int(path.stem.rpartition("-")[2]) for path in checkpoints(folder))
    return max(steps_done(folder), next(kept, 0))
