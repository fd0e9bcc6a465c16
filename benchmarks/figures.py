"""Measure what is said of learning, and write docs/figures.md: `make figures`.

`python benchmarks/figures.py [NAME ...]` runs the seeds of figures.toml that have no result yet,
each in a process of one thread, and keeps each at once in results/NAME.json, so that it may be
stopped anywhere. Figures of the same commands are judged on the same runs. Where a figure's flags
or its preset have changed its results are measured again; `--again` does so for those named.
`--page` writes the page alone. A figure of another package's environments `needs` it, and is left
out without it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqrl.training.runs.folder import versions
from seqrl.training.runs.presets import preset

HOME = Path(__file__).parent
RESULTS, PAGE = HOME / "results", HOME.parent / "docs" / "figures.md"
HEAD = """# Figures

What agents reach, measured by `make figures`: the mean return of 100 greedy episodes after
training (of more where its command says so), for each seed, with one thread on a CPU. The commands
are in `benchmarks/figures.toml`, and what judges some of imitation instead in
`benchmarks/judges.py`; settings are the defaults (`--preset none`) unless a preset is
named. Asked is what we hold ourselves to; a miss stands here as well, and so does what was not
measured yet. Runs until 0.95 say after how many env steps 200 greedy episodes scored it, and what
fresh ones did. Seconds are those of a clock, on a machine that may have had other work beside.
Published numbers are others' and quoted.

| agent | work | asked | seeds 0, 1, ... | | seconds a run | published | measured |
|---|---|---|---|---|---|---|---|
"""
Figure = dict[str, Any]


def figures() -> dict[str, Figure]:
    """Return what is to be measured, by name."""
    written = tomllib.loads((HOME / "figures.toml").read_text(encoding="utf-8"))
    return {name: figure for item in written.items() for name, figure in of_each_network(*item)}


def of_each_network(name: str, figure: Figure) -> Iterable[tuple[str, Figure]]:
    """Yield a figure as it is written, or as often as it names `networks`."""
    if "networks" not in figure:
        yield name, figure
    for network in figure.get("networks", ()):
        named = {key: figure[key].replace("{network}", network) for key in ("what", "flags")}
        yield f"{name}-{network}", {**figure, **named}


def results(name: str, figure: Figure) -> Figure:
    """Return what was measured of a figure as it is now: its runs by seed."""
    file = RESULTS / f"{name}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    now = {"flags": commands(figure), **settings(figure)}
    same = {key: value for key, value in found.items() if key != "runs"} == now
    return found if same else {**now, "runs": {}}


def settings(figure: Figure) -> Figure:
    """Return what the preset says that a figure's flags name, if they name one, as "preset"."""
    words = figure["flags"].split()
    name = words[words.index("--preset") + 1] if "--preset" in words else "none"
    return {} if name == "none" else {"preset": preset(name).settings}


def there(name: str, figure: Figure) -> bool:
    """Return whether the package that a figure needs is there, if it needs one; say so if not."""
    package = figure.get("needs")
    found = package is None or importlib.util.find_spec(package) is not None
    if not found:
        print(f"{name}: left out, it needs {package}; see figures.toml", flush=True)
    return found


def commands(figure: Figure) -> str:
    """Return all that is run for a figure: the commands before, and the flags of its own."""
    return "; ".join([*figure.get("before", ()), figure["flags"]])


def seqrl(*words: str) -> None:
    """Run a command in a process of one thread."""
    command = [sys.executable, "-m", "seqrl", *words]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def measure(figures: Mapping[str, Figure], seed: int) -> dict[str, Figure]:
    """Train once, as all of the figures say; return score, seconds, date and versions of each."""
    figure = next(iter(figures.values()))
    with tempfile.TemporaryDirectory() as folder:
        for command in figure.get("before", ()):
            seqrl(*command.format(folder=folder, seed=seed).split())
        flags = figure["flags"].format(folder=folder, seed=seed).split()
        preset = [] if "--preset" in flags else ["--preset", "none"]
        run = [*flags, *preset, "--seed", str(seed), "--run-dir", f"{folder}/run"]
        seqrl("train", *run, "--quiet", "--no-pictures")
        summary = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))
        numbers = {"seconds": summary["seconds"]}
        if "--stop-at" in flags:
            numbers["steps"] = summary["steps"]
        told = {"date": str(datetime.date.today()), "versions": versions()}
        scores = {x: score(figure, summary, Path(folder, "run")) for x, figure in figures.items()}
    return {name: {"score": found, **numbers, **told} for name, found in scores.items()}


