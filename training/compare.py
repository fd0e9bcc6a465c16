"""Which algorithm is better here, and how sure are we: runs summed up and tested in pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from seqrl.core import UsageError
from seqrl.training.recorded import Run, labels
from seqrl.training.statistics import (
    Comparison,
    Estimate,
    Floats,
    Statistic,
    bootstrap,
    common_grid,
    compare_pairs,
    iqm,
    mean,
    median,
    normalize,
    performance_profile,
    probability_of_improvement,
    resample,
    steps_to_threshold,
)
from seqrl.training.tensorboard import ROWS

FEW = 5  # seeds, under which a warning is given
LEVEL = 0.05
STATISTICS: dict[str, Statistic] = {"mean": mean, "median": median, "iqm": iqm}
Scales = Mapping[str, tuple[float, float] | None]  # env -> scores of the random and best policy


class Group(NamedTuple):
    """An algorithm in an environment."""

    env: str
    name: str
    runs: list[Run]
    scores: Floats  # [R], NaN where a run has none

    @property
    def missing(self) -> list[int]:
        """Seeds of the runs without a score."""
        return [
            run.config["seed"]
            for run, score in zip(self.runs, self.scores, strict=True)
            if math.isnan(score)
        ]


class Row(NamedTuple):
    """What is said of a group; a dict entry a statistic, with its 95 % interval."""

    group: Group
    score: dict[str, Estimate]
    area: Estimate  # mean over the runs
    normalized: Estimate | None  # mean; 0 the random policy, 1 the best
    reached: Floats | None  # [R] env steps to the threshold, NaN where it was not reached


class Pair(NamedTuple):
    """What is said of two groups; None where one lacks a score."""

    first: Group
    second: Group
    comparison: Comparison | None
    improvement: Estimate | None  # the probability that a run of the first beats one of the second


class Pooled(NamedTuple):
    """An algorithm over all environments: normalised scores, each environment a stratum."""

    name: str
    mean: Estimate
    iqm: Estimate


class Table(NamedTuple):
    """A whole comparison."""

    metric: str
    threshold: float | None
    scales: Scales
    rows: list[Row]
    pairs: list[Pair]
    pooled: list[Pooled]
    notes: list[str]

    @property
    def envs(self) -> list[str]:
        """The environments, in order."""
        return list(dict.fromkeys(row.group.env for row in self.rows))

    def within(self, env: str) -> list[Row]:
        """The rows of an environment."""
        return [row for row in self.rows if row.group.env == env]


def compare(
    runs: Sequence[Run],
    metric: str = "eval_mean_reward",
    *,
    threshold: float | None = None,
    scales: Scales | None = None,
) -> Table:
    """Sum up the runs of each algorithm in each environment, and test all pairs together.

    Scores as `Run.score` gives them; `threshold` is a height of the learning curve. Verdicts are
    permutation tests of the difference of means at 5 %, Holm over the pairs of all environments.
    Raises UsageError where no run has a score, or what was played is not the same.
    """
    notes: list[str] = []
    groups = grouped(list(without_repeats(runs, notes)), metric)
    if all(np.isnan(group.scores).all() for group in groups):
        raise UsageError(
            f"no run has a score {metric}: let one finish, and give it --eval-episodes if that is "
            "the metric"
        )
    scales = scales or {}
    rows = [
        summed_up(group, threshold, scales.get(group.env))
        for group in groups
        if not np.isnan(group.scores).all()
    ]
    pairs = tested(groups)
    pooled = pool(groups, scales)
    notes += [*notes_on(groups), *notes_on_tests(groups, pairs), *notes_on_pool(groups, pooled)]
    return Table(metric, threshold, scales, rows, pairs, pooled, notes)


def without_repeats(runs: Sequence[Run], notes: list[str]) -> Iterator[Run]:
    """One run a seed: the longest finished one; the same seed twice is no more evidence."""
    best: dict[tuple[str, str, int], Run] = {}
    for run, name in zip(runs, labels(runs), strict=True):
        key = run.config["env"], name, run.config["seed"]
        other = best.get(key, run)
        best[key] = max(other, run, key=lambda r: r.summary["steps"] if r.summary else -1)
        if other is not run:
            left = run if best[key] is other else other
            notes.append(f"{left.folder} is left out: {best[key].folder} has the same seed")
    yield from best.values()


def grouped(runs: Sequence[Run], metric: str) -> list[Group]:
    """The runs by environment and algorithm, in the order they came."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run, name in zip(runs, labels(runs), strict=True):
        found.setdefault((run.config["env"], name), []).append(run)
    check_games(runs)
    check_crossed(list(found))
    return [
        Group(env, name, members, np.array([run.score(metric) for run in members]))
        for (env, name), members in found.items()
    ]


def check_games(runs: Sequence[Run]) -> None:
    """Refuse runs of the same environment with other options or another limit."""
    first: dict[str, Run] = {}
    for run in runs:
        known = first.setdefault(run.config["env"], run)
        if run.game != known.game:
            names = [
                f"{name} {known.config.get(name)!r} and {run.config.get(name)!r}"
                for name in sorted(run.game.keys() | known.game.keys())
                if run.game.get(name) != known.game.get(name)
            ]
            raise UsageError(
                f"{known.folder} and {run.folder} differ in {', '.join(names)}: "
                "what they play must be the same; compare them apart"
            )


