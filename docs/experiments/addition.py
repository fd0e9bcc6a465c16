"""Adding binary numbers: the sweep of the course report, by its own recipe, 15 cells of 4 seeds.

No biases, sigmoid outputs, squared error, gradient descent on one sum at a time. The networks of a
row are trained side by side. `python docs/experiments/addition.py [ITERATIONS]`
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from report import draw, table
from torch import Tensor

SEEDS, BITS, SUMS = 4, 8, 128 * 128


class Cell(NamedTuple):
    """A cell of the sweep."""

    name: str
    spread: float = 1.0  # of the weights at first; 0 for 1 / sqrt(inputs), -1 for sqrt(2 / inputs)
    rate: float = 0.1


XAVIER, HE = 0.0, -1.0
GROUPS = [
    (16, "sigmoid", [
        Cell("as it is"), Cell("spread 0.9", 0.9), Cell("spread 0.1", 0.1), Cell("spread 3", 3.0),
        Cell("rate 0.5", rate=0.5), Cell("rate 0.01", rate=0.01),
        Cell("Xavier", XAVIER), Cell("He", HE),
    ]),
    (80, "sigmoid", [Cell("80 units")]),
    (8, "sigmoid", [Cell("8 units")]),
    (16, "tanh", [Cell("tanh"), Cell("tanh, Xavier", XAVIER)]),
    (16, "relu", [Cell("relu"), Cell("relu, He", HE), Cell("relu, He, rate 0.01", HE, 0.01)]),
]  # fmt: skip
ACTIVATIONS = {  # and the slopes, from what they gave
    "sigmoid": (torch.sigmoid, lambda z: z * (1 - z)),
    "tanh": (torch.tanh, lambda z: 1 - z * z),
    "relu": (torch.relu, lambda z: (z > 0).float()),
}
FIRST, SECOND = (x.flatten() for x in torch.meshgrid(*[torch.arange(128)] * 2, indexing="ij"))
PLACE = torch.arange(BITS)
SHOWN = torch.stack([FIRST[:, None] >> PLACE & 1, SECOND[:, None] >> PLACE & 1], -1).float()
ANSWER = (FIRST + SECOND)[:, None] >> PLACE & 1  # [16384, 8]


def weights(cells: list[Cell], hidden: int, rng: torch.Generator) -> list[Tensor]:
    """Return W_in [R, 2, H], W [R, H, H] and W_out [R, H, 1] of all networks."""
    made = []
    for inputs, outputs in ((2, hidden), (hidden, hidden), (hidden, 1)):
        spreads = {XAVIER: inputs**-0.5, HE: (2 / inputs) ** 0.5}
        each = torch.tensor([spreads.get(cell.spread, cell.spread) for cell in cells])
        drawn = torch.randn(len(cells) * SEEDS, inputs, outputs, generator=rng)
        made.append(drawn * each.repeat_interleave(SEEDS)[:, None, None])
    return made


def forward(x: Tensor, w: list[Tensor], kind: str) -> tuple[list[Tensor], Tensor]:
    """Return the hidden layers from 0 on, each [R, B, H], and the outputs [R, B, 8]."""
    function, _ = ACTIVATIONS[kind]
    z = [x.new_zeros(len(x), x.shape[1], w[1].shape[1])]
    for t in range(BITS):
        z.append(function(torch.baddbmm(x[:, :, t] @ w[0], z[-1], w[1])))
    seen = torch.stack(z[1:], 2)
    return z, torch.sigmoid(seen.flatten(1, 2) @ w[2]).view(seen.shape[:3])


def descend(x: Tensor, y: Tensor, w: list[Tensor], kind: str, rate: Tensor) -> None:
    """Take a step along the gradient of half the squared error: back through time, by hand."""
    z, out = forward(x, w, kind)
    slope = ACTIVATIONS[kind][1](torch.stack(z[1:]))  # [8, R, 1, H]
    delta_out = (out - y) * out * (1 - out)  # [R, 1, 8]
    back = delta_out.transpose(1, 2) @ w[2].transpose(1, 2)  # [R, 8, H]
    delta, deltas, across = None, [], w[1].transpose(1, 2)
    for t in reversed(range(BITS)):
        behind = back[:, t, None]
        delta = slope[t] * (behind if delta is None else torch.baddbmm(behind, delta, across))
        deltas.append(delta)
    delta = torch.cat(deltas[::-1], 1)  # [R, 8, H]
    before, after = torch.cat(z[:-1], 1), torch.cat(z[1:], 1)
    w[0] -= rate * (x[:, 0].transpose(1, 2) @ delta)
    w[1] -= rate * (before.transpose(1, 2) @ delta)
    w[2] -= rate * (after.transpose(1, 2) @ delta_out.transpose(1, 2))


def exact(w: list[Tensor], kind: str) -> Tensor:
    """Return the share of all sums [R] that have every bit right."""
    found = []
    for part in zip(*(x.split(4) for x in w), strict=True):
        out = forward(SHOWN.expand(len(part[0]), -1, -1, -1), list(part), kind)[1]
        found.append(((out > 0.5) == ANSWER.bool()).all(-1).float().mean(1))
    return torch.cat(found)


def sweep(iterations: int = 10_000) -> dict[str, list[float]]:
    """Return the share of exact sums of each cell's seeds."""
    found: dict[str, list[float]] = {}
    for hidden, kind, cells in GROUPS:
        rng = torch.Generator().manual_seed(1)
        w = weights(cells, hidden, rng)
        rate = torch.tensor([cell.rate for cell in cells]).repeat_interleave(SEEDS)[:, None, None]
        for i in range(1, iterations + 1):
            at = torch.randint(SUMS, (len(rate),), generator=rng)
            descend(SHOWN[at][:, None], ANSWER[at][:, None].float(), w, kind, rate)
            if i % 2000 == 0 and i < 10_000:
                torch.randperm(SUMS, generator=rng)
        for cell, part in zip(cells, exact(w, kind).split(SEEDS), strict=True):
            found[cell.name] = part.tolist()
    return found


REPORTED = {  # by a first run of the same recipe: the mean of 4 seeds after 10,000 sums
    "as it is": 1.0,
    "spread 0.9": 0.96,
    "spread 0.1": 0.005,
    "spread 3": 0.43,
    "rate 0.5": 1.0,
    "rate 0.01": 0.06,
    "80 units": 1.0,
    "8 units": 0.94,
    "Xavier": 1.0,
    "He": 1.0,
    "tanh": 0.14,
    "tanh, Xavier": 1.0,
    "relu": 0.0,
    "relu, He": 0.65,
    "relu, He, rate 0.01": 0.85,
}


def main(iterations: int = 10_000) -> dict[str, list[float]]:
    """Train every cell; print and draw the shares of exact sums."""
    found = sweep(iterations)
    rows = [(name, *shares, sum(shares) / SEEDS, REPORTED[name]) for name, shares in found.items()]
    table(["", *(f"seed {i}" for i in range(SEEDS)), "mean", "first run"], rows)
    curves = {name: ([i] * SEEDS, shares) for i, (name, shares) in enumerate(found.items())}
    draw(__file__, curves, "cell", "share of exact sums", "o")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
