"""Checked arguments of networks: names, activations, initialisations, numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as _activations

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError, closest

NOT_ELEMENTWISE = "GLU LogSoftmax MultiheadAttention Softmax Softmax2d Softmin Threshold".split()
ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: getattr(_activations, name)
    for name in _activations.__all__
    if name not in NOT_ELEMENTWISE
} | {"Identity": nn.Identity}
INITS = ("xavier", "he", "orthogonal")


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

    "xavier": uniform, variance 2 / (inputs + outputs) (Glorot and Bengio 2010, for tanh and
    sigmoid). "he": uniform, variance 2 / inputs (He et al. 2015, for ReLU). "orthogonal": rows or
    columns orthonormal (Saxe et al. 2014). A number: normal with that standard deviation.
    None: left as torch initialised it.
    """
    if init is None:
        return
    if isinstance(init, int | float) and not isinstance(init, bool) and init >= 0:
        nn.init.normal_(weight, 0.0, init)
    elif init == "xavier":
        nn.init.xavier_uniform_(weight)
    elif init == "he":
        nn.init.kaiming_uniform_(weight, nonlinearity="relu")
    elif init == "orthogonal":
        nn.init.orthogonal_(weight)
    else:
        known = f"{', '.join(INITS)}, a standard deviation of at least 0, or None"
        raise UsageError(f"init {init!r}: expected {known}.{closest(str(init), INITS)}")


def initialise_layer(layer: nn.Module, init: str | float | None) -> None:
    """Fill a Linear or convolution: the weight by `init`, the bias with 0; None leaves both."""
    if init is not None:
        initialise(layer.get_parameter("weight"), init)
        nn.init.zeros_(layer.get_parameter("bias"))