def check_crossed(keys: Sequence[tuple[str, str]]) -> None:
    """Refuse an algorithm that lacks an environment which others have."""
    envs, names = (list(dict.fromkeys(part)) for part in zip(*keys, strict=True))
    for name in names:
        lacking = [env for env in envs if (env, name) not in keys]
        if lacking:
            raise UsageError(
                f"{name} has no run in {lacking[0]}, others have: give runs of each algorithm "
                "in each environment, or one environment at a time"
            )


def summed_up(group: Group, threshold: float | None, scale: tuple[float, float] | None) -> Row:
    """A group's row of the table."""
    score = {name: bootstrap(group.scores, of) for name, of in STATISTICS.items()}
    area = bootstrap(np.array([run.score("area") for run in group.runs]), mean)
    normalized = None if scale is None else bootstrap(normalize(group.scores, *scale), mean)
    reached = None
    if threshold is not None:
        ends = [steps_to_threshold(run.steps, run.values, threshold) for run in group.runs]
        reached = np.array(ends)
    return Row(group, score, area, normalized, reached)


def tested(groups: Sequence[Group]) -> list[Pair]:
    """All pairs of each environment; one that lacks a score is not tested.

    Leaving out the runs that failed would favour the algorithm that fails.
    """
    pairs = [(a, b) for a, b in combinations(groups, 2) if a.env == b.env]
    whole = [(a, b) for a, b in pairs if not (a.missing or b.missing)]
    results = iter(compare_pairs([(a.scores, b.scores) for a, b in whole], level=LEVEL))
    return [
        Pair(a, b, None, None)
        if a.missing or b.missing
        else Pair(a, b, next(results), probability_of_improvement(a.scores, b.scores))
        for a, b in pairs
    ]


def pool(groups: Sequence[Group], scales: Scales) -> list[Pooled]:
    """Each algorithm over several environments whose scales are all known."""
    envs = dict.fromkeys(group.env for group in groups)
    if len(envs) < 2 or not all(scales.get(env) for env in envs):
        return []
    strata: dict[str, list[Floats]] = {}
    for group in groups:
        random, best = scales[group.env] or (0.0, 1.0)
        strata.setdefault(group.name, []).append(normalize(group.scores, random, best))
    return [Pooled(name, bootstrap(x, mean), bootstrap(x, iqm)) for name, x in strata.items()]


def notes_on(groups: Sequence[Group]) -> Iterator[str]:
    """What is lacking in the runs."""
    several = len({group.env for group in groups}) > 1
    for group in groups:
        name = f"{group.name} in {group.env}" if several else group.name
        if group.missing:
            seeds = f"seed{'s' * (len(group.missing) > 1)} " + ", ".join(map(str, group.missing))
            yield f"{name} lacks a score for {seeds}: its means leave them out, no test is done"
        gaps = sum(bool(np.isnan(run.values).any()) for run in group.runs)
        if gaps:
            yield f"{name}: {gaps} of {len(group.runs)} learning curves hold returns not finite"
        if any(len(run.steps) > ROWS for run in group.runs):
            yield f"{name}: episodes.csv was thinned, late curve points cover more episodes"
    ends = sorted({run.summary["steps"] for group in groups for run in group.runs if run.summary})
    if len(ends) > 1:
        yield (
            f"the runs are of unequal length, {ends[0]:,} to {ends[-1]:,} env steps: "
            "each score is that of its run's end"
        )


def notes_on_tests(groups: Sequence[Group], pairs: Sequence[Pair]) -> Iterator[str]:
    """How little can be said with few seeds."""
    fewest = min(len(group.runs) - len(group.missing) for group in groups)
    if fewest < FEW:
        yield f"only {fewest} seed{'s' * (fewest > 1)}: intervals are too narrow; take 10"
    done = [pair for pair in pairs if pair.comparison]
    if done and (least := min(least_adjusted(pair, len(done)) for pair in done)) > LEVEL:
        enough = next(n for n in range(2, 100) if len(done) * 2 / math.comb(2 * n, n) <= LEVEL)
        yield (
            f"no difference, however large, can be shown: the least possible p is {least:.2g}; "
            f"with {enough} seeds it can"
        )


def least_adjusted(pair: Pair, family: int) -> float:
    """The smallest p-value that Holm's correction can leave of a pair's permutation test."""
    n, m = len(pair.first.runs), len(pair.second.runs)
    return min(1.0, family * (2 if n == m else 1) / math.comb(n + m, n))


def notes_on_pool(groups: Sequence[Group], pooled: Sequence[Pooled]) -> Iterator[str]:
    """Why there is no mean over the environments."""
    if len({group.env for group in groups}) > 1 and not pooled:
        yield (
            "no mean over the environments: the scores of the random and the best policy "
            "are not known for all of them"
        )


def curves(table: Table, env: str) -> tuple[np.ndarray, dict[str, Floats]]:
    """Env steps [G] and each algorithm's learning curves [R, G] on them, NaN where unknown."""
    rows = table.within(env)
    runs = [run for row in rows for run in row.group.runs if run.summary]
    last = max(run.summary["steps"] for run in runs if run.summary)
    grid = common_grid([], end=last)
    return grid, {
        row.group.name: np.array(
            [
                resample(run.steps, run.values, grid, end=run.summary["steps"])
                for run in row.group.runs
                if run.summary
            ]
        )
        for row in rows
    }


def profile(table: Table, env: str, points: int = 21) -> tuple[Floats, dict[str, Estimate]]:
    """Scores [T] and the fraction of each algorithm's runs above them."""
    rows = table.within(env)
    scores = np.concatenate([row.group.scores for row in rows])
    marks = np.linspace(np.nanmin(scores), np.nanmax(scores), points)
    return marks, {row.group.name: performance_profile(row.group.scores, marks) for row in rows}
