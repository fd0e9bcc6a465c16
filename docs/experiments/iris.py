"""Irises: a third of them is held out; tanh and sigmoid units, Adam and plain gradient descent."""

from __future__ import annotations

import statistics

import numpy as np
import torch
from report import draw, table

from seqrl.agents import Imitation, Optim
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import train

CASES = {  # activation, optimiser, learning rate
    "Tanh, Adam": ("Tanh", "Adam", "linear:0.01:0"),
    "ReLU, SGD 0.1": ("ReLU", "SGD", 0.1),
    "Sigmoid, SGD 0.1": ("Sigmoid", "SGD", 0.1),
}


def accuracy(case: str, split: int, steps: int = 30_000, points: int = 10) -> list[float]:
    """Return the share of the held-out flowers that are named right, after each part of a run."""
    activation, optimizer, rate = CASES[case]
    options = {"set": "iris", "data_seed": split}
    envs = make("seqrl/Samples-v0", num_envs=64, part="train", **options)
    shown, value = make("seqrl/Samples-v0", num_envs=2, part="test", **options).envs.task.data
    spaces = envs.single_action_space, envs.single_observation_space
    torch.manual_seed(split)
    network = MLP(spaces[1], 16, activation=activation, normalize=True)
    agent = Imitation(network, *spaces, optim=Optim(rate, 1.0, optimizer=optimizer), seed=split)
    agent.horizon, found = steps, []
    for point in range(points):
        train(agent, envs, steps=steps // points, seed=100 * split + point)
        said = agent.act(shown, np.ones(len(shown), bool), explore=False).action
        found.append(float((said == value).mean()))
    return found


def main(splits: int = 5) -> dict[str, float]:
    """Train on every split; return the median of the held-out accuracies."""
    curves = {case: [accuracy(case, split) for split in range(splits)] for case in CASES}
    found = {case: statistics.median(run[-1] for run in runs) for case, runs in curves.items()}
    rows = [
        (case, runs[0][0], *(run[-1] for run in runs), found[case]) for case, runs in curves.items()
    ]
    splits_named = [f"split {i}" for i in range(splits)]
    table(["", "split 0 after a tenth", *splits_named, "median"], rows)
    draw(
        __file__,
        {case: (range(1, 11), np.mean(runs, 0)) for case, runs in curves.items()},
        "tenths of 30,000 flowers shown",
        "held-out accuracy",
    )
    return found


if __name__ == "__main__":
    main()
