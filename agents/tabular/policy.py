"""How a tabular agent explores: epsilon-greedy and Boltzmann.

The arithmetic is plain functions over a table; `kind` says which exploration is meant, so that
one compiled loop serves both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from seqrl.agents.schedules import Rate, Schedule, linear, schedule
from seqrl.agents.tabular.table import Active, best, greedy_at_random, ties, value

EPSILON, TEMPERATURE = 0, 1


class Exploration(NamedTuple):
    """A kind of exploration with its schedule; made by `EpsilonGreedy` or `Boltzmann`."""

    kind: int
    rate: Schedule


def EpsilonGreedy(epsilon: Rate = linear(1.0, 0.05, 0.5)) -> Exploration:
    """With probability epsilon any action, else one of the highest value (Sutton & Barto, 2.2)."""
    return Exploration(EPSILON, schedule("epsilon", epsilon))


def Boltzmann(temperature: Rate = 1.0) -> Exploration:
    """pi(a|s) = exp(Q(s,a)/T) / sum_b exp(Q(s,b)/T) (Sutton & Barto, eq. 13.2 with Q/T)."""
    return Exploration(TEMPERATURE, schedule("temperature", temperature, *POSITIVE))


POSITIVE = (1e-100, 1e100)  # so that Q / T stays finite


def explore(kind: int, q: np.ndarray, active: Active, rate: float, rng: np.random.Generator) -> int:
    """Draw an action from pi(.|s); `rate` is epsilon or the temperature."""
    if kind == TEMPERATURE:
        return sample_softmax(q, active, rate, rng)
    if rng.random() < rate:
        return int(rng.random() * q.shape[1])
    return greedy_at_random(q, active, rng)


def probability(kind: int, q: np.ndarray, active: Active, action: int, rate: float) -> float:
    """pi(a|s)."""
    if kind == TEMPERATURE:
        return softmax_weight(q, active, action, rate) / softmax_total(q, active, rate)
    uniform = rate / q.shape[1]
    if value(q, active, action) < best(q, active):
        return uniform
    return uniform + (1.0 - rate) / ties(q, active)


def expected(kind: int, q: np.ndarray, active: Active, rate: float) -> float:
    """Return sum_a pi(a|s) Q(s, a), the value of a state under the exploring policy."""
    total = 0.0
    if kind == TEMPERATURE:
        for action in range(q.shape[1]):
            total += softmax_weight(q, active, action, rate) * value(q, active, action)
        return total / softmax_total(q, active, rate)
    for action in range(q.shape[1]):
        total += value(q, active, action)
    return rate * total / q.shape[1] + (1.0 - rate) * best(q, active)


def softmax_weight(q: np.ndarray, active: Active, action: int, temperature: float) -> float:
    """Return exp((Q(s,a) - max Q) / T); without the maximum it could overflow."""
    return math.exp((value(q, active, action) - best(q, active)) / temperature)


def softmax_total(q: np.ndarray, active: Active, temperature: float) -> float:
    """Return the sum of the weights of all actions."""
    total = 0.0
    for action in range(q.shape[1]):
        total += softmax_weight(q, active, action, temperature)
    return total


def sample_softmax(
    q: np.ndarray, active: Active, temperature: float, rng: np.random.Generator
) -> int:
    """Draw an action in proportion to its weight."""
    left = rng.random() * softmax_total(q, active, temperature)
    for action in range(q.shape[1] - 1):
        left -= softmax_weight(q, active, action, temperature)
        if left < 0.0:
            return action
    return q.shape[1] - 1
