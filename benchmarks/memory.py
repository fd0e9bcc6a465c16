"""REINFORCE on tasks that need memory, by changing the network alone: steps and seconds a cell.

`python benchmarks/memory.py [task or network ...]` prints a line for each task and network: the
greedy score of 1,000 episodes, and when the training mean first reached 0.95. One thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys

import numpy as np
import torch

from seqrl.agents import Reinforce
from seqrl.core.seeding import Streams
from seqrl.envs import make
from seqrl.networks import build
from seqrl.training import Episode, Interaction, evaluate

BUDGET = 1_000_000
TMAZE = {"entropy_coef": 0.1, "learning_rate": "linear:0.002:0"}
TASKS = {
    "repeat-first": ("seqrl/RepeatFirst-v0", {}, {"gamma": 0.9, "learning_rate": "linear:0.01:0"}),
    "tmaze-10": ("seqrl/TMaze-v0", {"length": 10}, TMAZE),
    "tmaze-50": ("seqrl/TMaze-v0", {"length": 50}, TMAZE),
}
NETWORKS = ("mlp", "rnn", "lstm", "gru", "attention")


class Mark:
    """Notices when the mean of the last 100 episodes reaches a mark."""

    def __init__(self, mark: float):
        self.mark = mark
        self.at: tuple[int, float] | None = None

    def episode(self, loop: Interaction, episode: Episode) -> None:
        if self.at is None and len(loop.recent) == 100:
            if sum(total for total, _ in loop.recent) >= 100 * self.mark:
                self.at = loop.steps, loop.watch.seconds


def cell(task: str, network: str, seed: int = 0) -> str:
    env, env_args, numbers = TASKS[task]
    streams = Streams.of(seed)
    torch.manual_seed(seed)
    envs = make(env, num_envs=32, **env_args)
    spaces = envs.single_observation_space, envs.single_action_space
    extra = {"normalize": True} if "TMaze" in env else {}
    agent = Reinforce(
        build(network, spaces[0], **extra),
        spaces[1],
        spaces[0],
        batch_episodes=32,
        seed=streams.agent,
        **numbers,
    )
    agent.horizon = BUDGET // 2
    mark = Mark(0.95)
    loop = Interaction(agent, envs, recorder=mark)
    loop.reset(streams.envs)
    loop.run(BUDGET // 2)
    score = evaluate(agent, make(env, num_envs=50, **env_args), 1000, seed=1).mean
    reached = "never" if mark.at is None else f"{mark.at[0]:>9,} steps {mark.at[1]:6.1f} s"
    speed = loop.steps / loop.watch.seconds
    return f"{task:<13} {network:<10} greedy {score:6.3f}  0.95 at {reached}  {speed:,.0f} steps/s"


def main() -> None:
    torch.set_num_threads(1)
    words = sys.argv[1:]
    for task in [word for word in words if word in TASKS] or TASKS:
        for network in [word for word in words if word in NETWORKS] or NETWORKS:
            print(cell(task, network), flush=True)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
