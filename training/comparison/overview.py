"""What runs there are in a folder, and how they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqrl.training.comparison.recorded import Run, find_runs, labels, read_settings
from seqrl.training.runs.executor import steps_done
from seqrl.training.runs.folder import plain_name


class Row(NamedTuple):
    """A run: the agent's part of its folder, with the settings in which runs of one part differ."""

    name: str
    folder: Path
    score: float | None  # of the greedy episodes; without them of the last 100 in training
    steps: int  # env steps
    state: str


def overview(home: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yield each environment with a row a run; UsageError for a folder without runs."""
    runs = [read_settings(folder) for folder in find_runs([str(home)])]
    for env in sorted({run.config["env"] for run in runs}):
        yield env, sorted(rows([run for run in runs if run.config["env"] == env]))


def rows(runs: Sequence[Run]) -> Iterator[Row]:
    """Yield the rows of the runs of one environment."""
    parts = dict[str, list[Run]]()
    for run in runs:
        agent, env = (plain_name(run.config[name]) for name in ("agent", "env"))
        above = run.folder.absolute().parents
        parts.setdefault(above[0].name if above[1].name == env else agent, []).append(run)
    for part, group in parts.items():
        for name, run in zip(labels(group), group, strict=True):
            own = part + name.removeprefix(run.config["agent"])
            yield Row(own, run.folder, *standing(run.folder, run.config, run.summary))


def standing(
    folder: Path, config: dict[str, Any], summary: dict[str, Any] | None
) -> tuple[float | None, int, str]:
    """Return a run's score, its env steps, and whether it is finished and evaluated."""
    if summary is None:
        return None, steps_done(folder), f"not finished, of {config['steps']:,}"
    score = summary.get("eval_mean_reward")
    if score is not None:
        return score, summary["steps"], "finished"
    return summary.get("ep_rew_mean"), summary["steps"], "finished, not evaluated"
