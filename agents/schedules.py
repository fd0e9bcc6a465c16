"""Rates that change over a run: epsilon, temperature, learning rate. Counted in env steps."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

from seqrl.core import schema
from seqrl.core.checked import checked
from seqrl.core.errors import UsageError
from seqrl.core.saved import NUMBER, Kept, Saved, plain

KINDS = ("constant", "linear", "exponential", "inverse", "cosine", "step")
DROPS = 10  # of a step schedule


Bound = tuple[int, float, float, float]


class Schedule(NamedTuple):
    """From `start` to `end` over a share of the run's horizon, or over a number of env steps.

    kind: "linear" start + (end - start) x; "exponential" start (end / start)^x; "inverse"
    start / (1 + (start / end - 1) x); "cosine" half a wave from start to end; "step" ten equal
    factors from start to end. x grows from 0 to 1 and stays there. `over` is a share of the
    horizon in (0, 1], or env steps where it is larger than 1.
    """

    kind: str
    start: float
    end: float
    over: float = 1.0

    def bind(self, horizon: float | None) -> Bound:
        """The arguments of `rate` for a run of `horizon` env steps.

        Without a horizon a share of it is never reached: the rate stays at `start`.
        """
        span = math.inf
        if self.over > 1:
            span = self.over
        elif horizon is not None:
            span = max(self.over * horizon, 1.0)
        return KINDS.index(self.kind), self.start, self.end, span

    def __call__(self, step: float, horizon: float | None = None) -> float:
        """The rate at env step `step` of a run of `horizon` env steps."""
        return rate(*self.bind(horizon), step)

    def __str__(self) -> str:
        """As typed on the command line."""
        start, end, over = (repr(float(x)).removesuffix(".0") for x in self[1:])
        return start if self.kind == "constant" else f"{self.kind}:{start}:{end}:{over}"


Rate = float | str | Schedule


class Scheduled(Saved):
    """An agent whose rates change over `horizon` env steps, from where that was set last."""

    steps = 0  # env steps that were learned from
    origin = 0  # of them before the schedules began
    _horizon: int | None = None
    passes = 1.0  # how often a step is learned from, about

    def __init_subclass__(cls, **options: Any) -> None:
        """Let the constructors of agents refuse what they do not take, in a line."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            init: Any = checked(vars(cls)["__init__"])
            cls.__init__ = init  # type: ignore[method-assign]

    @property
    def horizon(self) -> int | None:
        """Env steps that the schedules run over; setting it begins them anew."""
        return self._horizon

    @horizon.setter
    def horizon(self, steps: int | None) -> None:
        self._horizon, self.origin = steps, self.steps
        self.bind_schedules()

    def bind_schedules(self) -> None:
        """Work out what follows from the horizon."""

    # in this order: the origin is loaded over the one that the horizon sets
    SAVED: ClassVar[dict[str, Kept]] = {
        "steps": NUMBER,
        "horizon": plain(schema.maybe(0)),
        "origin": NUMBER,
    }


def rate(kind: int, start: float, end: float, span: float, step: float) -> float:
    """The value of a schedule at `step`; `kind` is an index into KINDS."""
    if kind == 0:
        return start
    x = min(step / span, 1.0)
    if kind == 1:
        return start + (end - start) * x
    if kind == 2:
        return start * (end / start) ** x
    if kind == 4:
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * x))
    if kind == 5:
        return start * (end / start) ** (math.floor(x * DROPS) / DROPS)
    return start / (1.0 + (start / end - 1.0) * x)


def linear(start: float, end: float, over: float = 1.0) -> Schedule:
    """A straight line from start to end."""
    return Schedule("linear", start, end, over)


def exponential(start: float, end: float, over: float = 1.0) -> Schedule:
    """A constant factor a step; both ends above 0."""
    return Schedule("exponential", start, end, over)


def inverse(start: float, end: float, over: float = 1.0) -> Schedule:
    """Falling like 1 / (1 + k t); both ends above 0."""
    return Schedule("inverse", start, end, over)


def schedule(name: str, value: Rate, low: float = 0.0, high: float = 1.0) -> Schedule:
    """A Schedule from a number or a text such as "linear:1:0.05:0.5", within [low, high]."""
    if not isinstance(value, Schedule):
        value = parse(name, str(value))
    if value.kind not in KINDS:
        raise UsageError(f"{name} {value}: expected one of {', '.join(KINDS)}")
    for end in (value.start, value.end):
        if not (low <= end <= high and math.isfinite(end)):  # NaN fails as well
            most = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            raise UsageError(f"{name} {end:g}: expected a number {most}")
    if value.kind in ("exponential", "inverse", "step") and min(value.start, value.end) <= 0:
        raise UsageError(f"{name} {value}: an {value.kind} schedule needs both ends above 0")
    if not value.over > 0:
        raise UsageError(f"{name} {value}: its length must be above 0")
    return value


def parse(name: str, text: str) -> Schedule:
    """The inverse of `str(schedule)`: a number, or kind:start:end[:over]."""
    kind, *numbers = text.split(":")
    try:
        if not numbers:
            return Schedule("constant", float(kind), float(kind))
        if kind in KINDS[1:] and len(numbers) in (2, 3):
            return Schedule(kind, *(float(number) for number in numbers))
    except ValueError:
        pass
    raise UsageError(
        f"{name} {text!r}: expected a number or a schedule such as linear:1:0.05:0.5 "
        f"(kind:start:end:share of the run; kinds {', '.join(KINDS[1:])})"
    )
