"""Gates: what a network with and without a hidden layer says to OR, AND and XOR."""

from __future__ import annotations

import numpy as np
import torch
from report import draw, table

from seqrl.agents import Imitation, Optim
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import train

ROWS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int8)
TRUTH = {"or": ROWS.any(1), "and": ROWS.all(1), "xor": ROWS.sum(1) == 1}


def learned(gate: str, hidden: tuple[int, ...] = (), updates: int = 500) -> np.ndarray:
    """Return the chance of a 1 that is learned for each of the four rows."""
    envs = make("seqrl/Gates-v0", num_envs=64, gate=gate)
    spaces = envs.single_action_space, envs.single_observation_space
    torch.manual_seed(0)
    agent = Imitation(MLP(spaces[1], hidden), *spaces, optim=Optim("linear:0.1:0", 1.0), seed=0)
    train(agent, envs, steps=64 * updates, seed=0)
    with torch.no_grad():
        out, _ = agent.policy.act(ROWS, np.ones(4, bool), None)
    odds: np.ndarray = np.exp(out[:, 1] - out[:, 0])
    return odds / (1 + odds)


def batches_of_ten(epochs: int) -> np.ndarray:
    """Return what plain descent at 0.01 makes of OR where 4 rows are one batch of each epoch."""
    weights, x = np.zeros(3), np.column_stack([ROWS, np.ones(4)])
    for _ in range(epochs):
        weights += 0.01 * x.T @ (TRUTH["or"] - 1 / (1 + np.exp(-x @ weights))) / 4
    chance: np.ndarray = 1 / (1 + np.exp(-x @ weights))
    return chance


def main() -> dict[str, np.ndarray]:
    """Learn every gate; print and draw what was learned."""
    found = {gate: learned(gate) for gate in TRUTH}
    found["xor, 4 hidden units"] = learned("xor", (4,))
    found |= {f"or, {n:,} epochs of one update": batches_of_ten(n) for n in (300, 10_000)}
    rows = [(name, *chance.round(2), right(name, chance)) for name, chance in found.items()]
    table(["", "0 0", "0 1", "1 0", "1 1", "right"], rows)
    draw(__file__, {name: (range(4), chance) for name, chance in found.items()}, "row", "P(1)", "o")
    return found


def right(name: str, chance: np.ndarray) -> float:
    """Return the share of the rows whose likelier bit is right; a half where neither is."""
    sure = abs(chance - 0.5) > 0.05
    same = (chance > 0.5) == TRUTH[name.partition(",")[0]]
    return float(np.where(sure, same, 0.5).mean())


if __name__ == "__main__":
    main()
