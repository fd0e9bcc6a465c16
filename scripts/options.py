"""Parsing a command line: flags from the agent's constructor, one line for every error."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import wraps
from typing import Any, NoReturn

from seqrl.core import team
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError, UserError, closest
from seqrl.scripts.values import converter, whole_number
from seqrl.training.runs.defaults import flag_of
from seqrl.training.runs.elsewhere import SAME, here

ALIASES = {flag_of(name): flag_of(own) for name, own in SAME.items()}
OWN_DEFAULT = re.compile(r" \(default: [^()]*\)$")  # at the end of an agent's flag
NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)")  # a value such as -1e5, never a flag


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except None, False, [] and {}, and those of --no-x."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, moved = action.help or "", action.default is not argparse.SUPPRESS
        own = OWN_DEFAULT.search(text)
        if own and moved:  # by a preset or a file
            return f"{text[: own.start()]} (default: %(default)s)"
        nothing = action.default is False or action.default in (None, [], {})
        if nothing or isinstance(action, argparse._StoreFalseAction):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes - and _ alike, no abbreviations, and raises UsageError."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=Help, **kwargs)
        self.register("type", int, whole_number)
        self._negative_number_matcher = NEGATIVE
        self.note = ""  # printed by the script before it begins
        self.of_agent = False  # whether an agent's flags are among its own

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, which the script prints in one line."""
        raise UsageError(message.removeprefix("argument "))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Flush stdout, so that a closed pipe is noticed, and exit (after --help)."""
        print(end="", flush=True)
        super().exit(status, message)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the parsed arguments; refuse an unknown flag with the closest one."""
        words = [normalized(argument) for argument in argv]
        known, rest = self.parse_known_args(words)
        self.refuse(rest, words=words)
        return known

    def check_early(self, argv: Sequence[str], others: set[str]) -> argparse.Namespace:
        """Refuse what is neither a flag already there nor among `others`, which are to come."""
        known, rest = self.parse_known_args([normalized(argument) for argument in argv])
        flags = {word: word.partition("=")[0] for word in rest if word.startswith("--")}
        positive = {word: flag.replace("--no-", "--", 1) for word, flag in flags.items()}
        self.refuse((word for word, flag in positive.items() if flag not in others), others)
        return known

    def refuse(
        self, rest: Iterable[str], others: Iterable[str] = (), words: Sequence[str] = ()
    ) -> None:
        """Refuse unknown arguments, with the closest flag, or the one that stands before."""
        for argument in rest:
            own = [flag for flag in self._option_string_actions if flag.startswith("--")]
            flags = [*own, *others]
            kind = "flag" if argument.startswith("-") else "argument"
            flag = argument.partition("=")[0]
            owned = owners(flag) if self.of_agent and not others else ""
            hint = here(flag) or owned or closest(argument, flags)
            hint = hint or f" `{self.prog} --help` shows those there are"
            if kind == "argument":
                hint = self.surplus(words[: words.index(argument)] if argument in words else ())
            raise UsageError(f"unknown {kind} {argument}.{hint}")

    def surplus(self, before: Sequence[str]) -> str:
        """Return how many values the last flag takes, and where a value without one belongs."""
        flags = [word.partition("=")[0] for word in before if word.startswith("--")]
        takes = ""
        if flags:
            takes = f" {flags[-1]} takes {'no' if before[-1] == flags[-1] else 'one'} value."
        return f"{takes} Each has a flag before it, as in --agent ppo --env CartPole-v1"


