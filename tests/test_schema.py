"""What a saved tree has to look like: accepted, or refused with the place of what is wrong."""

import numpy as np
import pytest
import torch

from seqrl.core import RunError, UsageError, schema

FORM = {
    "steps": 0,
    "rate": 0.0,
    "on": False,
    "kind": "PCG64",
    "none": None,
    "q": np.zeros((2, 3)),
    "pair": (0, [0.0]),
    "maybe": schema.maybe(0),
    "recent": schema.each([0.0, 0], 2),
    "rows": schema.whole(0, 4),
    "reward": schema.reals(2),
    "free": schema.anything,
}
SAVED = {
    "steps": 7,
    "rate": -0.5,
    "on": True,
    "kind": "PCG64",
    "none": None,
    "q": np.full((2, 3), np.nan),
    "pair": (2**53, [1e300]),
    "maybe": None,
    "recent": [[1.5, 3]],
    "rows": np.array([[0], [4]]),
    "reward": np.array([0.5, -1], np.float32),
    "free": object(),
}


def test_a_tree_of_the_form_is_taken():
    schema.check("x", SAVED, FORM)
    schema.check("x", {**SAVED, "maybe": 3, "recent": []}, FORM)
    schema.check("x", {**SAVED, "rows": np.zeros((0, 9), np.uint8)}, FORM)


def test_tensors_and_arrays_are_alike():
    schema.check("x", np.zeros(2, np.float32), torch.zeros(2))
    with pytest.raises(UsageError, match=r"entry x: float64 \[2\], expected float32 \[2\]"):
        schema.check("x", np.zeros(2), torch.zeros(2))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("steps", -1, "x/steps: -1, expected a whole number from 0"),
        ("steps", 2**53 + 1, "x/steps: a whole number of 54 bits"),
        ("steps", True, "x/steps: True, expected a int"),
        ("steps", 1.0, "x/steps: 1.0, expected a int"),
        ("steps", np.zeros(()), "x/steps: a ndarray, expected a int"),
        ("rate", float("inf"), "x/rate: inf, expected a finite number"),
        ("rate", 1, "x/rate: 1, expected a float"),
        ("on", 1, "x/on: 1, expected a bool"),
        ("kind", "MT19937", "x/kind: MT19937, expected 'PCG64'"),
        ("kind", "a\nb", r"x/kind: a\?b, expected 'PCG64'"),
        ("none", 0, "x/none: 0, expected a NoneType"),
        ("q", np.zeros((3, 2)), r"x/q: float64 \[3, 2\], expected float64 \[2, 3\]"),
        ("q", [[0.0] * 3] * 2, r"x/q: a list, expected float64 \[2, 3\]"),
        ("pair", (1, [float("nan")]), "x/pair/1/0: nan"),
        ("pair", (1, []), "x/pair/1/0: missing"),
        ("pair", (1, [1.0], 5), "x/pair/2: unknown"),
        ("pair", [1, [1.0]], "x/pair: a list, expected a tuple"),
        ("maybe", -1, "x/maybe: -1"),
        ("recent", [[1.0, 1]] * 3, "x/recent: a list, expected a list of at most 2"),
        ("recent", [[1.0, 1], [1.0, 1.0]], "x/recent/1/1: 1.0, expected a int"),
        ("rows", np.array([0, 5]), "x/rows: 0 to 5, expected whole numbers from 0 to 4"),
        ("rows", np.array([1.0]), "x/rows: a ndarray"),
        ("reward", np.zeros(3), r"x/reward: a ndarray, expected float \[2\]"),
        ("reward", np.array([0, np.nan]), "x/reward: a number that is not finite"),
        ("more", 1, "x/more: unknown, expected the 12 entries"),
    ],
)
def test_what_is_wrong_is_named(key, value, message):
    with pytest.raises(UsageError, match=f"checkpoint entry {message}"):
        schema.check("x", {**SAVED, key: value}, FORM)


def test_what_is_missing_is_named():
    for key in SAVED:
        with pytest.raises(UsageError, match=f"entry x/{key}: missing"):
            schema.check("x", {k: v for k, v in SAVED.items() if k != key}, FORM)


def test_whatever_goes_wrong_on_the_way_in_names_the_entry():
    with pytest.raises(UsageError, match="entry x: KeyError: 'q', expected"), schema.loading("x"):
        {}["q"]
    with pytest.raises(RunError, match="another"), schema.loading("x"):
        raise RunError("another")
    with pytest.raises(KeyboardInterrupt), schema.loading("x"):
        raise KeyboardInterrupt
