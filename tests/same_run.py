"""Do two source trees give the same runs, bit for bit?  python tests/same_run.py OLD NEW [NAME ...]

Each command trains in both trees. Compared are the tables or weights with the optimiser's moments,
every random generator, env steps, episodes, evaluation and episodes.csv; saved names may differ,
and what an agent keeps to learn from may be laid out otherwise. Exit status 1 where a run differs.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOMS = ("agents", "core", "envs", "networks", "scripts", "training")
STORES = {"store", "experience"}  # entries of an agent's state that hold what it learns from
SMALL = "--network-arg hidden_size=16"
COMMANDS = {
    "table, compiled": "--agent q-learning --env FrozenLake-v1 --steps 200000 --num-envs 2",
    "table, compiled Monte Carlo": "--agent monte-carlo --env Taxi-v4 --steps 120000",
    "table, stepped": "--agent sarsa --env CliffWalking-v1 --steps 20000 --num-envs 3 --no-compile",
    "table, traces on tiles": "--agent q-learning --env CartPole-v1 --steps 6000 --tiles 4 "
    "--bins 6 --trace-decay 0.8 --preset none",
    "REINFORCE": "--agent reinforce --env CartPole-v1 --steps 20000 --num-envs 16",
    "REINFORCE, LSTM": f"--agent reinforce --env seqrl/RepeatFirst-v0 --network lstm {SMALL} "
    "--steps 12000 --num-envs 8 --preset none",
    "PPO": "--agent ppo --env CartPole-v1 --steps 8000 --num-envs 8 --rollout 64",
    "PPO, memory": f"--agent ppo --env seqrl/TMaze-v0 --network gru {SMALL} --steps 6000 "
    "--num-envs 8 --rollout 32 --target-kl 0.1 --preset none",
    "replay": "--agent q-learning --network mlp --env CartPole-v1 --steps 6000 --num-envs 3 "
    "--priority 0.5 --preset none",
    "replay, memory": f"--agent q-learning --network gru {SMALL} --env CartPole-v1 --steps 4000 "
    "--num-envs 4 --burn-in 4 --learning-starts 500 --train-every 16 --preset none",
    "on policy, memory": f"--agent sarsa --network gru {SMALL} --env CartPole-v1 --steps 3000 "
    "--num-envs 2 --preset none",
    "resumed": f"--agent reinforce --env seqrl/TMaze-v0 --network gru {SMALL} --steps 8000 "
    "--num-envs 4 --checkpoint-every 2000 --preset none",
    "many seeds": "--agent q-learning --env CliffWalking-v1 --seeds 20 --steps 20000 "
    "--max-episode-steps 200",
    "worker processes": "--agent monte-carlo --network mlp --env CartPole-v1 --steps 3000 "
    "--num-envs 2 --processes --preset none",
}


def importable(tree: Path, home: Path) -> Path:
    """A folder through which Python finds the packages of a source tree first."""
    package = home / "seqrl"
    package.mkdir(parents=True)
    for room in ROOMS:
        (package / room).symlink_to(tree / room)
    for path in sorted(tree.glob("root/*.py")):
        (package / path.name).symlink_to(path)
    return home


def train(path: Path, flags: list[str]) -> None:
    """Run `seqrl train` on the sources at `path`; what goes wrong ends this script."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = {**os.environ, **threads, "PYTHONPATH": str(path)}
    command = [sys.executable, "-P", "-m", "seqrl.scripts.train", *flags, "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def played(path: Path, name: str, folder: Path) -> dict[str, object]:
    """The outcome of a command; "resumed" loses its last checkpoint and goes on from the others."""
    common = ["--seed", "3", "--eval-episodes", "5", "--no-pictures"]
    if name == "many seeds":
        common = ["--no-pictures"]
    train(path, [*COMMANDS[name].split(), *common, "--run-dir", str(folder)])
    if name == "resumed":
        (folder / "summary.json").unlink()
        max(folder.glob("checkpoint/step-*")).unlink()
        train(path, ["--resume", str(folder)])
    return outcome(folder)


def outcome(folder: Path) -> dict[str, object]:
    """What has to be the same of a run."""
    summary = json.loads((folder / "summary.json").read_text())
    found = {key: summary.get(key) for key in ("steps", "episodes", "ep_rew_mean")}
    if (folder / "curves.npz").exists():
        curves = np.load(folder / "curves.npz")
        return found | {key: hashlib.sha256(curves[key].tobytes()).hexdigest() for key in curves}
    found["eval_mean_reward"] = summary["eval_mean_reward"]
    found["episodes.csv"] = (folder / "episodes.csv").read_text()
    header = max(folder.glob("checkpoint/step-*")).read_bytes().split(b"\n", 2)[2]
    content, _ = json.JSONDecoder().raw_decode(header.decode("latin-1"))
    saved = content["tree"]["dict"]
    arrays, generators = [], []
    walk(saved["loop"]["dict"]["agent"], content["arrays"], arrays, generators)
    walk(saved["loop"]["dict"]["envs"], content["arrays"], arrays, generators)
    return found | {"arrays": sorted(arrays), "random numbers": sorted(generators)}


def walk(node: object, entries: list, arrays: list, generators: list) -> None:
    """Gather real arrays, torch's generators among them, and the states of NumPy's."""
    if isinstance(node, list):
        for part in node:
            walk(part, entries, arrays, generators)
    if not isinstance(node, dict):
        return
    if "array" in node:
        entry = entries[node["array"]]
        if entry["dtype"].startswith(("float", "uint")) and 0 not in entry["shape"]:
            arrays.append(f"{entry['dtype']} {entry['shape']} {entry['sha256']}")
        return
    named = node.get("dict", node)
    if "bit_generator" in named:
        generators.append(json.dumps(named, sort_keys=True))
        return
    for key, part in named.items():
        if key not in STORES:
            walk(part, entries, arrays, generators)


def main(old: str, new: str, *names: str) -> int:
    """Run the commands in both trees and say which are equal."""
    equal = 0
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        paths = [
            importable(Path(tree).resolve(), home / str(i)) for i, tree in enumerate([old, new])
        ]
        for name in names or COMMANDS:
            folders = [home / "runs" / str(i) for i in range(2)]
            one, other = (played(p, name, f) for p, f in zip(paths, folders, strict=True))
            differing = [key for key in one if one[key] != other.get(key)]
            equal += not differing
            print(
                f"{name}: {'differs in ' + ', '.join(differing) if differing else 'equal'}",
                flush=True,
            )
            shutil.rmtree(home / "runs")
    total = len(names or COMMANDS)
    print(f"{equal} of {total} equal")
    return 0 if equal == total else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
