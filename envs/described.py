"""Spaces as plain values that a text file can hold, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.errors import UsageError, explain


def described(space: Any) -> dict[str, Any]:
    """Return a space as names, numbers and lists; UsageError for one that is not of numbers."""
    found: dict[str, Any] = {"type": type(space).__name__}
    if isinstance(space, spaces.Dict):
        return found | {"parts": {str(key): described(part) for key, part in space.items()}}
    if isinstance(space, spaces.Tuple):
        return found | {"parts": [described(part) for part in space]}
    if isinstance(space, spaces.Box):
        found |= {"shape": list(space.shape), "dtype": str(space.dtype)}
        return found | {"low": shortest(space.low), "high": shortest(space.high)}
    if isinstance(space, spaces.Discrete):
        return found | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        found |= {"n": space.nvec.tolist(), "start": space.start.tolist()}
        return found | {"dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiBinary):
        return found | {"n": list(space.shape)}
    raise UsageError(f"space {space}: it cannot be recorded, expected one of numbers")


def shortest(bound: np.ndarray) -> Any:
    """Return a bound as one number where it is the same everywhere."""
    values = np.unique(bound)
    return values.item() if len(values) == 1 else bound.tolist()


def space_of(plain: Any) -> Any:
    """Return the space that `described` told; UsageError for what it would not tell."""
    try:
        return made(plain)
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"no description of a space: {explain(error)}") from error


def made(plain: dict[str, Any]) -> Any:
    """Return the space of a description."""
    kind = plain["type"]
    if kind == "Dict":
        return spaces.Dict({key: made(part) for key, part in plain["parts"].items()})
    if kind == "Tuple":
        return spaces.Tuple([made(part) for part in plain["parts"]])
    if kind == "Box":
        dtype = np.dtype(plain["dtype"])
        low, high = (np.full(plain["shape"], plain[end], dtype) for end in ("low", "high"))
        return spaces.Box(low, high, dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(plain["n"], start=plain["start"])
    if kind == "MultiDiscrete":
        dtype = np.dtype(plain["dtype"]).type
        return spaces.MultiDiscrete(np.array(plain["n"]), dtype, start=np.array(plain["start"]))
    if kind == "MultiBinary":
        n = plain["n"]
        return spaces.MultiBinary(n[0] if len(n) == 1 else n)
    raise ValueError(f"unknown type {kind!r}")
