"""Checks of arguments; what does not fit raises a UsageError that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from seqrl.core.errors import UsageError

NO_BOUND = 1e30  # a bound from here on, float32's end included, tells nothing of the units


def has_bounds(space: Any) -> np.ndarray:
    """Return where a Box's numbers have two bounds, bool of its shape."""
    ends = np.maximum(abs(space.low), abs(space.high)).astype(np.float64)  # a float16 ends before
    found: np.ndarray = (ends < NO_BOUND) & (space.low < space.high)
    return found


def own_units(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and half width of a Box's numbers, float32; 0 and 1 where not bounded."""
    bounded = has_bounds(space)
    ends = (x.astype(np.float64) for x in (space.low, space.high))  # a float16 has no room
    low, high = (np.where(bounded, x, free) for x, free in zip(ends, (-1.0, 1.0), strict=True))
    return ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least `least`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise UsageError(f"{name} {value!r}: expected a whole number of at least {least}")


def is_real(value: Any) -> bool:
    """Return whether a value is one real number, True and False left out."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def check_amount(name: str, value: Any, least: float = 0.0) -> None:
    """Refuse what is not a finite number of at least `least`."""
    if not (is_real(value) and least <= value < math.inf):
        bound = f"number of at least {least:g}" if least > -math.inf else "finite number"
        raise UsageError(f"{name} {value!r}: expected a {bound}")


def check_unit(name: str, value: Any) -> None:
    """Refuse what is not a number from 0 to 1."""
    if not (is_real(value) and 0 <= value <= 1):  # NaN fails as well
        raise UsageError(f"{name} {value!r}: expected a number from 0 to 1")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} {value!r}: expected True or False")


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse what is not one of the known names."""
    if value not in known:
        raise UsageError(f"{name} {value!r}: expected one of {', '.join(known)}")


def check_parts(space: Any, fits: Callable[[Any], bool], expected: str) -> None:
    """Refuse an observation space that is, or holds by some key, a part that does not fit."""
    for key, part in parts_by_key(space):
        if not fits(part):
            what = f"key {key!r} is {type(part).__name__}" if key else type(part).__name__
            leave = "--wrapper seqrl.envs:Mask --wrapper-arg"
            remedy = f"; {leave} hide={key} leaves it out" if key else ""
            raise UsageError(f"observation space: {what}, {expected}{remedy}")


def parts_by_key(space: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the parts of nested Dict and Tuple spaces with their keys, as a/b."""
    inner: Any = getattr(space, "spaces", None)
    if type(space).__name__ not in ("Dict", "Tuple"):
        yield key, space
        return
    for name, part in inner.items() if isinstance(inner, dict) else enumerate(inner):
        yield from parts_by_key(part, f"{key}/{name}" if key else str(name))


def check_numbers(name: str, space: Any) -> None:
    """Refuse a space of no numbers; `name` says whether they are observed or chosen."""
    if not numbers_of(space):
        text = "expected at least one number, as in Discrete(1)"
        raise UsageError(f"{name} space {' '.join(str(space).split())} has nothing in it: {text}")


def numbers_of(space: Any) -> int:
    """Return how many numbers a member of a space has; 1 for what is of no shape, such as Graph."""
    parts = getattr(space, "spaces", None)
    if parts is not None:
        return sum(map(numbers_of, parts.values() if isinstance(parts, dict) else parts))
    return 1 if space.shape is None else math.prod(space.shape)
