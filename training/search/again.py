"""The best settings of a search, run again over seeds that no trial had: their score counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from seqrl.core.checks import check_whole
from seqrl.core.errors import RunError
from seqrl.training.comparison.compare import Table, compare
from seqrl.training.comparison.files import make_folder, write
from seqrl.training.comparison.missing import Planned, find_finished, run_missing, seeded
from seqrl.training.comparison.recorded import Run
from seqrl.training.comparison.scale import score_scales
from seqrl.training.engines.executor import Executor
from seqrl.training.search.files import write_best
from seqrl.training.search.search import Search
from seqrl.training.statistics import Estimate


class Winner(NamedTuple):
    """The settings that were best over fresh seeds."""

    planned: Planned  # their name and config
    score: Estimate  # mean over these seeds, with its interval
    table: Table  # of all that were run again


def best_again(search: Search, best: int = 3, seeds: int = 5) -> list[Planned]:
    """Return the runs of the best trials' settings over seeds that no trial had, seed by seed."""
    check_whole("best", best)
    check_whole("seeds", seeds)
    found = search.study.best(best)
    if not found:
        raise RunError("no trial has a score, so there is nothing to run again")
    first = search.seeds[-1] + 1
    return seeded([search.plan(values) for _, values in found], range(first, first + seeds))


def judged(search: Search, planned: Sequence[Planned], found: Sequence[Run]) -> Winner:
    """Compare the runs of `best_again`, write that into `best` and the winner into best.toml."""
    folder = make_folder(search.folder / "best")
    scales = score_scales([run.config for run in found], trusted=True)
    table = compare(found, search.metric, scales=scales)
    search.heard(write(table, folder))
    row = max(table.rows, key=lambda row: float(row.score["mean"].value))
    which = [run.folder for run in found].index(row.group.runs[0].folder)
    write_best(planned[which].config, search.folder / "best.toml")
    return Winner(planned[which], row.score["mean"], table)


def run_best(
    search: Search, executor: Executor, *, best: int = 3, seeds: int = 5, logdir: str = "runs"
) -> Winner:
    """Run the best settings again, in folders below `logdir`, and return the winner.

    Runs that are there already are not repeated; one that fails is told, and its score missing.
    """
    planned = best_again(search, best, seeds)
    found, failures = run_missing(planned, find_finished(planned, logdir), logdir, executor)
    for failure in failures:
        search.heard(failure.told)
    return judged(search, planned, found)
