"""Errors a user can fix: one line that names what is wrong, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base class; `status` is the exit status of a script that ends with it."""

    status = 1


class UsageError(UserError, ValueError):
    """An invalid request, raised before anything is done (exit status 2)."""

    status = 2


class RunError(UserError, RuntimeError):
    """A failure during a run; what was learned until then is kept (exit status 1)."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the most similar known name, or ''.

    >>> closest("q-lerning", ["q-learning", "sarsa"])
    ' Did you mean "q-learning"?'
    """
    lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f' Did you mean "{lower[found[0]]}"?' if found else ""


def told_of(flag: str, place: object, error: UserError) -> UsageError:
    """Return a mistake as one of what a flag names, which its message may have named already."""
    return UsageError(f"{flag} {place}: {str(error).removeprefix(f'{place}: ')}")


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def explain(error: Exception) -> str:
    """Return an exception as one line of text; of a UserError what it says, without its name."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}".rstrip(": ")
