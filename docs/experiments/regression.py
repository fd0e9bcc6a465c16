"""Regression: a line under noise 0, 1 and 3 beside least squares, and a curve at two rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from report import draw, table

from seqrl.agents import Imitation, Optim
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import train


def fitted(
    updates: int, rate: float | str, hidden: tuple[int, ...] = (), batch: int = 256, **options: Any
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the rows (x, y) of a set and the function that was learned from them."""
    envs = make("seqrl/Samples-v0", num_envs=batch, **options)
    spaces = envs.single_action_space, envs.single_observation_space
    torch.manual_seed(0)
    network, optim = MLP(spaces[1], hidden), Optim(rate, 1.0)
    agent = Imitation(network, *spaces, optim=optim, batch_size=batch, seed=0)
    train(agent, envs, steps=batch * updates, seed=0)

    def learned(x: np.ndarray) -> np.ndarray:
        seen = np.asarray(x, np.float32)[:, None]
        said: np.ndarray = agent.act(seen, np.ones(len(seen), bool), explore=False).action
        return said[:, 0]

    x, y = envs.envs.task.data
    return x[:, 0], y[:, 0], learned


def main() -> dict[str, list[float]]:
    """Fit everything; return slopes and intercepts, learned and by least squares."""
    found, curves = {}, {}
    for noise in (0.0, 1.0, 3.0):
        x, y, learned = fitted(600, "linear:0.03:0", set="line", noise=noise)
        at_0, at_1 = learned(np.array([0.0, 1.0]))
        found[f"noise {noise:g}"] = [at_1 - at_0, at_0, *np.polyfit(x.astype(float), y, 1)]
        curves[f"noise {noise:g}"] = (np.array([0, 1]), np.array([at_0, at_1]))
    table(["", "slope", "intercept", "least squares: slope", "intercept"], [
        (name, *numbers) for name, numbers in found.items()
    ])  # fmt: skip
    errors = []
    for rate in (0.001, 0.1):
        x, y, learned = fitted(300, rate, (64,), 64, set="curve")
        errors.append((f"curve, rate {rate:g}", float(np.mean((learned(x) - y) ** 2))))
    table(["300 updates", "mean squared error"], errors)
    draw(__file__, curves, "x", "y")
    return {**found, **{name: [error] for name, error in errors}}


if __name__ == "__main__":
    main()
