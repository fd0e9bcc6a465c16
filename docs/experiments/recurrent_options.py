"""Keras's recurrent options on binary addition: units, activation, optimiser, dropout, loops."""

from __future__ import annotations

import time
from typing import Any

import torch
from report import draw, table

from seqrl.agents import Imitation, Optim
from seqrl.envs import make
from seqrl.networks import LSTM, RNN, Network
from seqrl.networks.layers import TanhLayer
from seqrl.training import evaluate, train

OPTIONS: dict[str, dict[str, Any]] = {
    "16 units, tanh, Adam": {},
    "128 units": {"units": 128},
    "relu": {"nonlinearity": "relu"},
    "sigmoid": {"nonlinearity": "sigmoid"},
    "SGD 0.1": {"optim": Optim(0.1, 1.0, optimizer="SGD")},
    "input dropout 0.5": {"input_dropout": 0.5},
    "recurrent dropout 0.3": {"recurrent_dropout": 0.3},
    "LSTM": {"kind": LSTM},
    "LSTM with peepholes": {"kind": LSTM, "peephole": True},
}


class Unrolled(TanhLayer):
    """The same layer, step by step in Python."""

    def run_fused(self, x: Any, memory: Any, weights: Any) -> Any:
        """Call the cell at every step."""
        outputs = []
        for value in x:
            memory = (torch._VF.rnn_tanh_cell(value, memory[0], *weights),)
            outputs.append(memory[0])
        return torch.stack(outputs), memory


def learned(updates: int, kind: Any = RNN, units: int = 16, **options: Any) -> tuple[float, float]:
    """Return the share of exact sums after some updates, and CPU milliseconds an update."""
    torch.manual_seed(0)
    optim = options.pop("optim", Optim(0.01, 1.0))
    network: Network = kind(2, units, **options)
    envs = make("seqrl/BinaryAddition-v0", num_envs=64)
    agent = Imitation(network, envs.single_action_space, optim=optim, batch_size=64, seed=0)
    began = time.process_time()
    train(agent, envs, steps=updates * 512, seed=0)
    spent = 1000 * (time.process_time() - began) / updates
    return evaluate(agent, envs, 512, seed=1).mean, spent


def unrolled(inputs: int, units: int) -> Network:
    """Return the recurrent network in a Python loop."""
    network = RNN(inputs, units)
    layer = network.layers[0]
    layer.__class__ = Unrolled
    return network


def main(updates: int = 250) -> dict[str, tuple[float, float]]:
    """Learn with every option; return exact sums and milliseconds."""
    found = {name: learned(updates, **options) for name, options in OPTIONS.items()}
    found["unrolled in Python"] = learned(updates, kind=unrolled)
    table([f"{updates} updates", "exact sums", "ms an update"], [
        (name, *numbers) for name, numbers in found.items()
    ])  # fmt: skip
    bars = {name: ([i], [share]) for i, (name, (share, _)) in enumerate(found.items())}
    draw(__file__, bars, "option", "exact sums", "o")
    return found


if __name__ == "__main__":
    main()
