"""The comparison of algorithms: statistics of their runs and tests of all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.envs.batches import brief
from seqrl.training import statistics
from seqrl.training.comparison.recorded import WINDOW, Run, labels, own_returns
from seqrl.training.runs.episodes_csv import ROWS
from seqrl.training.statistics import Estimate, Floats, bootstrap, iqm, mean, median, normalize

MIN_SEEDS = 5  # with fewer a warning is given
LEVEL = 0.05  # significance level
STATISTICS: dict[str, statistics.Statistic] = {"mean": mean, "median": median, "iqm": iqm}
Scales = Mapping[str, tuple[float, float] | None]  # env -> scores of the random and best policy


class Group(NamedTuple):
    """The runs of an algorithm in an environment."""

    env: str
    name: str
    runs: list[Run]
    scores: Floats  # [R], NaN where missing

    @property
    def missing(self) -> list[int]:
        """The seeds of the runs without a score."""
        missing = np.flatnonzero(np.isnan(self.scores))
        return [self.runs[i].config["seed"] for i in missing]


class Row(NamedTuple):
    """The statistics of a group with their 95 % intervals."""

    group: Group
    score: dict[str, Estimate]  # by name in STATISTICS
    area: Estimate  # mean over the runs of the area under the curve
    normalized: Estimate | None  # mean score; 0 is the random policy, 1 the best
    reached: Floats | None  # [R] env steps to the threshold, NaN where it was not reached


class Pair(NamedTuple):
    """The tests of two groups; None where one lacks a score."""

    first: Group
    second: Group
    comparison: statistics.Comparison | None
    improvement: Estimate | None  # probability that a run of the first beats one of the second


class Pooled(NamedTuple):
    """An algorithm's normalised scores over all environments, each a stratum."""

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
        """The environments, in the order of the rows."""
        return list(dict.fromkeys(row.group.env for row in self.rows))

    def within(self, env: str) -> list[Row]:
        """Return the rows of an environment."""
        return [row for row in self.rows if row.group.env == env]

    def evaluated(self, env: str) -> bool:
        """Return whether an environment's curves are of greedy evaluations (`own_returns`)."""
        return any(run.evaluated for row in self.within(env) for run in row.group.runs)


def compare(
    runs: Sequence[Run],
    metric: str = "eval_mean_reward",
    *,
    threshold: float | None = None,
    scales: Scales | None = None,
) -> Table:
    """Summarise the runs of each algorithm in each environment, and test all pairs together.

    Scores are those of `Run.score`; `threshold` is a return for `Run.steps_to`. Verdicts are
    permutation tests of the difference of means at 5 %, Holm over the pairs of all environments.
    Raises UsageError where no run has a score, or an environment's settings differ.
    """
    notes: list[str] = []
    groups = group_runs(own_returns(list(drop_repeats(runs, notes))), metric)
    scales = scales or {}
    scored = [group for group in groups if len(group.missing) < len(group.runs)]
    if not scored:
        remedy = "let one finish, and give it --eval-episodes if that is the metric"
        raise UsageError(f"no run has a score {metric}: {remedy}")
    rows = [summarise(group, threshold, scales.get(group.env)) for group in scored]
    pairs = test_pairs(groups)
    pooled = pool(groups, scales)
    notes += [*notes_on(groups), *notes_on_tests(groups, pairs)]
    if threshold is not None:
        notes += notes_on_windows(scored)
    if len({group.env for group in groups}) > 1 and not pooled:
        why = "the scores of the random and the best policy are not known for all of them"
        notes.append(f"no mean over the environments: {why}")
    return Table(metric, threshold, scales, rows, pairs, pooled, notes)


def drop_repeats(runs: Sequence[Run], notes: list[str]) -> Iterator[Run]:
    """Yield one run a seed, the longest finished one; repeats are not independent."""
    best: dict[tuple[str, str, int], Run] = {}
    for run, name in zip(runs, labels(runs), strict=True):
        key = run.config["env"], name, run.config["seed"]
        other = best.get(key, run)
        best[key] = max(other, run, key=lambda r: r.end)
        if other is not run:
            left = run if best[key] is other else other
            notes.append(f"{left.folder} is left out: {best[key].folder} has the same seed")
    yield from best.values()


def group_runs(runs: Sequence[Run], metric: str) -> list[Group]:
    """Return the runs grouped by environment and algorithm, in the order given."""
    members: dict[tuple[str, str], list[Run]] = {}
    for run, name in zip(runs, labels(runs), strict=True):
        members.setdefault((run.config["env"], name), []).append(run)
    check_tasks(runs)
    check_complete(list(members))
    scores = [np.array([run.score(metric) for run in own]) for own in members.values()]
    return [Group(*key, own, x) for (key, own), x in zip(members.items(), scores, strict=True)]


def check_tasks(runs: Sequence[Run]) -> None:
    """Refuse runs of one environment with different arguments or step limits."""
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.config["env"], run)
        if run.task != other.task:
            names = [
                f"{name} {brief(other.config.get(name))} and {brief(run.config.get(name))}"
                for name in sorted(run.task.keys() | other.task.keys())
                if run.task.get(name) != other.task.get(name)
            ]
            what = f"{other.folder} and {run.folder} differ in {', '.join(names)}"
            raise UsageError(f"{what}: what they play must be the same; compare them apart")


