"""The cell's constant error: forget gates fixed at 1 and learnt, where long and short periods mix.

With the gate at 1 dc_T/dc_t through the cell is 1 however long it takes; but then nothing is
forgotten, and a wave that changes its period while it is watched disturbs what comes after.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from report import draw, table
from torch import Tensor

from seqrl.agents import Imitation, Optim
from seqrl.envs import make
from seqrl.networks import LSTM
from seqrl.training import evaluate, train

UNITS, STEPS = 32, 50


def lstm(fixed: bool) -> LSTM:
    """Return an LSTM whose forget gates stay at 1, or learn."""
    network = LSTM(1, UNITS, forget_bias=50.0 if fixed else 1.0)
    if fixed:
        for name, weight in network.layers[0].named_parameters():
            gate = slice(UNITS, 2 * UNITS)
            if name.startswith("weight"):
                weight.data[gate] = 0
            weight.register_hook(partial(without, gate))
    return network


def without(gate: slice, gradient: Tensor) -> Tensor:
    """Return a gradient that leaves a gate's weights as they are."""
    kept = gradient.clone()
    kept[gate] = 0
    return kept


def through_the_cell(network: LSTM) -> list[float]:
    """Return the mean of dc_T/dc_t along the cell alone, the product of the forget gates."""
    layer, x = network.layers[0], torch.sin(torch.arange(STEPS) / 10.0)[:, None, None]
    start, state, gates = torch.zeros(1, 1, dtype=torch.bool), network.initial_state(1), []
    with torch.no_grad():
        for value in x:
            inputs = layer.weight_ih @ value[0] + layer.weight_hh @ state[0][0, 0]
            gates.append(torch.sigmoid((inputs + layer.bias_ih + layer.bias_hh)[UNITS : 2 * UNITS]))
            _, state = network(value[None], start, state)
    return torch.stack(gates[::-1]).cumprod(0).mean(1).tolist()


def mixed(fixed: bool, updates: int = 250, seed: int = 0) -> float:
    """Return the RMSE at waves that change their period once while they are watched."""
    torch.manual_seed(seed)
    envs = make("seqrl/Waves-v0", 16, period=24, regimes=2, watch=48, judged=24, free=False)
    optim = Optim("linear:0.01:0", 1.0)
    agent = Imitation(lstm(fixed), envs.single_action_space, optim=optim, batch_size=16, seed=seed)
    train(agent, envs, steps=updates * 16 * 72, seed=seed)
    return math.sqrt(-evaluate(agent, envs, 64, seed=1).mean)


def main() -> dict[str, list[float]]:
    """Measure both; return the factor over 1, 10 and 50 steps, and the error."""
    found, curves = {}, {}
    for name, fixed in (("fixed at 1", True), ("learnt, bias 1", False)):
        torch.manual_seed(0)
        factors = through_the_cell(lstm(fixed))
        curves[name] = (range(1, STEPS + 1), factors)
        found[name] = [factors[0], factors[9], factors[49], mixed(fixed)]
    table(["forget gate", "1 step", "10 steps", "50 steps", "RMSE, two periods"], [
        (name, *numbers) for name, numbers in found.items()
    ])  # fmt: skip
    draw(__file__, curves, "T - t", "product of forget gates", log=True)
    return found


if __name__ == "__main__":
    main()