def score(figure: Figure, summary: Figure, run: Path) -> float:
    """Return the mean return of a run's last evaluation, or what the figure's judge says."""
    if "judge" not in figure:
        return summary["eval_mean_reward"]
    from judges import judged  # which imports torch: the page alone needs none

    return judged(figure["judge"], run)


def measure_missing(figures: Mapping[str, Figure], seed: int) -> None:
    """Measure one seed of those figures of a training that have no result of it yet."""
    found = {name: results(name, figure) for name, figure in figures.items()}
    missing = {
        name: figure
        for name, figure in figures.items()
        if seed < figure["seeds"] and str(seed) not in found[name]["runs"]
    }
    for name, run in measure(missing, seed).items() if missing else ():
        found[name]["runs"][str(seed)] = run
        text = json.dumps(found[name], indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(f"{name}, seed {seed}: {run['score']:.4g}", flush=True)


def asked(figure: Figure) -> str:
    """Return what is asked of a figure, in words."""
    if not {"least", "most"} & set(figure):
        return "reported"
    bound = f">= {figure['least']:g}" if "least" in figure else f"<= {figure['most']:g}"
    if "of" in figure:
        return f"{bound} in {figure['of']} of {figure['seeds']}"
    return bound if figure["seeds"] == 1 else f"{bound}, median"


def holds(figure: Figure, scores: list[float]) -> bool:
    """Return whether the scores are what is asked; where seeds are counted, or still may be."""
    judged = scores if "of" in figure else [statistics.median(scores)]
    good = sum(
        figure.get("least", -float("inf")) <= score <= figure.get("most", float("inf"))
        for score in judged
    )
    missing = figure["seeds"] - len(scores)
    return good + missing >= figure["of"] if "of" in figure else good == 1


def verdict(figure: Figure, scores: list[float]) -> str:
    """Return what the scores say to what is asked."""
    if asked(figure) != "reported" and not holds(figure, scores):
        return "**a miss**"
    if len(scores) < figure["seeds"]:
        return f"{len(scores)} of {figure['seeds']} seeds so far"
    return "" if asked(figure) == "reported" else "holds"


def shown(run: Figure) -> str:
    """Return the score of a run, and after how many steps it was good enough to stop."""
    score = f"{run['score']:.4g}" if abs(run["score"]) < 10_000 else f"{run['score']:,.0f}"
    return score + (f" ({run['steps']:,} steps)" if "steps" in run else "")


def measured(figure: Figure, runs: list[Figure]) -> tuple[str, str, str, str]:
    """Return the cells of a line that come from its runs: scores, verdict, seconds, date."""
    if not runs:
        return "not measured yet", "", "", ""
    seconds = statistics.median(run["seconds"] for run in runs)
    says = verdict(figure, [run["score"] for run in runs])
    return ", ".join(map(shown, runs)), says, f"{seconds:.0f}", runs[-1]["date"]


def rows() -> Iterable[str]:
    """Yield a line of the page for each figure."""
    for name, figure in figures().items():
        runs = results(name, figure)["runs"]
        of_seeds = [runs[seed] for seed in map(str, range(figure["seeds"])) if seed in runs]
        agent = figure["flags"].partition("--agent ")[2].split()[0]
        scores, says, seconds, date = measured(figure, of_seeds)
        cells = agent, figure["what"], asked(figure), scores, says, seconds
        yield f"| {' | '.join(cells)} | {figure.get('published', '')} | {date} |\n"


def page() -> str:
    """Return the page of all figures."""
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
    named = {} if args.page else {name: known[name] for name in args.names or known}
    named = {name: figure for name, figure in named.items() if there(name, figure)}
    for alike in {commands(figure): None for figure in named.values()}:
        same = {name: figure for name, figure in named.items() if commands(figure) == alike}
        if args.again:
            for name in same:
                (RESULTS / f"{name}.json").unlink(missing_ok=True)
        for seed in range(max(figure["seeds"] for figure in same.values())):
            measure_missing(same, seed)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
