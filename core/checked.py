"""Constructors that refuse, in one line, arguments that they have not and values of no use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from seqrl.core.errors import UsageError, closest

T = TypeVar("T")
NUMBERS = int | float | np.integer | np.floating
# by the annotation: the types that fit, and what they are called
KINDS: dict[str, tuple[Any, str]] = {
    "float": (NUMBERS, "a number"),
    "int": (int | np.integer, "a whole number"),
    "bool": (bool | np.bool_, "True or False"),
    "str": (str, "a text"),
}
HUGEST = {"float": 10**300, "int": 2**53}  # beyond, whole numbers are no floats, or none exactly


def checked(init: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that looks at its arguments first; a UsageError names what is wrong."""
    signature = inspect.signature(init)
    parameters = signature.parameters
    # not of *args and **kwargs, nor of the seed, which has more kinds than an agent may say
    gathered = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    single = {name: x for name, x in parameters.items() if x.kind not in gathered}
    annotations = {name: x.annotation for name, x in single.items() if name != "seed"}

    @wraps(init)
    def checking(self: Any, *args: Any, **given: Any) -> None:
        try:
            bound = signature.bind(self, *args, **given)
        except TypeError as error:
            raise UsageError(misfit(type(self), signature, given, error)) from error
        chosen = {n: x for n, x in bound.arguments.items() if x is not parameters[n].default}
        check_values(annotations, chosen)
        for name, value in chosen.items():
            check_part(name, value, parameters[name].default)
            if value is not None or "None" not in str(annotations.get(name)):
                check_space(name, value)
        init(self, *args, **given)

    return checking


def checked_part(cls: type[T]) -> type[T]:
    """Return an argument class (see `Optim`) whose constructor is `checked`."""
    cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
    return cls


def misfit(
    cls: Any, signature: inspect.Signature, given: Mapping[str, Any], error: TypeError
) -> str:
    """Return why arguments do not fit a signature: the first unknown name, with what was meant."""
    known = signature.parameters
    for name in given:
        if name in known:
            continue
        for owner, parameter in known.items():
            if name in fields_of(owner, parameter.default):
                kind = {"epsilon": "EpsilonGreedy", "temperature": "Boltzmann"}.get(name, "")
                kind = f"{kind}(...)" if kind else f"{type(parameter.default).__name__}({name}=...)"
                return f"{cls.__name__} has no argument {name}: it is given in {owner}={kind}"
        others = list(known)[1:]
        hint = closest(name, others) or f" It has {', '.join(others)}"
        return f"{cls.__name__} has no argument {name}.{hint}"
    return f"{cls.__name__}: {error}"


def check_part(name: str, value: Any, default: Any) -> None:
    """Refuse what is no instance of the argument class, or the exploration, that is the default."""
    if not fields_of(name, default) or isinstance(value, type(default)):
        return
    expected = f"{type(default).__name__}({', '.join(fields_of(name, default))})"
    if name == "exploration":
        expected = "EpsilonGreedy(epsilon) or Boltzmann(temperature)"
    raise UsageError(f"{name} {shown(value)}: expected {expected}")


def check_space(name: str, value: Any) -> None:
    """Refuse what is neither a space, where one is expected, nor made of one as an index is."""
    there = hasattr(value, "contains") or hasattr(value, "space")
    if name in ("observation_space", "action_space") and (isinstance(value, type) or not there):
        raise UsageError(f"{name} {shown(value)}: expected a Gymnasium space, as in Discrete(2)")


def fields_of(name: str, default: Any) -> list[str]:
    """Return what an argument class (see `Optim`), or an exploration, is made of."""
    if name == "exploration" and default is not inspect.Parameter.empty:
        return ["epsilon", "temperature"]
    return [field.name for field in fields(default)] if is_dataclass(default) else []


def check_values(annotations: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse values of another kind than annotated, of those kinds that are known here."""
    for name, value in values.items():
        annotation = str(annotations.get(name))
        kind, expected = KINDS.get(annotation.removesuffix(" | None"), (object, ""))
        if value is None and annotation.endswith(" | None"):
            continue
        number = annotation in ("float", "int")
        fits = isinstance(value, kind) and not (number and isinstance(value, bool))
        if not fits or (number and isinstance(value, int) and abs(value) > HUGEST[annotation]):
            raise UsageError(f"{name} {shown(value)}: expected {expected}")


def shown(value: Any) -> str:
    """Return a value as one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