def normalized(argument: str) -> str:
    """Return --num_envs=4 as --num-envs=4, and a flag of other libraries as ours."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    flag = flag.replace("_", "-")
    return ALIASES.get(flag, flag) + equals + value


def words_of(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each flag with the word typed for it, as --num-envs and 4; a switch with the next."""
    words = [normalized(word) for word in argv]
    for word, following in zip(words, [*words, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            yield flag, value if equals else following


def flag_values(argv: Sequence[str], flag: str) -> list[str]:
    """Return the values of one flag before the others are parsed."""
    return [word for name, word in words_of(argv) if name == flag]


def flag_value(argv: Sequence[str], flag: str, default: str = "") -> str:
    """Return the value of one flag before the others are parsed; the last one counts."""
    return [default, *flag_values(argv, flag)][-1]


def check_minimum(args: argparse.Namespace, minimum: dict[str, int]) -> None:
    """Refuse numbers below the minimum of their flag."""
    for name, least in minimum.items():
        if getattr(args, name) is not None:
            check_whole(flag_of(name), getattr(args, name), least)


def owners(flag: str) -> str:
    """Return a sentence that names the agents that have a flag, "" where none has."""
    from seqrl.agents.arguments import agent_parameters, documented
    from seqrl.agents.registry import AGENTS, agent_class

    name = flag.replace("--no-", "--", 1)
    if name not in map(flag_of, documented()):
        return ""
    found = []
    for agent in AGENTS:
        classes = agent_class(agent, False), agent_class(agent, True)
        table, network = (name in map(flag_of, agent_parameters(cls)) for cls in classes)
        if table or network:
            alone = " with --network" if network else " without --network"
            found.append(agent if table and network else agent + alone)
    return f" It is a flag of {', '.join(found)}" if found else ""


def add_agent_flags(parser: Parser, cls: Any) -> None:
    """Add a flag for each of the constructor's arguments, with default and description."""
    from seqrl.agents.arguments import agent_parameters, argument_lines

    parser.of_agent = True
    own = parser.add_argument_group(f"{cls.__name__} (its constructor's arguments)")
    groups = flag_groups(parser, cls)
    meanings = argument_lines(cls)
    for name, parameter in agent_parameters(cls).items():
        flag, meaning = flag_of(name), meanings.get(name, "").rstrip(".")
        group = groups.get(name, own)
        shown = (
            "required" if parameter.default is parameter.empty else f"default: {parameter.default}"
        )
        text = f"{meaning} ({shown})".strip().replace("%", "%%")
        if {flag, flag.replace("--", "--no-", 1)} & parser._option_string_actions.keys():
            found = f"its argument {name} has the name of a flag of train's own, {flag}"
            raise UsageError(f"--agent {cls.__name__}: {found}; give it another name")
        if parameter.annotation == "bool":
            action = argparse.BooleanOptionalAction
            group.add_argument(flag, action=action, default=argparse.SUPPRESS, help=text)
        else:
            kind = converter(parameter.annotation)
            group.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=text, metavar="X")


def flag_groups(parser: Parser, cls: Any) -> dict[str, Any]:
    """Return the help's group of flags of each field of an argument class."""
    from seqrl.agents.arguments import argument_classes

    found: dict[str, Any] = {}
    for value in argument_classes(cls):
        purpose = (inspect.getdoc(type(value)) or "").partition("\n")[0].rstrip(".")
        group = parser.add_argument_group(f"{type(value).__name__}: {purpose}")
        found |= {field.name: group for field in fields(value)}
    return found


def repeatable(kind: Callable[[str], Any]) -> dict[str, Any]:
    """Return the arguments of add_argument that make a flag repeatable."""
    return {"type": kind, "action": "append", "default": []}


def guarded(body: Callable[[Sequence[str]], int]) -> Callable[..., int]:
    """Return the main function of a script: an error is one line on stderr and an exit status."""

    @wraps(body)
    def main(argv: Sequence[str] | None = None) -> int:
        argv = list(sys.argv[1:] if argv is None else argv)
        arrange_path()
        try:
            status = body(argv)
            print(end="", flush=True)
            return status
        except BrokenPipeError:  # the reader has closed it, such as `| head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            return 130
        except UserError as error:
            if team.tells(error):
                if "--debug" in argv:
                    traceback.print_exc()
                print_note(one_line(str(error)))
            return error.status
        except Exception as error:
            if "--debug" in argv:
                raise
            print_note(f"{one_line(f'{type(error).__name__}: {error}')} (--debug shows where)")
            return 1

    return main


def arrange_path() -> None:
    """Put the current folder last on the path, for `--env mymodule:Name-v0`; take this folder off.

    `python scripts/train.py` puts it first, where `options` would be ours and not the user's.
    """
    ours = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if not path or os.path.abspath(path) != ours]
    if "" not in sys.path:
        sys.path.append("")


def print_note(text: str) -> None:
    """Print a line to stderr, unless it is empty."""
    if text:  # in one piece, so that lines of several processes stay apart
        print(f"seqrl: {text}\n", end="", file=sys.stderr)


def one_line(text: str, limit: int = 260) -> str:
    """Return a message in one line; a long one loses its middle."""
    text = " ".join(text.split())
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"
