"""Schemas of saved trees, checked before loading: a file may be damaged or untrusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from seqrl.core import tree
from seqrl.core.errors import UsageError, UserError, explain

Check = Callable[[str, Any], None]
MAX_COUNTER = 2**53  # the largest whole number that a float holds exactly
# raised by data that does not fit; the warning is NumPy's for a number that it cannot hold
LOAD_ERRORS: tuple[type[Exception], ...]
LOAD_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
LOAD_ERRORS += (RuntimeWarning,)


def check(name: str, saved: Any, expected: Any) -> None:
    """Raise UsageError, naming the entry, where a saved tree does not match the expected schema.

    A dict needs the same keys, a list or tuple the same length, an array or tensor the same dtype
    and shape, a number the same type: whole ones from 0 to 2^53, real ones finite. Text and None
    must be equal. A function in the schema is called with (name, saved) for any other check.
    """
    if callable(expected):
        expected(name, saved)
    elif hasattr(expected, "dtype"):
        check_array(name, saved, expected)
    elif type(saved) is not type(expected):
        refuse(name, saved, f"a {type(expected).__name__}")
    elif isinstance(expected, dict | list | tuple):
        check_entries(name, entries(saved), entries(expected))
    elif isinstance(expected, int | float):
        check_number(name, saved)
    elif saved != expected:
        refuse(name, saved, repr(expected))


def entries(tree: Any) -> dict[Any, Any]:
    """Return the entries of a node by key or index."""
    return tree if isinstance(tree, dict) else dict(enumerate(tree))


def check_entries(name: str, saved: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Raise UsageError for an entry that is missing, unknown or does not match its schema."""
    odd = [key for key in (*expected, *saved) if (key in expected) != (key in saved)]
    if odd:
        where = "missing" if odd[0] in expected else "unknown"
        refuse(f"{name}/{brief(odd[0])}", where, f"the {len(expected)} entries that this run has")
    for key, entry in expected.items():
        check(f"{name}/{key}", saved[key], entry)


def check_array(name: str, saved: Any, expected: Any) -> None:
    """Raise UsageError unless dtype and shape are the expected ones; a scalar must be finite."""
    if not hasattr(saved, "dtype"):
        refuse(name, saved, dtype_and_shape(expected))
    if dtype_and_shape(saved) != dtype_and_shape(expected):
        refuse(name, dtype_and_shape(saved), dtype_and_shape(expected))
    if saved.shape == ():
        check_number(name, saved.item())


def check_axes(axes: Sequence[int], count: int, name: str, saved: Any) -> None:
    """Raise UsageError unless the first `count` axes of every leaf are these, none empty."""
    for leaf in [*tree.leaves(saved)] or [None]:
        shape = tuple(getattr(leaf, "shape", ()))
        if len(axes) < count or 0 in axes or shape[:count] != tuple(axes[:count]):
            refuse(name, f"shape {list(shape)}", f"{count} first axes {list(axes[:count])}")


def check_number(name: str, saved: float) -> None:
    """Raise UsageError for a number that is not finite, or an int outside 0 to 2^53."""
    if isinstance(saved, float) and not math.isfinite(saved):
        refuse(name, saved, "a finite number")
    if isinstance(saved, int) and not 0 <= saved <= MAX_COUNTER:
        refuse(name, saved, "a whole number from 0 to 2^53")


def dtype_and_shape(array: Any) -> str:
    """Return the dtype and shape of an array or tensor as text, without the library's name."""
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"


def refuse(name: str, found: Any, expected: str, cause: Exception | None = None) -> NoReturn:
    """Raise a UsageError that names the entry."""
    raise UsageError(
        f"checkpoint entry {name}: {brief(found)}, expected {expected}; it is damaged, or of "
        "another agent or environment"
    ) from cause


def brief(found: Any) -> str:
    """Return an untrusted value as a short text in one line."""
    if isinstance(found, int) and abs(found) > MAX_COUNTER:
        return f"a whole number of {found.bit_length()} bits"
    if isinstance(found, dict | list | tuple) or hasattr(found, "dtype"):
        return f"a {type(found).__name__}"
    return "".join(c if c.isprintable() else "?" for c in str(found)[:100])


def anything(name: str, saved: Any) -> None:
    """Accept anything: the schema of an entry that is checked where it is loaded."""


def maybe(expected: Any) -> Check:
    """Return a check that accepts None or what matches the schema."""
    return lambda name, saved: None if saved is None else check(name, saved, expected)


def each(expected: Any, most: int | None = None) -> Check:
    """Return a check for a list, of at most `most` entries, that all match the schema."""

    def checked(name: str, saved: Any) -> None:
        if not isinstance(saved, list) or (most is not None and len(saved) > most):
            refuse(name, saved, f"a list of at most {most}" if most else "a list")
        check(name, saved, [expected] * len(saved))

    return checked


def named_floats(name: str, saved: Any) -> None:
    """Check a dict from text to real numbers."""
    check(name, saved, dict.fromkeys(saved, anything))
    for tag, number in saved.items():
        if not (isinstance(tag, str) and isinstance(number, float)):
            refuse(f"{name}/{brief(tag)}", number, "a real number")


def reals(*shape: int) -> Check:
    """Return a check for real numbers of a shape, all finite."""

    def checked(name: str, saved: Any) -> None:
        if "float" not in str(getattr(saved, "dtype", "")) or tuple(saved.shape) != shape:
            refuse(name, saved, f"float {list(shape)}")
        if not math.isfinite(abs(saved).sum()):
            refuse(name, "a number that is not finite", "finite ones")

    return checked


def whole(least: int, most: int, shape: tuple[int, ...] | None = None) -> Check:
    """Return a check for whole numbers (of a `shape`) from `least` to `most`."""

    def checked(name: str, saved: Any) -> None:
        expected = f"whole numbers from {least} to {most}"
        numbers = np.asarray(saved)
        if numbers.dtype.kind not in "iu" or (shape is not None and numbers.shape != shape):
            refuse(name, saved, expected)
        if numbers.size and not least <= numbers.min() <= numbers.max() <= most:
            refuse(name, f"{numbers.min()} to {numbers.max()}", expected)

    return checked


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn any error raised while a saved entry is loaded into a UsageError that names it."""
    try:
        yield
    except UserError:
        raise
    except LOAD_ERRORS as error:
        refuse(name, explain(error), "what this run would have saved", error)
