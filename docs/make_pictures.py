"""Make the pictures of README and docs: `python docs/make_pictures.py`, some minutes."""

from __future__ import annotations

import runpy
import shutil
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

import seqrl
from seqrl.scripts import compare, evaluate, train

HOME = Path(__file__).parent
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
}
RUNS = {  # name of the picture: flags of the run that it shows
    "policy": "--env FrozenLake-v1 --steps 300000",
    "blackjack": "--agent monte-carlo --env Blackjack-v1 --env-arg sab=True --steps 300000",
    "memory": "--agent ppo --network gru --env seqrl/RepeatFirst-v0 --num-envs 16 --steps 200000",
}
FILMED = ("policy",)


def main(target: Path = HOME) -> int:
    """Run COMPARISONS and RUNS in a temporary folder, and keep only the pictures."""
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (command, steps) in COMPARISONS.items():
            out = Path(folder) / name
            flags = [*command.split(), "--steps", steps, "--logdir", folder, "--out", str(out)]
            status = status or compare.main(flags)
            shutil.copyfile(out / "compare.png", target / f"{name}.png")
        for name in RUNS:
            status = status or picture_run(name, Path(folder) / name, target)
        status = status or picture_replies(Path(folder), target)
    return status


def picture_run(name: str, run: Path, target: Path) -> int:
    """Train a run and write its pictures to `target`/name.png, and name.gif if it is in FILMED."""
    status = train.main([*RUNS[name].split(), "--no-pictures", "--run-dir", str(run)])
    flags = ["--picture", str(target / f"{name}.png")]
    if name in FILMED:
        flags += ["--gif", str(target / f"{name}.gif")]
    return status or evaluate.main([str(run), "--episodes", "1000", *flags])


def picture_replies(folder: Path, target: Path) -> int:
    """Train HRED and VHRED on Dialogue, and draw which replies to chat they give."""
    status = 0
    for network, preset in (("hred", "dialogue"), ("vhred", "dialogue-vhred")):
        flags = f"--agent imitate --preset {preset} --env seqrl/Dialogue-v0 --no-pictures"
        status = status or train.main([*flags.split(), "--run-dir", str(folder / network)])
    draw_replies({name: folder / name for name in ("hred", "vhred")}, target)
    return status


def draw_replies(folders: dict[str, Path], target: Path) -> None:
    """Draw which replies runs, by name, give to the same chat, to `target`/replies.png."""
    judges = runpy.run_path(str(HOME.parent / "benchmarks" / "judges.py"))
    figure = Figure((6.4, 2.4), layout="constrained")
    for place, (name, run) in enumerate(folders.items()):
        given = judges["replies_given"](seqrl.load(run))
        count = next(row for row in given if row.any())  # of one dialogue, begun again and again
        axes = figure.add_subplot(1, len(folders), place + 1, title=name, ylim=(0, 1))
        axes.bar([f"reply{i}" for i in range(len(count))], count / count.sum())
    figure.savefig(target / "replies.png", dpi=80)


if __name__ == "__main__":
    sys.exit(main())
