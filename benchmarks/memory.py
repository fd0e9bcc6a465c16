"""REINFORCE on tasks that need memory, by changing the network alone: steps and seconds a cell.

`python benchmarks/memory.py [--env NAME ...] [--network NAME ...] [--seed N ...]` trains each cell
for at most a million env steps and prints a line for it: the greedy score of 1,000 episodes, when
the mean of the last 100 training episodes first reached 0.95, and the speed. One setting a task,
the same for all networks. A run ends early once that mean is above 0.98 and 200 greedy episodes
are without a fault. One thread; seconds are those of the process, without evaluation.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from seqrl.agents import Reinforce
from seqrl.core.seeding import Streams
from seqrl.envs import make
from seqrl.networks import build
from seqrl.training import Episode, Interaction, evaluate

BUDGET, ENVS = 1_000_000, 32
NETWORKS = ("mlp", "rnn", "lstm", "gru", "attention")


class Task(NamedTuple):
    """An environment and the one setting for it."""

    env: str
    env_args: dict[str, Any]
    network_args: dict[str, Any]
    numbers: dict[str, Any]


# Actions of RepeatFirst change nothing but their own reward, so gamma is 0: what is left to the
# network is memory alone. In TMaze, while walking is learned the junction's action must not follow
# the corridor's to "right", and then both arms must stay open until memory is learned: hence the
# high entropy bonus that falls late, and the slow steps. gamma is low enough for the walk to be
# paid at once, and high enough for the goal to widen the returns' spread along the corridor, so
# that one bonus fits both.
TMAZE = {
    "gamma": 0.75,
    "entropy_coef": "exponential:0.3:0.01:0.6",
    "learning_rate": "linear:0.0012:0",
    "value_passes": 8,
}
TASKS = {
    "repeat-first": Task(
        "seqrl/RepeatFirst-v0", {}, {}, {"gamma": 0.0, "learning_rate": "linear:0.003:0"}
    ),
    "tmaze-10": Task("seqrl/TMaze-v0", {"length": 10}, {"normalize": True}, TMAZE),
    "tmaze-50": Task("seqrl/TMaze-v0", {"length": 50}, {"normalize": True}, TMAZE),
}


class Mark:
    """Notices when the mean of the last 100 episodes reaches a mark."""

    def __init__(self, mark: float):
        self.mark = mark
        self.began, self.at = time.process_time(), ""

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """One more episode is over."""
        if not self.at and recent(loop) >= self.mark:
            seconds = time.process_time() - self.began
            self.at = f"{loop.steps:>9,} steps {seconds:6.1f} s"


def recent(loop: Interaction) -> float:
    """The mean of the last 100 training episodes; -inf while there are fewer."""
    if len(loop.recent) < 100:
        return -np.inf
    return sum(total for total, _ in loop.recent) / 100


def cell(name: str, network: str, seed: int) -> str:
    """Train one network on one task; a line with what came of it."""
    task, streams = TASKS[name], Streams.of(seed)
    torch.manual_seed(seed)
    envs = make(task.env, num_envs=ENVS, **task.env_args)
    space, actions = envs.single_observation_space, envs.single_action_space
    built = build(network, space, **task.network_args)
    agent = Reinforce(
        built, actions, space, batch_episodes=ENVS, seed=streams.agent, device="cpu", **task.numbers
    )
    agent.horizon = BUDGET
    mark = Mark(0.95)
    loop = Interaction(agent, envs, recorder=mark)
    loop.reset(streams.envs)

    def greedy(episodes: int) -> float:
        apart = make(task.env, num_envs=50, **task.env_args)
        return evaluate(agent, apart, episodes, seed=1).mean

    while loop.steps < BUDGET:
        loop.run(BUDGET // 10)
        if recent(loop) > 0.98 and greedy(200) > 0.999:
            break
    speed = loop.steps / loop.watch.seconds
    return (
        f"{name:<13} {network:<10} seed {seed}  greedy {greedy(1000):6.3f} after "
        f"{loop.steps:>9,} steps  0.95 at {mark.at or 'never':<24} {speed:,.0f} steps/s"
    )


def main() -> None:
    """Print a line for each cell."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--network", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seed", nargs="*", type=int, default=[0])
    args = parser.parse_args()
    for name in args.env:
        for network in args.network:
            for seed in args.seed:
                print(cell(name, network, seed), flush=True)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
