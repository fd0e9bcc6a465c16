"""How a tabular agent explores: epsilon-greedy and Boltzmann.

The arithmetic is plain functions over a table; `kind` says which exploration is meant, so that
one compiled loop serves both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from seqrl.agents.schedules import Rate, Schedule, linear, schedule
from seqrl.agents.tables import Rows, best, greedy_at_random, ties, value

EPSILON, TEMPERATURE = 0, 1


class Exploration(NamedTuple):
    """A kind and its rate over the run; made by `EpsilonGreedy` or `Boltzmann`."""

    kind: int
    rate: Schedule


def EpsilonGreedy(epsilon: Rate = linear(1.0, 0.05, 0.5)) -> Exploration:
    """With probability epsilon any action, else one of the highest value (Sutton & Barto, 2.2)."""
    return Exploration(EPSILON, schedule("epsilon", epsilon))


def Boltzmann(temperature: Rate = 1.0) -> Exploration:
    """pi(a|s) = exp(Q(s,a)/T) / sum_b exp(Q(s,b)/T) (Sutton & Barto, eq. 13.2 with Q/T)."""
    return Exploration(TEMPERATURE, schedule("temperature", temperature, *POSITIVE))


POSITIVE = (1e-100, 1e100)  # so that Q / T stays finite


def explore(kind: int, q: np.ndarray, rows: Rows, rate: float, rng: np.random.Generator) -> int:
    """Draw an action from pi(.|s)."""
    if kind == TEMPERATURE:
        return sample_softmax(q, rows, rate, rng)
    if rng.random() < rate:
        return int(rng.random() * q.shape[1])
    return greedy_at_random(q, rows, rng)


def probability(kind: int, q: np.ndarray, rows: Rows, action: int, rate: float) -> float:
    """pi(a|s)."""
    if kind == TEMPERATURE:
        return softmax_weight(q, rows, action, rate) / softmax_total(q, rows, rate)
    uniform = rate / q.shape[1]
    if value(q, rows, action) < best(q, rows):
        return uniform
    return uniform + (1.0 - rate) / ties(q, rows)


def expected(kind: int, q: np.ndarray, rows: Rows, rate: float) -> float:
    """sum_a pi(a|s) Q(s, a): what a state is worth while exploring."""
    total = 0.0
    if kind == TEMPERATURE:
        for action in range(q.shape[1]):
            total += softmax_weight(q, rows, action, rate) * value(q, rows, action)
        return total / softmax_total(q, rows, rate)
    for action in range(q.shape[1]):
        total += value(q, rows, action)
    return rate * total / q.shape[1] + (1.0 - rate) * best(q, rows)


def softmax_weight(q: np.ndarray, rows: Rows, action: int, temperature: float) -> float:
    """exp((Q(s,a) - max Q) / T): the maximum is taken off so that nothing overflows."""
    return math.exp((value(q, rows, action) - best(q, rows)) / temperature)


def softmax_total(q: np.ndarray, rows: Rows, temperature: float) -> float:
    """The sum of the weights of all actions."""
    total = 0.0
    for action in range(q.shape[1]):
        total += softmax_weight(q, rows, action, temperature)
    return total


def sample_softmax(q: np.ndarray, rows: Rows, temperature: float, rng: np.random.Generator) -> int:
    """An action drawn by its weight."""
    left = rng.random() * softmax_total(q, rows, temperature)
    for action in range(q.shape[1] - 1):
        left -= softmax_weight(q, rows, action, temperature)
        if left < 0.0:
            return action
    return q.shape[1] - 1
