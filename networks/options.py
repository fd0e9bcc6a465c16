"""Checked arguments of networks: names, activations, initialisations, numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as _activations

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError, closest
from seqrl.networks.activations import Maxout, Step

NOT_ELEMENTWISE = "GLU LogSoftmax MultiheadAttention Softmax Softmax2d Softmin Threshold".split()
ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: getattr(_activations, name)
    for name in _activations.__all__
    if name not in NOT_ELEMENTWISE
} | {"Identity": nn.Identity, "Maxout": Maxout, "Step": Step}
INITS: dict[str, Callable[[Tensor], Any]] = {
    "xavier": nn.init.xavier_uniform_,
    "he": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
    "glorot": nn.init.xavier_uniform_,
    "xavier-normal": nn.init.xavier_normal_,
    "he-normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "lecun": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "zeros": nn.init.zeros_,
}
SPREADS: dict[str, Callable[[Tensor, float], Any]] = {
    "normal": lambda weight, std: nn.init.normal_(weight, 0.0, std),
    "uniform": lambda weight, bound: nn.init.uniform_(weight, -bound, bound),
}


def lookup(what: str, name: str, known: Iterable[str]) -> str:
    """Return the known name, ignoring case, - and _; a UsageError suggests the closest one."""
    names = {_key(key): key for key in known}
    if _key(name) in names:
        return names[_key(name)]
    listed = ", ".join(sorted(names.values()))
    raise UsageError(f"{what} {name!r}: unknown.{closest(_key(name), names)} Known: {listed}")


def _key(name: str) -> str:
    return str(name).lower().replace("-", "").replace("_", "")


def activation(name: str | type[nn.Module]) -> nn.Module:
    """Return a new activation layer by torch's name ("Tanh", "relu") or class."""
    if isinstance(name, type):
        return name()
    return ACTIVATIONS[lookup("activation", name, ACTIVATIONS)]()


def probability(what: str, value: Any) -> float:
    """Return the value as a float; raise UsageError unless it is in [0, 1)."""
    if isinstance(value, int | float) and 0 <= value < 1:
        return float(value)
    raise UsageError(f"{what} {value!r}: expected a number of at least 0 and below 1")


def number_or_none(what: str, value: Any) -> float | None:
    """Return the value; raise UsageError unless it is a number or None."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise UsageError(f"{what} {value!r}: expected a number or None")


def sizes(what: str, value: int | tuple[int, ...] | list[int]) -> tuple[int, ...]:
    """Return layer sizes, given as one number or several; () is no layer."""
    several = (value,) if isinstance(value, int) else value
    if not isinstance(several, tuple | list):
        raise UsageError(f"{what} {value!r}: expected a whole number or a tuple of them")
    return tuple(check_whole(what, size) for size in several)


@torch.no_grad()
def initialise(weight: Tensor, init: str | float | None) -> None:
    """Fill one weight matrix or kernel in place.

    "xavier" or "glorot": uniform, variance 2 / (inputs + outputs) (Glorot and Bengio 2010, for
    tanh and sigmoid). "he": uniform, variance 2 / inputs (He et al. 2015, for ReLU). "lecun":
    normal, variance 1 / inputs (LeCun et al. 1998; for SELU). "xavier-normal", "he-normal": the
    same variances, normal. "orthogonal": rows or columns orthonormal (Saxe et al. 2014). "zeros".
    "uniform:0.1": from -0.1 to 0.1. A number, or "normal:0.1": normal with that standard
    deviation. None: left as torch initialised it.
    """
    if init is None:
        return
    text = init if isinstance(init, str) else f"normal:{init}"
    if text in INITS:
        INITS[text](weight)
        return
    kind, _, number = text.partition(":")
    try:
        size = float(number)
    except ValueError:
        size = math.nan
    if kind not in SPREADS or not 0 <= size < math.inf:
        known = f"{', '.join(INITS)}, uniform:BOUND, a standard deviation of at least 0, or None"
        raise UsageError(f"init {init!r}: expected {known}.{closest(kind, INITS)}")
    SPREADS[kind](weight, size)


def initialise_layer(layer: nn.Module, init: str | float | None) -> None:
    """Fill a Linear or convolution: the weight by `init`, the bias with 0; None leaves both."""
    if init is not None:
        initialise(layer.get_parameter("weight"), init)
        nn.init.zeros_(layer.get_parameter("bias"))
