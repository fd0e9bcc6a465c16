"""Restricted Boltzmann machines by contrastive divergence, and a deep belief net made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from report import draw, table

from seqrl.agents import Imitation, Optim
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import train

DIGITS = {"set": "digits", "size": 2000}


class Machine(NamedTuple):
    """Weights [V, H] between visible and hidden units, and their biases."""

    weight: np.ndarray
    visible: np.ndarray
    hidden: np.ndarray

    def up(self, v: np.ndarray) -> np.ndarray:
        """Return P(h = 1 | v) [N, H]."""
        return 1 / (1 + np.exp(-(v @ self.weight + self.hidden)))

    def down(self, h: np.ndarray) -> np.ndarray:
        """Return P(v = 1 | h) [N, V]."""
        return 1 / (1 + np.exp(-(h @ self.weight.T + self.visible)))

    def error(self, v: np.ndarray) -> float:
        """Return the mean squared error of what comes back from the hidden units."""
        return float(((self.down(self.up(v)) - v) ** 2).mean())


def begin(shown: np.ndarray, hidden: int, rng: np.random.Generator) -> Machine:
    """Return a machine that has seen nothing but the mean of the rows."""
    mean = shown.mean(0).clip(0.01, 0.99)
    weight = 0.01 * rng.standard_normal((shown.shape[1], hidden))
    return Machine(weight, np.log(mean / (1 - mean)), np.zeros(hidden))


def contrast(
    machine: Machine, v: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the direction of CD-1 (Hinton 2002): what there is, less what comes back in one step.

    Hidden units are drawn, visible ones are the chances (Hinton 2010, section 3).
    """
    h = machine.up(v)
    back = machine.down(rng.random(h.shape) < h)
    again = machine.up(back)
    return (v.T @ h - back.T @ again) / len(v), (v - back).mean(0), (h - again).mean(0)


def learn(
    shown: np.ndarray, hidden: int, *, epochs: int = 30, rate: float = 0.1, seed: int = 0
) -> tuple[Machine, list[float]]:
    """Return a machine that has learned rows from 0 to 1, and its error after every epoch."""
    rng = np.random.default_rng(seed)
    machine, speed, errors = begin(shown, hidden, rng), [0.0, 0.0, 0.0], []
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(shown)), len(shown) // 20):
            found = contrast(machine, shown[rows], rng)
            speed = [0.9 * s + rate * x for s, x in zip(speed, found, strict=True)]
            machine = Machine(*(x + s for x, s in zip(machine, speed, strict=True)))
        errors.append(machine.error(shown))
    return machine, errors


def stack(shown: np.ndarray, sizes: Sequence[int], epochs: int, seed: int) -> list[Machine]:
    """Return a deep belief net: each machine learns what the one below says (Hinton 2006)."""
    machines = []
    for hidden in sizes:
        machine, _ = learn(shown, hidden, epochs=epochs, seed=seed)
        machines.append(machine)
        shown = machine.up(shown)
    return machines


def through(machines: Sequence[Machine], v: np.ndarray) -> float:
    """Return the error of what comes back from the top of a stack."""
    h = v
    for machine in machines:
        h = machine.up(h)
    for machine in reversed(machines):
        h = machine.down(h)
    return float(((h - v) ** 2).mean())


def components(shown: np.ndarray, others: np.ndarray, count: int) -> float:
    """Return the error of so many principal components of the first rows, on the others."""
    mean = shown.mean(0)
    axes = np.linalg.svd(shown - mean, full_matrices=False)[2][:count]
    back = (others - mean) @ axes.T @ axes + mean
    return float(((back - others) ** 2).mean())


def accuracy(machines: Sequence[Machine], sizes: Sequence[int], labels: int, seed: int) -> float:
    """Return the share of held-out digits that are named right, after so many with a label.

    A network of sigmoid layers begins with the machines' weights, where there are some, and all of
    it is then trained by imitation.
    """
    envs = make("seqrl/Samples-v0", num_envs=64, part="train", **DIGITS, held_out=1 - labels / 2000)
    test = make("seqrl/Samples-v0", num_envs=2, part="test", **DIGITS).envs.task.data
    spaces = envs.single_action_space, envs.single_observation_space
    torch.manual_seed(seed)
    network = MLP(spaces[1], tuple(sizes), activation="Sigmoid", init="xavier")
    linear = [layer for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    for layer, machine in zip(linear, machines, strict=False):
        layer.weight.data = torch.tensor(machine.weight.T, dtype=torch.float32)
        layer.bias.data = torch.tensor(machine.hidden, dtype=torch.float32)
    optim = Optim("linear:0.01:0", 1.0)
    agent = Imitation(network, *spaces, optim=optim, seed=seed)
    train(agent, envs, steps=30_000, seed=seed)
    said = agent.act(test[0], np.ones(len(test[0]), bool), explore=False).action
    return float((said == test[1]).mean())


def main(epochs: int = 30, seeds: int = 5, labels: int = 100) -> dict[str, float]:
    """Learn the digits of a part without labels, look at others; then name digits."""
    rows = {
        part: make("seqrl/Samples-v0", num_envs=2, part=part, **DIGITS).envs.task.data[0]
        for part in ("train", "test")
    }
    shown, others = (rows[part].astype(float) for part in ("train", "test"))
    machine, curve = learn(shown, 64, epochs=epochs)
    sizes = (64, 32, 16)
    net = stack(shown, sizes, epochs, seed=0)
    found = {
        "mean image": float(((others - shown.mean(0)) ** 2).mean()),
        "RBM, 64 units": machine.error(others),
        "DBN, 64, 32, 16 units": through(net, others),
        "PCA, 16 components": components(shown, others, 16),
    }
    named = [(s, accuracy(stack(shown, sizes, epochs, s), sizes, labels, s)) for s in range(seeds)]
    fresh = [accuracy([], sizes, labels, seed) for seed in range(seeds)]
    found |= {"named, from a DBN": float(np.mean([x for _, x in named]))}
    found |= {"named, from scratch": float(np.mean(fresh))}
    table(["", "error or share"], [(name, value) for name, value in found.items()])
    table(
        ["seed", "from a DBN", "from scratch"],
        [(s, x, y) for (s, x), y in zip(named, fresh, strict=True)],
    )
    curves = {"RBM, digits that are learned": (range(1, epochs + 1), curve)}
    curves["mean image"] = (range(1, epochs + 1), [found["mean image"]] * epochs)
    draw(__file__, curves, "passes over the digits", "mean squared error")
    return found


if __name__ == "__main__":
    main()
