"""What checkpoints cost: a run with and without them, and one save of a large agent.

`python benchmarks/checkpoints.py` prints the median share of wall time that saving takes at the
default interval (asked: at most 2 %), runs with and without alternating, and the median seconds of
saving an agent of a million weights with its optimisers' state (asked: at most 0.05). One thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from seqrl.agents import Reinforce
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.scripts.train import make_config, make_parser
from seqrl.training import Interaction, TensorBoard, run_to
from seqrl.training.runs.checkpointer import Checkpointer
from seqrl.training.runs.parts import build

PAIRS = 5
RUNS = {
    "q-learning, stepped": "--env FrozenLake-v1 --steps 300000 --no-compile",
    "q-learning, compiled": "--env FrozenLake-v1 --steps 30000000",
    "reinforce, mlp": "--agent reinforce --env CartPole-v1 --steps 60000 --num-envs 8",
    "reinforce, lstm": "--agent reinforce --env seqrl/RepeatFirst-v0 --network lstm "
    "--steps 40000 --num-envs 16",
}


def seconds(flags: str, folder: Path, with_checkpoints: bool) -> float:
    """Return the wall time of a run, its log included, with or without checkpoints."""
    argv = flags.split()
    config = make_config(make_parser(argv).read(argv))
    parts = build(config)
    loop = Interaction(parts.agent, parts.envs, compile=config["compile"])
    loop.reset(parts.streams.envs)
    loop.recorder = logger = TensorBoard(folder)
    if with_checkpoints:
        loop.callbacks.append(Checkpointer(folder, logger, config))
    began = time.perf_counter()
    run_to(loop, config["steps"], logger)
    spent = time.perf_counter() - began
    logger.close()
    return spent


def large_loop() -> tuple[Any, int]:
    """Return a loop whose agent has about a million weights, and their number."""
    envs = make("CartPole-v1", 8)
    space = envs.single_observation_space
    network = MLP(space, [704, 704])
    agent = Reinforce(network, envs.single_action_space, space, batch_episodes=4, seed=0)
    loop = Interaction(agent, envs)
    loop.run(2000)
    parts = agent.parts.values()
    return loop, sum(w.numel() for part in parts for w in part.module.parameters())


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    for name, flags in RUNS.items():
        shares = []
        for _ in range(PAIRS):
            with tempfile.TemporaryDirectory() as folder:
                without, with_ = (seconds(flags, Path(folder) / str(k), k) for k in (False, True))
            shares.append(with_ / without - 1)
        print(f"{name:<22} {statistics.median(shares):+7.2%} of {without:.1f} s  (asked 2 %)")
    loop, size = large_loop()
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(Path(folder), TensorBoard(folder), {"steps": 10**6}, every=1)
        spent = []
        for _ in range(15):
            began = time.perf_counter()
            checkpointer.save(loop)
            spent.append(time.perf_counter() - began)
    print(f"a save of {size:,} weights {statistics.median(spent):.4f} s  (asked 0.05)")


if __name__ == "__main__":
    main()
