"""Measure what is said of learning, and write docs/figures.md: `make figures`.

`python benchmarks/figures.py [NAME ...]` runs the seeds of figures.toml that have no result yet,
each in a process of one thread, and keeps each at once in results/NAME.json, so that it may be
stopped anywhere. Where a figure's flags have changed its results are measured again; `--again` does
so for those named. `--page` writes the page alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seqrl.training.runs.folder import versions

HOME = Path(__file__).parent
RESULTS, PAGE = HOME / "results", HOME.parent / "docs" / "figures.md"
HEAD = """# Figures

What agents reach, measured by `make figures`: the mean return of 100 greedy episodes after
training, for each seed, with one thread on a CPU. Settings are the defaults (`--preset none`)
unless a preset is named. Asked is what we hold ourselves to; a miss stands here as well. Published
numbers are others' and quoted.

| work | asked | seeds 0, 1, ... | | seconds a run | published | measured |
|---|---|---|---|---|---|---|
"""
Figure = dict[str, Any]


def figures() -> dict[str, Figure]:
    """Return what is to be measured, by name."""
    return tomllib.loads((HOME / "figures.toml").read_text(encoding="utf-8"))


def results(name: str, figure: Figure) -> Figure:
    """Return what was measured of a figure as it is now: its runs by seed."""
    file = RESULTS / f"{name}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    same = found.get("flags") == figure["flags"]
    return found if same else {"flags": figure["flags"], "runs": {}}


def measure(figure: Figure, seed: int) -> Figure:
    """Train with one seed; return the score, the seconds, the date and the versions."""
    with tempfile.TemporaryDirectory() as folder:
        flags = figure["flags"].split()
        preset = [] if "--preset" in flags else ["--preset", "none"]
        run = [*flags, *preset, "--seed", str(seed), "--run-dir", f"{folder}/run"]
        command = [sys.executable, "-m", "seqrl", "train", *run, "--quiet", "--no-pictures"]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        summary = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))
    numbers = {"score": summary["eval_mean_reward"], "seconds": summary["seconds"]}
    return {**numbers, "date": str(datetime.date.today()), "versions": versions()}


def asked(figure: Figure) -> str:
    """Return what is asked of a figure, in words."""
    if not {"least", "most"} & set(figure):
        return "reported"
    bound = f">= {figure['least']:g}" if "least" in figure else f"<= {figure['most']:g}"
    return (
        f"{bound} in {figure['of']} of {figure['seeds']}" if "of" in figure else f"{bound}, median"
    )


def holds(figure: Figure, scores: list[float]) -> bool:
    """Return whether the scores of all seeds are what is asked."""
    judged = scores if "of" in figure else [statistics.median(scores)]
    good = sum(
        figure.get("least", -float("inf")) <= score <= figure.get("most", float("inf"))
        for score in judged
    )
    return good >= figure.get("of", 1)


def rows() -> Iterable[str]:
    """Yield a line of the page for each figure that was measured."""
    for name, figure in figures().items():
        runs = results(name, figure)["runs"]
        if len(runs) < figure["seeds"]:
            continue
        of_seeds = [runs[str(seed)] for seed in range(figure["seeds"])]
        scores = [run["score"] for run in of_seeds]
        shown = ", ".join(f"{score:.4g}" for score in scores)
        seconds = statistics.median(run["seconds"] for run in of_seeds)
        verdict = "holds" if holds(figure, scores) else "**a miss**"
        verdict = "" if asked(figure) == "reported" else verdict
        cells = figure["what"], asked(figure), shown, verdict, f"{seconds:.0f}"
        yield f"| {' | '.join(cells)} | {figure.get('published', '')} | {of_seeds[-1]['date']} |\n"


def page() -> str:
    """Return the page of all figures that were measured."""
    return HEAD + "".join(rows())


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="figures; all if none is named")
    parser.add_argument("--again", action="store_true", help="measure those named again")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    known = figures()
    for name in () if args.page else args.names or known:
        figure = known[name]
        found = results(name, figure)
        runs = {} if args.again else found["runs"]
        for seed in range(figure["seeds"]):
            if str(seed) not in runs:
                runs[str(seed)] = measure(figure, seed)
                text = json.dumps({"flags": figure["flags"], "runs": runs}, indent=1)
                (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
                print(f"{name}, seed {seed}: {runs[str(seed)]['score']:.4g}", flush=True)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
