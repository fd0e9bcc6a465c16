"""An agent's numbers: its constructor's arguments, as flags and a run's config name them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from seqrl.agents.tabular.policy import Boltzmann, EpsilonGreedy
from seqrl.core.errors import UsageError, closest

PLAIN = (bool, int, float, str, list, tuple, dict)
GIVEN = ("observation_space", "action_space", "network", "seed")  # by whoever builds the agent


def agent_parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """Return the arguments that are flags: what has a default or a name only, and their fields.

    An exploration is epsilon or temperature, an argument class (see `Optim`) is its fields.
    """
    chosen: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if not is_number(parameter):
            continue
        if name == "exploration":
            epsilon = keyword("epsilon", parameter.default.rate, "Rate")
            chosen |= {"epsilon": epsilon, "temperature": epsilon.replace(default=None)}
        elif is_dataclass(parameter.default):
            chosen |= field_parameters(parameter.default)
        elif name == "device" and parameter.default is parameter.empty:
            chosen[name] = keyword(name, "auto", "str")
        else:
            chosen[name] = keyword(name, parameter.default, text_of(parameter))
    return chosen


def field_parameters(group: Any) -> dict[str, inspect.Parameter]:
    """Return the fields of an argument class's instance, those of a class within among them."""
    chosen: dict[str, inspect.Parameter] = {}
    for field in fields(group):
        default = getattr(group, field.name)
        if is_dataclass(default):
            chosen |= field_parameters(default)
        else:
            chosen[field.name] = keyword(field.name, default, str(field.type))
    return chosen


def is_number(parameter: inspect.Parameter) -> bool:
    """Return whether an argument is a number of the agent's, not what it is built on."""
    if parameter.name in GIVEN or parameter.kind in (
        parameter.VAR_KEYWORD,
        parameter.VAR_POSITIONAL,
    ):
        return False
    optional = parameter.default is not parameter.empty
    return optional or parameter.kind is parameter.KEYWORD_ONLY or parameter.name == "device"


def text_of(parameter: inspect.Parameter) -> str:
    """Return an annotation as text; where there is none, the type of the default."""
    kind = parameter.annotation
    if kind is parameter.empty:
        kind = type(parameter.default)
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def keyword(name: str, default: Any, annotation: str) -> inspect.Parameter:
    """Return an argument that is given by its name."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def agent_arguments(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an agent's numbers as config.toml holds them, given or default; None is left out.

    UsageError for a number that the agent has not, with the closest.
    """
    known = agent_parameters(cls)
    for name in given:
        if name not in known:
            raise UsageError(f"agent_args: {cls.__name__} has no {name}.{closest(name, known)}")
    defaults = {name: parameter.default for name, parameter in known.items()}
    if "epsilon" in defaults and "temperature" in given:
        if "epsilon" in given:
            raise UsageError("--epsilon and --temperature: choose one exploration")
        del defaults["epsilon"]
    chosen = {name: given.get(name, default) for name, default in defaults.items()}
    optimizer, eps = chosen.get("optimizer"), defaults.get("adam_eps")
    kin = "Adam" in str(optimizer) or optimizer == "AdaBound"
    if given.get("adam_eps", eps) != eps and not kin:
        raise UsageError(f"--adam-eps: {optimizer} adds nothing; leave it out, or take Adam")
    there = {name: toml_value(value) for name, value in chosen.items()}
    # a default that is no plain value is left to the constructor
    kept = {name: x for name, x in there.items() if name in given or isinstance(x, PLAIN)}
    return {name: x for name, x in kept.items() if x is not None}


def toml_value(value: Any) -> Any:
    """Return a value for TOML: a schedule as text, a constant one as a number."""
    if not hasattr(value, "kind"):
        return value
    return value.start if value.kind == "constant" else str(value)


def arguments(cls: Any, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return an agent's constructor arguments from its numbers, as flags and config name them.

    The fields of argument classes (see `Optim`) are gathered into these, epsilon or temperature
    into the exploration.
    """
    numbers = dict(numbers)
    for name, parameter in inspect.signature(cls).parameters.items():
        default: Any = parameter.default
        if is_dataclass(default):
            numbers[name] = with_numbers(default, numbers)
        elif name == "exploration" and "temperature" in numbers:
            numbers[name] = Boltzmann(numbers.pop("temperature"))
        elif name == "exploration" and "epsilon" in numbers:
            numbers[name] = EpsilonGreedy(numbers.pop("epsilon"))
    return numbers


def with_numbers(group: Any, numbers: dict[str, Any]) -> Any:
    """Return an argument class's instance with those of `numbers` that are its, which it takes."""
    given: dict[str, Any] = {}
    for field in fields(group):
        within = getattr(group, field.name)
        if is_dataclass(within):
            given[field.name] = with_numbers(within, numbers)
        elif field.name in numbers:
            given[field.name] = numbers.pop(field.name)
    return replace(group, **given)


def argument_lines(cls: Any) -> dict[str, str]:
    """Return the description of each argument, from the docstrings of class, bases and parts."""
    parts = [type(part) for part in argument_classes(cls)]
    text = "\n".join(inspect.getdoc(source) or "" for source in (*reversed(cls.__mro__), *parts))
    epsilon, temperature = "any action, a number or a schedule", "explore by softmax of Q/T instead"
    found = dict(re.findall(r"^ *(\w+): (.+)$", text, re.MULTILINE))
    return {"epsilon": f"chance of {epsilon}", "temperature": temperature, **found}


def documented() -> set[str]:
    """Return the names that our agents' arguments have in docstrings; none of them is imported."""
    files = Path(__file__).parent.glob("*/*.py")
    texts = (file.read_text(encoding="utf-8") for file in files)
    found = {name for text in texts for name in re.findall(r"^ +([a-z]\w+): ", text, re.MULTILINE)}
    return found | {"epsilon", "temperature"}


def argument_classes(cls: Any) -> list[Any]:
    """Return the instances of argument classes (see `Optim`) among a class's defaults."""

    def within(value: Any) -> list[Any]:
        parts = fields(value) if is_dataclass(value) else ()
        deeper = [found for part in parts for found in within(getattr(value, part.name))]
        return [value, *deeper] if is_dataclass(value) else []

    defaults = (parameter.default for parameter in inspect.signature(cls).parameters.values())
    return [found for default in defaults for found in within(default)]
