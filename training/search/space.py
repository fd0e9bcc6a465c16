"""The space of a search: the values that a setting may have, read from a text and drawn."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from seqrl.core.errors import UsageError

FORMS = "log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH or choice:A,B,C"
DIGITS = 4  # of a drawn number: finer differences are below the noise of a run
Values = dict[str, str]  # what a trial sets, by name, as one would type it


class Range(NamedTuple):
    """The values of a setting: numbers between two ends, or choices."""

    text: str  # as it was typed
    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    before: str = ""  # what stands around the value that is drawn, as in linear:{log:1e-4:1e-2}:0
    after: str = ""

    @property
    def ends(self) -> list[str]:
        """Return both ends, or all choices, as one would type them."""
        found = self.choices or [self._number(end) for end in (self.low, self.high)]
        return [f"{self.before}{value}{self.after}" for value in found]

    def draw(self, name: str, trial: Any) -> str:
        """Return the value that a trial of Optuna's has by this name, drawn if it has none yet."""
        if self.kind == "choice":
            value = trial.suggest_categorical(name, self.choices)
        elif self.kind == "int":
            value = str(trial.suggest_int(name, int(self.low), int(self.high)))
        else:
            log = self.kind == "log"
            value = self._number(trial.suggest_float(name, self.low, self.high, log=log))
        return f"{self.before}{value}{self.after}"

    def _number(self, value: float) -> str:
        """Return a number within the ends, with few digits."""
        if self.kind == "int":
            return str(int(value))
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))


def read_range(text: str) -> Range:
    """Return the range that a text means; UsageError where it means none."""
    around = re.fullmatch(r"([^{}]*)\{([^{}]+)\}([^{}]*)", text)
    before, inner, after = around.groups() if around else ("", text, "")
    kind, _, rest = inner.partition(":")
    try:
        if kind == "choice":
            found = Range(text, kind, choices=tuple(rest.split(",")))
        else:
            low, high = map({"log": float, "uniform": float, "int": int}[kind], rest.split(":"))
            found = Range(text, kind, low, high)
    except (KeyError, ValueError):
        raise UsageError(f"{text!r}: expected {FORMS}") from None
    if problem := why_unusable(found):
        raise UsageError(f"{text!r}: {problem}")
    return found._replace(before=before, after=after)


def why_unusable(found: Range) -> str:
    """Return why nothing can be drawn from a range, "" where it can."""
    if found.kind == "choice":
        distinct = len(set(found.choices)) == len(found.choices) and all(found.choices)
        return "" if distinct else "expected values with no value twice, as in choice:32,64"
    if not found.low < found.high < float("inf"):
        return "expected two finite ends, the lower one first"
    return "log takes ends above 0" if found.kind == "log" and found.low <= 0 else ""
