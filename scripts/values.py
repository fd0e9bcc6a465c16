"""What is typed behind flags: numbers, names with values, wrappers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from seqrl.training.runs.defaults import AUTO, literal

EXACT = 2**53  # up to here a float is the very whole number that was typed


class Pair(argparse.Action):
    """A name with its value, among those of preset and file."""

    def __call__(self, parser: Any, namespace: Any, value: Any, flag: str | None = None) -> None:
        """Add it."""
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), **dict([value])})


class WrapperFlag(argparse.Action):
    """--wrapper and --wrapper-arg in the order typed; they replace those of preset and file."""

    def __call__(self, parser: Any, namespace: Any, value: Any, flag: str | None = None) -> None:
        """Add a wrapper, or an argument to the last one."""
        found = getattr(namespace, self.dest)
        if found is self.default:
            found = []
        if isinstance(value, str):
            found.append({"name": value, "args": {}})
        elif not found:
            raise argparse.ArgumentError(self, "name the --wrapper that takes it first")
        else:
            found[-1]["args"] |= dict([value])
        setattr(namespace, self.dest, found)


def wrapper_name(text: str) -> str:
    """Parse module:Class."""
    module, _, name = text.partition(":")
    if not (module and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r}, expected module:Class")
    return text


def converter(annotation: str) -> Callable[[str], Any]:
    """Return the function that converts a flag's text to the constructor's argument."""
    optional = annotation.endswith(" | None")
    converters = {"float": number, "int": whole_number, "Rate": number_or_text, "str": str}
    convert_text = converters.get(annotation.removesuffix(" | None"), literal)

    def convert(text: str) -> Any:
        return None if optional and text.lower() == "none" else convert_text(text)  # type: ignore[operator]

    convert.__name__ = getattr(convert_text, "__name__", "value")
    return convert


def whole_number(text: str) -> int:
    """Return an int, of 1e5 as well."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        found = float(text)
        if found.is_integer() and abs(found) <= EXACT:
            return int(found)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number")


def run_or_none(text: str) -> str | None:
    """Return a run's folder, None of "none"."""
    return None if text == "none" else text


def whole_or_auto(text: str) -> int | str:
    """Return an int, or "auto"."""
    return AUTO if text == AUTO else whole_number(text)


def number(text: str) -> float:
    """Return a float."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number") from None


def number_or_text(text: str) -> float | str:
    """Return a rate: a float where the text is one, else the text of a schedule."""
    try:
        return float(text)
    except ValueError:
        return text


def pair(text: str) -> tuple[str, Any]:
    """Parse k=v, with v a Python literal or a string."""
    name, _, value_text = text.partition("=")
    if not (name.isidentifier() and value_text):
        raise argparse.ArgumentTypeError(f"{text!r}, expected name=value")
    return name, literal(value_text)


PAIR: dict[str, Any] = {"action": Pair, "type": pair, "metavar": "K=V"}


def dimension_range(text: str) -> tuple[str, list[float]]:
    """Parse D=LOW:HIGH, the range of a dimension."""
    match = re.fullmatch(r"(\d+)=([^:]+):([^:]+)", text)
    try:
        if match:
            return str(int(match[1])), [float(match[2]), float(match[3])]
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: expected dimension=low:high, as in 1=-3:3")
