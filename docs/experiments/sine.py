"""The sine's three states: what a small Elman network says on its own after few and many steps.

The course report's recipe: windows of a few values, 5 units, weights of spread 0.3, a rate of 0.1,
one window at a time; then it goes on with what it said.
"""

from __future__ import annotations

import numpy as np
import torch
from report import draw, table

from seqrl.networks import RNN

PERIOD, UNITS, FREE = 20, 5, 200


def free_run(window: int, updates: int, seed: int = 0) -> np.ndarray:
    """Train as the report did; return the values said in a free run."""
    torch.manual_seed(seed)
    network, layer = RNN(1, UNITS, init=0.3), torch.nn.Linear(UNITS, 1)
    torch.nn.init.normal_(layer.weight, 0, 0.3)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD([*network.parameters(), *layer.parameters()], 0.1)
    wave = torch.sin(2 * torch.pi * torch.arange(1000) / PERIOD)
    start = torch.zeros(window, 1, dtype=torch.bool)

    def said(values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = layer(network(values[:, None, None], start)[0][-1])[0, 0]
        return found

    for at in torch.randint(len(wave) - window, (updates,)).tolist():
        loss = 0.5 * (said(wave[at : at + window]) - wave[at + window]) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    values = wave[:window]
    with torch.no_grad():
        for _ in range(FREE):
            values = torch.cat([values, said(values[-window:])[None]])
    return values[-FREE:].numpy()


def shape(values: np.ndarray) -> tuple[float, float]:
    """Return amplitude and period of the last half; NaN where nothing crosses the mean."""
    last = values[len(values) // 2 :]
    rising = np.flatnonzero(np.diff(np.sign(last - last.mean())) > 0)
    period = float(np.diff(rising).mean()) if len(rising) > 1 else float("nan")
    return float(np.ptp(last)) / 2, period


def main(seeds: int = 2) -> dict[str, tuple[float, float]]:
    """Train for 100, 500 and 3,000 updates; return amplitude and period."""
    cases = [(2, 100), (2, 500), (2, 3000), (5, 500), (5, 3000)]
    runs = {
        f"window {window}, {updates:,} updates, seed {seed}": free_run(window, updates, seed)
        for window, updates in cases
        for seed in range(seeds)
    }
    found = {name: shape(values) for name, values in runs.items()}
    table(["period 20", "amplitude", "period"], [(name, *both) for name, both in found.items()])
    shown = {
        name: (range(60), v[:60]) for name, v in runs.items() if "2," in name and "d 0" in name
    }
    draw(__file__, shown, "step of the free run", "value")
    return found


if __name__ == "__main__":
    main()
