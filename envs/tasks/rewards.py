"""How good a reply is beside the right one: N at once, in NumPy and on a device.

Replies are tokens [N, R], padded behind, with END where it was said. All rewards are at most that
of the right reply itself (see BEST).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from seqrl.core.checked import shown
from seqrl.core.errors import UsageError, explain
from seqrl.core.named_code import named_object
from seqrl.core.tokens import END, PAD
from seqrl.core.types import Array
from seqrl.envs.draws import pick

ORDERS = 4  # of BLEU: the longest stretches of tokens that are compared


def exact(xp: Any, said: Array, right: Array) -> Array:
    """Return 1 where the reply is the right one with its END, else 0."""
    return (said == right).all(1)


def accuracy(xp: Any, said: Array, right: Array) -> Array:
    """Return the share of right tokens, END included, of the places of the longer reply."""
    places = (said != PAD) | (right != PAD)
    return as_real(xp, ((said == right) & places).sum(1)) / as_real(xp, places.sum(1))


def bleu(xp: Any, said: Array, right: Array) -> Array:
    """Return the BLEU of each reply, from 0 to 1, END left out.

    Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation", of one
    sentence and one reference, up to stretches of 4 tokens; smoothed as Lin and Och 2004, "ORANGE:
    a method for evaluating automatic evaluation metrics for machine translation", section 4: one
    is added to what matches and to all there is, of stretches of 2 and more.
    """
    said, right = said * (said != END), right * (right != END)
    length, wanted = (as_real(xp, (x != PAD).sum(1)) for x in (said, right))
    there = (said != PAD)[:, :, None]
    same_token, match_token = ((said[:, :, None] == x[:, None, :]) & there for x in (said, right))
    place = xp.arange(said.shape[1], device=said.device)
    earlier = place[None, :] < place[:, None]  # [i, k]
    same, match, total = (
        same_token,
        match_token,
        xp.minimum(0 * length, 1 - wanted / at_least_1(length)),
    )
    for order in range(1, ORDERS + 1):
        if order > 1:
            same = same[:, :-1, :-1] & same_token[:, order - 1 :, order - 1 :]
            match = match[:, :-1, :-1] & match_token[:, order - 1 :, order - 1 :]
        size = same.shape[1]
        # each stretch counts as often as the right reply has it: by its number among its like
        number, often = (same & earlier[:size, :size]).sum(2), match.sum(2)
        found = as_real(xp, (number < often).sum(1))
        if order == 1:
            any_found = found > 0
        one = float(order > 1)
        share = (found + one) / at_least_1((length - order + 1).clip(min=0) + one)
        total = total + xp.log(share.clip(min=1e-9)) / ORDERS
    return xp.where(any_found, xp.exp(total), 0.0)


def edit(xp: Any, said: Array, right: Array) -> Array:
    """Return minus the edit distance, END left out.

    The least number of tokens to insert, delete and change (Levenshtein 1966), row by row of the
    table of Wagner and Fischer 1974.
    """
    said, right = said * (said != END), right * (right != END)
    length, wanted = (said != PAD).sum(1), (right != PAD).sum(1)
    size = said.shape[1]
    column = xp.arange(size + 1, device=said.device)
    row = column + 0 * length[:, None]  # from nothing said to the first tokens of the right one
    distance = 1 * wanted
    for i in range(1, size + 1):
        changed = row[:, :-1] + (said[:, i - 1 : i] != right)
        above = xp.concatenate([row[:, :1] + 1, xp.minimum(changed, row[:, 1:] + 1)], 1)
        row = least_so_far(xp, above - column) + column  # insertions, along the row
        distance = xp.where(length == i, pick(xp, row, wanted), distance)
    return -distance


def least_so_far(xp: Any, rows: Array) -> Array:
    """Return the running minimum along each row [N, K]."""
    return np.minimum.accumulate(rows, 1) if xp is np else rows.cummin(1).values


def as_real(xp: Any, counts: Array) -> Array:
    """Return whole numbers as float64."""
    return xp.asarray(counts, dtype=xp.float64)


def at_least_1(numbers: Array) -> Array:
    """Return the numbers, 1 where they are less."""
    return numbers.clip(min=1)


Reward = Callable[[Any, Array, Array], Array]
REWARDS: dict[str, Reward] = {"exact": exact, "accuracy": accuracy, "bleu": bleu, "edit": edit}
BEST = {"exact": 1.0, "accuracy": 1.0, "bleu": 1.0, "edit": 0.0}  # of the right reply itself


def check_reward(name: Any) -> None:
    """Refuse what is neither the name of a reward nor a function of the user's."""
    if not (name in REWARDS or (isinstance(name, str) and ":" in name)):
        known = ", ".join(REWARDS)
        raise UsageError(f"reward {name!r}: expected one of {known}, or module:function")


@cache
def own_function(name: str) -> Callable[[list[str], list[str]], Any]:
    """Return the function of the user's behind `module:function`; UsageError where there is none.

    It takes a reply and the right one, each a list of words, and returns a number.
    """
    function = named_object(name, f"reward {name!r}", "module:function")
    if not callable(function):
        raise UsageError(f"reward {name!r}: expected a function, got {type(function).__name__}")
    return function


def by_function(name: str, said: list[list[str]], right: list[list[str]]) -> np.ndarray:
    """Return what a function of the user's says of each reply, float64 [N]."""
    function = own_function(name)
    found = [judged_by(function, name, *pair) for pair in zip(said, right, strict=True)]
    return np.array(found, np.float64)


def judged_by(function: Callable[..., Any], name: str, said: list[str], right: list[str]) -> Any:
    """Return what a function of the user's says of a reply; UsageError unless it is a number."""
    given = f"{shown(said)} where {shown(right)} is right"
    try:
        number = function(said, right)
    except Exception as error:  # whatever code of the user's may do
        raise UsageError(f"reward {name} failed: {explain(error)}; it was given {given}") from error
    if not (isinstance(number, int | float | np.number) and math.isfinite(number)):
        what = f"returned {shown(number)}, expected a finite number"
        raise UsageError(f"reward {name} {what}; it was given {given}")
    return number
