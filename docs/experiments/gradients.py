"""Vanishing and exploding gradients: the size of dh_T/dh_t in networks as they begin."""

from __future__ import annotations

import numpy as np
import torch
from report import draw, table
from torch import Tensor

from seqrl.networks import GRU, LSTM, RNN, Network

STEPS, UNITS, INPUTS = 60, 16, 4


def networks() -> dict[str, Network]:
    """Return what is compared."""
    return {
        "RNN sigmoid, spread 1": RNN(INPUTS, UNITS, nonlinearity="sigmoid", init=1.0),
        "RNN tanh, spread 0.1": RNN(INPUTS, UNITS, init=0.1),
        "RNN tanh, orthogonal": RNN(INPUTS, UNITS, init="orthogonal"),
        "RNN identity, spread 0.5": RNN(INPUTS, UNITS, nonlinearity="identity", init=0.5),
        "GRU": GRU(INPUTS, UNITS),
        "GRU, keep bias 4": GRU(INPUTS, UNITS, keep_bias=4.0),
        "LSTM, forget bias 1": LSTM(INPUTS, UNITS),
        "LSTM, forget bias 4": LSTM(INPUTS, UNITS, forget_bias=4.0),
    }


def sizes(network: Network, seed: int = 0) -> np.ndarray:
    """Return the spectral norm of dm_T/dm_t for t = 0 .. T, m the memory (of an LSTM the cell)."""
    rng = torch.Generator().manual_seed(seed)
    x, start = torch.randn(STEPS, 1, 1, INPUTS, generator=rng), torch.zeros(1, 1, dtype=torch.bool)
    state, memories = network.initial_state(1), list[Tensor]()
    for step in range(STEPS + 1):
        parts = state if isinstance(state, tuple) else (state,)
        memory = parts[-1].requires_grad_() if step == 0 else parts[-1]
        memories.append(memory)
        state = (*parts[:-1], memory) if len(parts) > 1 else memory
        if step < STEPS:
            _, state = network(x[step], start, state)
    each = torch.eye(UNITS).view(UNITS, *memories[-1].shape)
    found = torch.autograd.grad(memories[-1], memories, each, is_grads_batched=True)
    return np.array([torch.linalg.matrix_norm(g.view(UNITS, UNITS), 2).item() for g in found])


def main() -> dict[str, np.ndarray]:
    """Measure all; print and draw the sizes."""
    torch.manual_seed(0)
    found = {name: sizes(network) for name, network in networks().items()}
    lags = 1, 5, 20, STEPS
    table(["T - t", *map(str, lags)], [
        (name, *(norm[STEPS - lag] for lag in lags)) for name, norm in found.items()
    ])  # fmt: skip
    back = range(STEPS, -1, -1)
    draw(__file__, {n: (back, norm) for n, norm in found.items()}, "T - t", "size", log=True)
    return found


if __name__ == "__main__":
    main()