def check_complete(keys: Sequence[tuple[str, str]]) -> None:
    """Refuse an algorithm that lacks an environment which others have."""
    envs, names = (list(dict.fromkeys(part)) for part in zip(*keys, strict=True))
    for name in names:
        lacking = [env for env in envs if (env, name) not in keys]
        if lacking:
            what = f"{name} has no run in {lacking[0]}, others have"
            remedy = "give runs of each algorithm in each environment, or one environment at a time"
            raise UsageError(f"{what}: {remedy}")


def summarise(group: Group, threshold: float | None, scale: tuple[float, float] | None) -> Row:
    """Return a group's row of the table."""
    score = {name: bootstrap(group.scores, reduce) for name, reduce in STATISTICS.items()}
    area = bootstrap(np.array([run.score("area") for run in group.runs]), mean)
    normalized = None if scale is None else bootstrap(normalize(group.scores, *scale), mean)
    reached = None
    if threshold is not None:
        reached = np.array([run.steps_to(threshold) for run in group.runs])
    return Row(group, score, area, normalized, reached)


def test_pairs(groups: Sequence[Group]) -> list[Pair]:
    """Test all pairs in each environment, but none that lacks a score (see `statistics`)."""
    pairs = [(a, b) for a, b in combinations(groups, 2) if a.env == b.env]
    complete = [(a.scores, b.scores) for a, b in pairs if not (a.missing or b.missing)]
    results = iter(statistics.compare_pairs(complete, level=LEVEL))
    return [
        Pair(a, b, None, None)
        if a.missing or b.missing
        else Pair(a, b, next(results), statistics.probability_of_improvement(a.scores, b.scores))
        for a, b in pairs
    ]


def pool(groups: Sequence[Group], scales: Scales) -> list[Pooled]:
    """Pool each algorithm over several environments; [] unless all their scales are known."""
    envs = dict.fromkeys(group.env for group in groups)
    if len(envs) < 2 or not all(scales.get(env) for env in envs):
        return []
    strata: dict[str, list[Floats]] = {}
    for group in groups:
        random, best = scales[group.env] or (0.0, 1.0)
        strata.setdefault(group.name, []).append(normalize(group.scores, random, best))
    return [Pooled(name, bootstrap(x, mean), bootstrap(x, iqm)) for name, x in strata.items()]


def notes_on(groups: Sequence[Group]) -> Iterator[str]:
    """Yield notes on missing scores, gaps in curves and unequal lengths."""
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
    for env in dict.fromkeys(group.env for group in groups for r in group.runs if r.evaluated):
        what = f"{env}: a teacher had a part in training's returns"
        yield f"{what}; curves and area are those of greedy evaluations"
    ends = sorted({run.end for group in groups for run in group.runs if run.summary})
    if len(ends) > 1:
        unequal = f"the runs are of unequal length, {ends[0]:,} to {ends[-1]:,} env steps"
        yield f"{unequal}: each score is that of its run's end"


def notes_on_windows(groups: Sequence[Group]) -> Iterator[str]:
    """Yield a note on each group with runs too short to reach a threshold."""
    for group in groups:
        trained = [run for run in group.runs if run.summary and not run.evaluated]
        short = sum(len(run.steps) < WINDOW for run in trained)
        if short:
            runs = f"{group.name}: {short} of {len(group.runs)} runs have fewer than"
            yield f"{runs} {WINDOW} episodes, whose mean a threshold is held against"


def notes_on_tests(groups: Sequence[Group], pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield notes on too few seeds."""
    fewest = min(len(group.runs) - len(group.missing) for group in groups)
    if fewest < MIN_SEEDS:
        yield f"only {fewest} seed{'s' * (fewest > 1)}: intervals are too narrow; take 10"
    done = [pair for pair in pairs if pair.comparison]
    if done and (least := min(least_adjusted(pair, len(done)) for pair in done)) > LEVEL:
        enough = next(n for n in range(2, 100) if len(done) * 2 / math.comb(2 * n, n) <= LEVEL)
        why = f"the least possible p is {least:.2g}; with {enough} seeds it can"
        yield f"no difference, however large, can be shown: {why}"


def least_adjusted(pair: Pair, family: int) -> float:
    """Return the least p-value that a pair's permutation test can have after Holm's correction."""
    n, m = len(pair.first.runs), len(pair.second.runs)
    return min(1.0, family * (2 if n == m else 1) / math.comb(n + m, n))


def curves(table: Table, env: str) -> tuple[np.ndarray, dict[str, Floats]]:
    """Return env steps [G] and each algorithm's learning curves [R, G], NaN where unknown."""
    rows = table.within(env)
    grid = statistics.common_grid([], end=max(run.end for row in rows for run in row.group.runs))

    def on_grid(runs: list[Run]) -> Floats:
        done = [run for run in runs if run.summary]
        return np.array([statistics.resample(r.steps, r.values, grid, end=r.end) for r in done])

    return grid, {row.group.name: on_grid(row.group.runs) for row in rows}


def profile(table: Table, env: str, points: int = 21) -> dict[str, Any]:
    """Return even `scores` [points] and, by algorithm, the fraction of runs `above` them."""
    groups = [row.group for row in table.within(env)]
    scores = np.concatenate([group.scores for group in groups])
    steps = np.linspace(np.nanmin(scores), np.nanmax(scores), points)
    above = {group.name: statistics.performance_profile(group.scores, steps) for group in groups}
    return {"scores": steps, "above": above}
