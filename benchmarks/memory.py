"""Tasks that need memory, by changing the network alone: steps and seconds a cell.

`python benchmarks/memory.py [--agent NAME ...] [--task NAME ...] [--network NAME ...]` (and
`--seed N ...`) trains what `seqrl train` with these names trains, presets included, and prints a
line a cell: the greedy score of 1,000 episodes, and the env steps and CPU seconds after which 200
greedy episodes first scored 0.95 (they are played every 20,000 steps; the seconds are without
them). A run ends early when they score 0.999. One thread.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import torch

from seqrl.scripts import train
from seqrl.training import Interaction, evaluate
from seqrl.training.runs.parts import build, build_envs

NETWORKS = ("mlp", "rnn", "lstm", "gru", "attention")
BUDGET = {"reinforce": 1_000_000, "q-learning": 500_000}
TASKS = {
    "repeat-first": "--env seqrl/RepeatFirst-v0",
    "tmaze-10": "--env seqrl/TMaze-v0 --env-arg length=10",
    "tmaze-50": "--env seqrl/TMaze-v0 --env-arg length=50",
}
EVAL_EVERY = 20_000


class Cell(NamedTuple):
    """The result of one network on one task."""

    score: float  # of 1,000 greedy episodes
    steps: int
    seconds: float
    solved: str  # when 200 greedy episodes first scored 0.95


def cell(task: str, agent: str, network: str, seed: int) -> Cell:
    """Train one network on one task."""
    torch.set_num_threads(1)
    argv = f"{TASKS[task]} --agent {agent} --network {network} --seed {seed} --device cpu".split()
    config = train.make_config(train.make_parser(argv).read(argv))
    parts = build(config)
    parts.agent.horizon = BUDGET[agent]
    loop = Interaction(parts.agent, parts.envs)
    loop.reset(parts.streams.envs)
    eval_envs = build_envs({**config, "num_envs": 50})

    def greedy(episodes: int) -> float:
        return evaluate(parts.agent, eval_envs, episodes, seed=1).mean

    seconds, solved, score = 0.0, "never", 0.0
    while loop.steps < BUDGET[agent] and score < 0.999:
        began = time.process_time()
        loop.run(EVAL_EVERY)
        seconds += time.process_time() - began
        score = greedy(200)
        if solved == "never" and score >= 0.95:
            solved = f"{loop.steps:,} steps, {seconds:.1f} s"
    return Cell(greedy(1000), loop.steps, seconds, solved)


def main() -> None:
    """Print a line for each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", nargs="*", choices=BUDGET, default=list(BUDGET))
    parser.add_argument("--task", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--network", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seed", nargs="*", type=int, default=[0])
    args = parser.parse_args()
    for agent in args.agent:
        for task in args.task:
            for network in args.network:
                for seed in args.seed:
                    result = cell(task, agent, network, seed)
                    print(
                        f"{agent:<10} {task:<12} {network:<9} seed {seed:>2}  greedy "
                        f"{result.score:6.3f} after {result.steps:>9,} steps  "
                        f"{result.steps / result.seconds:>7,.0f} steps/s  0.95 at {result.solved}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
