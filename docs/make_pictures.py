"""Make the pictures of README and docs: `python docs/make_pictures.py [NAME ...]`, some minutes."""

from __future__ import annotations

import argparse
import runpy
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from matplotlib.figure import Figure

import seqrl
from seqrl.scripts import compare, evaluate, train

HOME = Path(__file__).resolve().parent
COMPARISONS = {  # name of the picture: flags of the comparison that it shows, and its steps
    "compare": (
        "--agents q-learning sarsa --env CliffWalking-v1 --max-episode-steps 200 --seeds 10",
        "100000",
    ),
    "compare_networks": (
        "--agents reinforce --grid network=mlp,gru --env seqrl/TMaze-v0 --env-arg length=3 "
        "--num-envs 16 --seeds 5",
        "40000",
    ),
    "imitate_then_reinforce": (
        "--agents imitate reinforce --grid from=none,runs/imitated --env seqrl/Translate-v0 "
        "--network seq2seq --num-envs 64 --seeds 3",
        "250000",
    ),
}
BEFORE = {  # name of the picture: flags of the run that its comparison begins from
    "imitate_then_reinforce": "--agent imitate --network seq2seq --env seqrl/Translate-v0 "
    "--num-envs 64 --steps 60000 --run-dir runs/imitated",
}
RUNS = {  # name of the picture: flags of the run that it shows
    "policy": "--env FrozenLake-v1 --steps 300000",
    "blackjack": "--agent monte-carlo --env Blackjack-v1 --env-arg sab=True --steps 300000",
    "memory": "--agent ppo --network gru --env seqrl/RepeatFirst-v0 --num-envs 16 --steps 200000",
}
FILMED = ("policy",)
REPLIES = "hred", "vhred"


def main(names: Sequence[str] = (), target: Path = HOME) -> int:
    """Train what is shown in a temporary folder, and keep only pictures, all if none is named."""
    status = 0
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name in names or PICTURES:
            status = status or PICTURES[name](name, target)
    return status


def picture_comparison(name: str, target: Path) -> int:
    """Compare, and keep the picture as `target`/name.png."""
    status = train.main([*BEFORE[name].split(), "--no-pictures"]) if name in BEFORE else 0
    flags, steps = COMPARISONS[name]
    status = status or compare.main([*flags.split(), "--steps", steps, "--out", name])
    shutil.copyfile(Path(name, "compare.png"), target / f"{name}.png")
    return status


def picture_run(name: str, target: Path) -> int:
    """Train a run and write its pictures to `target`/name.png, and name.gif if it is in FILMED."""
    status = train.main([*RUNS[name].split(), "--no-pictures", "--run-dir", name])
    flags = ["--picture", str(target / f"{name}.png")]
    if name in FILMED:
        flags += ["--gif", str(target / f"{name}.gif")]
    return status or evaluate.main([name, "--episodes", "1000", *flags])


def picture_replies(name: str, target: Path) -> int:
    """Train HRED and VHRED on Dialogue, and draw which replies to chat they give."""
    status = 0
    for network in REPLIES:
        flags = f"--agent imitate --network {network} --env seqrl/Dialogue-v0 --no-pictures"
        status = status or train.main([*flags.split(), "--run-dir", network])
    draw_replies({network: Path(network) for network in REPLIES}, target / f"{name}.png")
    return status


def draw_replies(folders: dict[str, Path], path: Path) -> None:
    """Draw as PNG which replies runs, by name, give to the very same dialogue."""
    judges = runpy.run_path(str(HOME.parent / "benchmarks" / "judges.py"))
    figure = Figure((6.4, 2.4), layout="constrained")
    for place, (name, run) in enumerate(folders.items()):
        given = judges["replies_given"](seqrl.load(run))
        count = next(row for row in given if row.any())  # of one dialogue, begun again and again
        axes = figure.add_subplot(1, len(folders), place + 1, title=name, ylim=(0, 1))
        axes.bar([f"reply{i}" for i in range(len(count))], count / count.sum())
    figure.savefig(path, dpi=80)


PICTURES = {
    **dict.fromkeys(COMPARISONS, picture_comparison),
    **dict.fromkeys(RUNS, picture_run),
    "replies": picture_replies,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PICTURES)}; all if none is named")
    sys.exit(main(parser.parse_args().names))
