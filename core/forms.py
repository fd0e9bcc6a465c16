"""What a saved tree has to look like before it is taken in: it may be damaged, or anybody's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from seqrl.core.errors import UsageError, UserError, explain

Check = Callable[[str, Any], None]
LARGEST = 2**53  # of a counter: what a float still holds exactly
# what a misfit leads to; the warning is NumPy's of a number that it cannot hold
MISFITS: tuple[type[Exception], ...]
MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
MISFITS += (RuntimeWarning,)


def check(name: str, saved: Any, form: Any) -> None:
    """Refuse a saved tree that is not of this form (UsageError with the entry's place in it).

    A dict has the same keys, a list or tuple the same length, an array the dtype and shape of the
    form's array or tensor, a number the form's type: whole ones from 0 to 2^53, real ones finite.
    Text and None are the form's. What is more than that is a function of (name, saved) in the form.
    """
    if callable(form):
        form(name, saved)
    elif hasattr(form, "dtype"):
        check_array(name, saved, form)
    elif type(saved) is not type(form):
        refuse(name, saved, f"a {type(form).__name__}")
    elif isinstance(form, dict | list | tuple):
        check_parts(name, parts(saved), parts(form))
    elif isinstance(form, int | float):
        check_number(name, saved)
    elif saved != form:
        refuse(name, saved, repr(form))


def parts(tree: Any) -> dict[Any, Any]:
    """The parts of a node by key or number."""
    return tree if isinstance(tree, dict) else dict(enumerate(tree))


def check_parts(name: str, saved: dict[Any, Any], form: dict[Any, Any]) -> None:
    """Refuse a part that is missing, too much, or not of its form."""
    odd = [key for key in (*form, *saved) if (key in form) != (key in saved)]
    if odd:
        where = "missing" if odd[0] in form else "unknown"
        refuse(f"{name}/{brief(odd[0])}", where, f"the {len(form)} entries that this run has")
    for key, part in form.items():
        check(f"{name}/{key}", saved[key], part)


def check_array(name: str, saved: Any, form: Any) -> None:
    """Refuse what is no array of the form's dtype and shape; one number alone has to be finite."""
    if not hasattr(saved, "dtype"):
        refuse(name, saved, described(form))
    if described(saved) != described(form):
        refuse(name, described(saved), described(form))
    if saved.shape == ():
        check_number(name, saved.item())


def check_number(name: str, saved: float) -> None:
    """Refuse what a counter, a size or a mean cannot be."""
    if isinstance(saved, float) and not math.isfinite(saved):
        refuse(name, saved, "a finite number")
    if isinstance(saved, int) and not 0 <= saved <= LARGEST:
        refuse(name, saved, "a whole number from 0 to 2^53")


def described(array: Any) -> str:
    """The dtype and shape of an array or tensor, in the same words."""
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"


def refuse(name: str, found: Any, expected: str, cause: Exception | None = None) -> NoReturn:
    """Raise the UsageError that names the entry."""
    raise UsageError(
        f"checkpoint entry {name}: {brief(found)}, expected {expected}; it is damaged, or of "
        "another agent or environment"
    ) from cause


def brief(found: Any) -> str:
    """A value, which may be anybody's, as a short text in one line."""
    if isinstance(found, int) and abs(found) > LARGEST:
        return f"a whole number of {found.bit_length()} bits"
    if isinstance(found, dict | list | tuple) or hasattr(found, "dtype"):
        return f"a {type(found).__name__}"
    return "".join(c if c.isprintable() else "?" for c in str(found)[:100])


def anything(name: str, saved: Any) -> None:
    """The form of what is looked at where it is taken in."""


def maybe(form: Any) -> Check:
    """The form, or None."""
    return lambda name, saved: None if saved is None else check(name, saved, form)


def each(form: Any, most: int | None = None) -> Check:
    """A list of any length, or of at most `most`, with every part of the form."""

    def checked(name: str, saved: Any) -> None:
        if not isinstance(saved, list) or (most is not None and len(saved) > most):
            refuse(name, saved, f"a list of at most {most}" if most else "a list")
        check(name, saved, [form] * len(saved))

    return checked


def named_floats(name: str, saved: Any) -> None:
    """The form of a dict from text to real numbers."""
    check(name, saved, dict.fromkeys(saved, anything))
    for tag, number in saved.items():
        if not (isinstance(tag, str) and isinstance(number, float)):
            refuse(f"{name}/{brief(tag)}", number, "a real number")


def reals(n: int) -> Check:
    """N real numbers, all finite."""

    def checked(name: str, saved: Any) -> None:
        if "float" not in str(getattr(saved, "dtype", "")) or tuple(saved.shape) != (n,):
            refuse(name, saved, f"float [{n}]")
        if not math.isfinite(abs(saved).sum()):
            refuse(name, "a number that is not finite", "finite ones")

    return checked


def whole(least: int, most: int, shape: tuple[int, ...] | None = None) -> Check:
    """A whole number, or an array of such (of a `shape`), from `least` to `most`."""

    def checked(name: str, saved: Any) -> None:
        wrong = f"whole numbers from {least} to {most}"
        numbers = np.asarray(saved)
        if numbers.dtype.kind not in "iu" or (shape is not None and numbers.shape != shape):
            refuse(name, saved, wrong)
        if numbers.size and not least <= numbers.min() <= numbers.max() <= most:
            refuse(name, f"{numbers.min()} to {numbers.max()}", wrong)

    return checked


@contextmanager
def taking(name: str) -> Iterator[None]:
    """Whatever goes wrong while a saved entry is taken in is laid at its door (UsageError)."""
    try:
        yield
    except UserError:
        raise
    except MISFITS as error:
        refuse(name, explain(error), "what this run would have saved", error)
