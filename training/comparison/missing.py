"""The runs that a comparison wants: those that are there already, and the others, executed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from seqrl.core.errors import UsageError
from seqrl.training.comparison.recorded import Run, read_run
from seqrl.training.engines.executor import Executor, Job, Result, finished_folder
from seqrl.training.runs.folder import new_folder, plain_name


class Planned(NamedTuple):
    """A run that is wanted."""

    name: str  # of the algorithm: its agent and its values of each --grid
    folder_name: str  # the agent's part of its folder
    config: dict[str, Any]


def seeded(planned: Sequence[Planned], seeds: Iterable[int]) -> list[Planned]:
    """Return these runs with each of the seeds, seed by seed; no two may share a folder."""
    if len({(one.config["env"], plain_name(one.folder_name)) for one in planned}) < len(planned):
        raise UsageError("--grid: two of its values give the same folder name")
    return [one._replace(config={**one.config, "seed": s}) for s in seeds for one in planned]


def find_finished(planned: Sequence[Planned], logdir: str) -> list[Path | None]:
    """Return the folder of each run that is there, finished and of the same config; else None."""
    return [finished_folder(logdir, (run.name, run.folder_name), run.config) for run in planned]


def run_missing(
    planned: Sequence[Planned], finished: Sequence[Path | None], logdir: str, executor: Executor
) -> tuple[list[Run], list[Result]]:
    """Execute the runs that are not `finished`; return all runs, and those that failed."""
    missing = [run for run, folder in zip(planned, finished, strict=True) if folder is None]
    new: list[Path] = []
    with closing(executor.map(placed(missing, logdir, new))) as results:
        failures = [result for result in results if result.reason]
    rest = iter(new)
    folders = [next(rest) if folder is None else folder for folder in finished]
    runs = [read_run(f, run.config) for f, run in zip(folders, planned, strict=True)]
    return runs, failures


def placed(planned: Sequence[Planned], logdir: str, folders: list[Path]) -> Iterator[Job]:
    """Yield the job of each run, in a new folder that is made now and added to `folders`."""
    for name, folder_name, config in planned:
        folders.append(new_folder(logdir, config["env"], folder_name, config["seed"]))
        yield Job(config, folders[-1], name)
