"""How a tabular agent explores: epsilon-greedy and Boltzmann.

The arithmetic is plain functions over a table; `kind` says which exploration is meant, so that
one compiled loop serves both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from seqrl.agents.schedules import Rate, Schedule, linear, schedule
from seqrl.agents.tabular.table import (
    Actions,
    Active,
    best,
    greedy,
    greedy_at_random,
    ties,
    value,
)

EPSILON, TEMPERATURE, GREEDY = 0, 1, 2  # the last explores nothing, and draws nothing


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


def explore(
    kind: int,
    q: np.ndarray,
    active: Active,
    actions: Actions,
    rate: float,
    rng: np.random.Generator,
) -> int:
    """Draw an action from pi(.|s); `rate` is epsilon or the temperature."""
    if kind == TEMPERATURE:
        return sample_softmax(q, active, actions, rate, rng)
    if kind == GREEDY:
        return greedy(q, active, actions)
    if rng.random() < rate:
        return actions[int(rng.random() * len(actions))]
    return greedy_at_random(q, active, actions, rng)


def probability(
    kind: int, q: np.ndarray, active: Active, actions: Actions, action: int, rate: float
) -> float:
    """pi(a|s)."""
    if kind == TEMPERATURE:
        weight = softmax_weight(q, active, actions, action, rate)
        return weight / softmax_total(q, active, actions, rate)
    uniform = rate / len(actions)
    if value(q, active, action) < best(q, active, actions):
        return uniform
    return uniform + (1.0 - rate) / ties(q, active, actions)


def expected(kind: int, q: np.ndarray, active: Active, actions: Actions, rate: float) -> float:
    """Return sum_a pi(a|s) Q(s, a), the value of a state under the exploring policy."""
    total = 0.0
    if kind == TEMPERATURE:
        for action in actions:
            total += softmax_weight(q, active, actions, action, rate) * value(q, active, action)
        return total / softmax_total(q, active, actions, rate)
    for action in actions:
        total += value(q, active, action)
    return rate * total / len(actions) + (1.0 - rate) * best(q, active, actions)


def softmax_weight(
    q: np.ndarray, active: Active, actions: Actions, action: int, temperature: float
) -> float:
    """Return exp((Q(s,a) - max Q) / T); without the maximum it could overflow."""
    return math.exp((value(q, active, action) - best(q, active, actions)) / temperature)


def softmax_total(q: np.ndarray, active: Active, actions: Actions, temperature: float) -> float:
    """Return the sum of the weights of all actions."""
    total = 0.0
    for action in actions:
        total += softmax_weight(q, active, actions, action, temperature)
    return total


def sample_softmax(
    q: np.ndarray, active: Active, actions: Actions, temperature: float, rng: np.random.Generator
) -> int:
    """Draw an action in proportion to its weight."""
    left = rng.random() * softmax_total(q, active, actions, temperature)
    for action in actions:
        left -= softmax_weight(q, active, actions, action, temperature)
        if left < 0.0:
            return action
    return actions[len(actions) - 1]
