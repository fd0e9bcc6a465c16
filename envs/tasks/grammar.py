"""Grammars of tree tasks: words with a value, and operators that make one of others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

OPERATORS_ON = 2  # values at most


class Grammar(NamedTuple):
    """Leaves and operators, and what an operator makes of the values below it."""

    leaves: tuple[str, ...]  # the leaf i is worth `worth[i]`
    worth: np.ndarray  # int64
    operators: tuple[str, ...]
    takes: np.ndarray  # int64: how many values, 1 or 2
    values: int  # there are 0 to values - 1
    makes: np.ndarray  # int64 [operators, values, values], of the first and the second value


def table(rule: object, values: int) -> np.ndarray:
    """Return what a function of two values makes, [values, values]."""
    each = range(values)
    return np.array([[rule(a, b) for b in each] for a in each])  # type: ignore[operator]


def arithmetic(values: int = 5) -> Grammar:
    """Return sums, differences and products modulo 5."""
    digits = tuple(map(str, range(values)))
    rules = (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b)
    makes = np.stack([table(rule, values) % values for rule in rules])
    takes = np.array([2, 2, 2])
    return Grammar(digits, np.arange(values), ("+", "-", "*"), takes, values, makes)


def sentences() -> Grammar:
    """Return phrases from very bad, 0, to very good, 4.

    "not" turns round, "very" goes to the end of its side, of "a but b" what comes last counts, and
    "a and b" is as bad as the worse.
    """
    leaves = ("awful", "dull", "plain", "nice", "great")
    rules = (
        lambda a, b: 4 - a,
        lambda a, b: 0 if a < 2 else 4 if a > 2 else 2,
        lambda a, b: b,
        min,
    )
    makes = np.stack([table(rule, 5) for rule in rules])
    takes = np.array([1, 1, 2, 2])
    return Grammar(leaves, np.arange(5), ("not", "very", "but", "and"), takes, 5, makes)


GRAMMARS = {"arithmetic": arithmetic(), "sentences": sentences()}
