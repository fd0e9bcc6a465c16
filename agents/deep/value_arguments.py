"""The numbers of a value agent: what follows its target, and what they may be."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.tabular.policy import EpsilonGreedy
from seqrl.core import UsageError

# what differs between the targets; everything else has one default
DEFAULTS: dict[str, dict[str, Any]] = {
    "q-learning": {
        "learning_rate": "linear:0.001:0",
        "exploration": EpsilonGreedy("linear:1:0.05:0.2"),
        "n_step": 3,
        "loss": "squared",  # huber is a median: where values are 100, rare falls count too little
        "batch_size": 64,
        "train_every": 4,
        "updates": 1,
        "buffer_size": 50_000,
        "learning_starts": 1_000,
        "target_every": 100,
    },
    "sarsa": {
        "learning_rate": "linear:0.002:0",
        "exploration": EpsilonGreedy("linear:1:0.05:0.5"),
        "n_step": 64,
        "loss": "squared",
        "batch_size": 64,
        "train_every": 64,
        "updates": 4,
        "buffer_size": 0,
        "learning_starts": 0,
        "target_every": 0,
    },
    "monte-carlo": {
        "learning_rate": "linear:0.002:0",
        "exploration": EpsilonGreedy("linear:1:0.05:0.5"),
        "n_step": 1,
        "loss": "squared",
        "batch_size": 64,
        "train_every": 200,
        "updates": 2,
        "buffer_size": 0,
        "learning_starts": 0,
        "target_every": 0,
    },
}
LOSSES = ("huber", "squared")
AT_LEAST = dict.fromkeys(("n_step", "batch_size", "train_every", "updates", "sequence_length"), 1)
AT_LEAST |= dict.fromkeys(("buffer_size", "learning_starts", "target_every", "burn_in"), 0)


class TargetArguments(NamedTuple):
    """What the values are moved towards, and how far."""

    target: str  # "q-learning", "sarsa" or "monte-carlo"
    kind: int  # of exploration
    gamma: float
    n_step: int
    expected: bool
    double: bool
    loss: str
    rescale: bool
    burn_in: int
    first_action: int  # of the environment
    max_grad_norm: float


class UpdateArguments(NamedTuple):
    """What is learned from, how much of it and how often."""

    batch_size: int
    train_every: int
    updates: int
    buffer_size: int
    learning_starts: int
    target_every: int
    target_rate: float
    priority: float
    sequence_length: int
    stored_state: bool


def settled(target: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """The numbers, those that are None as the target has them; refuses what cannot be."""
    if target not in DEFAULTS:
        raise UsageError(f"target {target!r}: expected one of {', '.join(DEFAULTS)}")
    own = {**numbers, **{n: x for n, x in DEFAULTS[target].items() if numbers[n] is None}}
    for name, least in AT_LEAST.items():
        number = own[name]
        if not isinstance(number, int | np.integer) or number < least:
            raise UsageError(f"{name} {number!r}: expected a whole number of at least {least}")
    for name in ("gamma", "priority", "target_rate"):
        if not 0 <= own[name] <= 1:  # NaN fails as well
            raise UsageError(f"{name} {own[name]}: expected a number from 0 to 1")
    if not 0 < own["max_grad_norm"] < math.inf:
        raise UsageError(f"max_grad_norm {own['max_grad_norm']}: expected a number above 0")
    if own["loss"] not in LOSSES:
        raise UsageError(f"loss {own['loss']!r}: expected one of {', '.join(LOSSES)}")
    if own["buffer_size"] and target != "q-learning":
        raise UsageError(f"buffer_size {own['buffer_size']}: {target} learns on policy, expected 0")
    if own["priority"] and not own["buffer_size"]:
        raise UsageError("priority: there is no replay to draw from, give a buffer_size")
    return own
