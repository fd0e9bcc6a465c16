"""Reading a command line: flags by the agent's own constructor, one line for every mistake."""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from seqrl.core import UsageError, UserError, closest

ALIASES = {"--algo": "--agent", "--env-id": "--env", "--total-timesteps": "--steps"}


NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)")  # a value such as -1e5, never a flag


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes - and _ alike, no abbreviations, and says mistakes in a line."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=Help, **kwargs)
        self.register("type", int, whole_number)
        self._negative_number_matcher = NEGATIVE
        self.note = ""  # what the script should say before it begins

    def error(self, message: str) -> NoReturn:
        """Raise what the script says in one line."""
        raise UsageError(message.removeprefix("argument "))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """After --help; what was printed is out before, so that a closed pipe is noticed."""
        print(end="", flush=True)
        super().exit(status, message)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments; an unknown flag is refused with the closest."""
        known, rest = self.parse_known_args([spelled(word) for word in argv])
        for word in rest:
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            kind = "flag" if word.startswith("-") else "argument"
            raise UsageError(f"unknown {kind} {word}.{closest(word, flags)}")
        return known


def spelled(word: str) -> str:
    """--num_envs=4 as --num-envs=4, and other names for the same thing as ours."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    flag = flag.replace("_", "-")
    return ALIASES.get(flag, flag) + equals + value


def wanted(argv: Sequence[str], flag: str, default: str) -> str:
    """The value of one flag, read ahead of the others; the last one counts."""
    words = [spelled(word) for word in argv]
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == flag:
            default = following
        elif word.startswith(flag + "="):
            default = word.partition("=")[2]
    return default


def check_least(typed: argparse.Namespace, least: dict[str, int]) -> None:
    """Refuse the numbers that are smaller than the least named for their flag."""
    for name, bound in least.items():
        number = getattr(typed, name)
        if number is not None and number < bound:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} {number}: expected a whole number of at least {bound}")


def add_agent_flags(parser: Parser, cls: Any) -> None:
    """A flag for each of the constructor's own numbers, with default and line of meaning."""
    group = parser.add_argument_group(f"{cls.__name__} (its constructor's arguments)")
    lines = argument_lines(cls)
    for name, parameter in agent_parameters(cls).items():
        flag, line = "--" + name.replace("_", "-"), lines.get(name, "").rstrip(".")
        shown = f"{line} (default: {parameter.default})".replace("%", "%%")
        if parameter.annotation == "bool":
            action = argparse.BooleanOptionalAction
            group.add_argument(flag, action=action, default=argparse.SUPPRESS, help=shown)
        else:
            kind = converter(parameter.annotation)
            group.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=shown, metavar="X")


PARTS = ("exploration", "seed")  # built by the script, not typed as they are


def agent_parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """What can be typed: the keyword-only arguments, the exploration as its two rates."""
    found = inspect.signature(cls).parameters
    kept = {
        name: parameter
        for name, parameter in found.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in PARTS
    }
    if "exploration" in found:
        epsilon = inspect.Parameter(
            "epsilon",
            inspect.Parameter.KEYWORD_ONLY,
            default=found["exploration"].default.rate,
            annotation="Rate",
        )
        kept |= {"epsilon": epsilon, "temperature": epsilon.replace(default=None)}
    return kept


def agent_numbers(cls: Any, typed: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments as typed, the others at their defaults; None is left out."""
    defaults = {name: parameter.default for name, parameter in agent_parameters(cls).items()}
    if "epsilon" in defaults and "temperature" in typed:
        if "epsilon" in typed:
            raise UsageError("--epsilon and --temperature: choose one exploration")
        del defaults["epsilon"]
    chosen = {name: typed.get(name, default) for name, default in defaults.items()}
    return {name: stored(value) for name, value in chosen.items() if value is not None}


def stored(value: Any) -> Any:
    """A value as TOML keeps it: a schedule as its text, a constant one as its number."""
    if not hasattr(value, "kind"):
        return value
    return value.start if value.kind == "constant" else str(value)


def repeated(kind: Callable[[str], Any]) -> dict[str, Any]:
    """What makes a flag repeatable."""
    return {"type": kind, "action": "append", "default": []}


def argument_lines(cls: Any) -> dict[str, str]:
    """The line of each argument in the docstring's Args."""
    text = inspect.getdoc(cls) or ""
    found = dict(re.findall(r"^    (\w+): (.+)$", text, re.MULTILINE))
    return {
        "epsilon": "chance of any action, a number or a schedule",
        "temperature": "explore by softmax of Q/T instead",
        **found,
    }


def converter(annotation: str) -> Callable[[str], Any]:
    """From the text of a flag to what the constructor takes."""
    optional = annotation.endswith(" | None")
    kinds = {"float": number, "int": whole_number, "Rate": number_or_text, "str": str}
    kind = kinds.get(annotation.removesuffix(" | None"), literal)

    def convert(text: str) -> Any:
        return None if optional and text.lower() == "none" else kind(text)  # type: ignore[operator]

    convert.__name__ = getattr(kind, "__name__", "value")
    return convert


def whole_number(text: str) -> int:
    """An int."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number") from None


def number(text: str) -> float:
    """A float."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number") from None


def number_or_text(text: str) -> float | str:
    """A rate: a number where it is one, else the text of a schedule."""
    try:
        return float(text)
    except ValueError:
        return text


def literal(text: str) -> Any:
    """A Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def pair(text: str) -> tuple[str, Any]:
    """k=v with v a Python literal, else a string."""
    name, _, typed = text.partition("=")
    value = literal(typed)
    if not (name.isidentifier() and typed and storable(value)):
        kinds = "a number, a text, True, False, or a list or dict of these"
        raise argparse.ArgumentTypeError(f"{text!r}, expected name=value with {kinds}")
    return name, value


def storable(value: Any) -> bool:
    """Whether config.toml has a form for a value."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and storable(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(storable(part) for part in value)
    return isinstance(value, bool | int | float | str)


def bounds(text: str) -> tuple[int, tuple[float, float]]:
    """D=LOW:HIGH, the range of a dimension."""
    found = re.fullmatch(r"(\d+)=([^:]+):([^:]+)", text)
    try:
        if found:
            return int(found[1]), (float(found[2]), float(found[3]))
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: expected dimension=low:high, as in 1=-3:3")


def guarded(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a script's body; what goes wrong is one line on stderr and an exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path:
        sys.path.append("")  # the current folder, last: `--env mymodule:Name-v0`
    try:
        status = main(argv)
        print(end="", flush=True)
        return status
    except BrokenPipeError:  # `| head -1` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"seqrl: {one_line(str(error))}", file=sys.stderr)
        return error.status
    except Exception as error:
        if "--debug" in argv:
            raise
        text = one_line(f"{type(error).__name__}: {error}")
        print(f"seqrl: {text} (--debug shows where)", file=sys.stderr)
        return 1


def one_line(text: str, most: int = 260) -> str:
    """A message in one line; a long one loses its middle."""
    text = " ".join(text.split())
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"
