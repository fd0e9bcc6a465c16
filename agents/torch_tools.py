"""What every agent with a network needs: devices, random numbers, optimisers, state."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.core import Array, RunError, UsageError, closest, forms, tree


def pick_device(name: str) -> tuple[torch.device, str]:
    """The device behind a name and why; "auto" is cuda where there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), "a GPU is there"
        return torch.device("cpu"), "no GPU is there"
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in (*there, "cuda") or (name == "cuda" and len(there) == 1):
        raise UsageError(f"device {name!r}: expected auto or one of {', '.join(there)}")
    return torch.device(name), "asked for"


@contextmanager
def drawing_from(rng: torch.Generator) -> Iterator[None]:
    """Let layers that take no generator, such as dropout, draw from this one."""
    shared = torch.default_generator
    if rng.device.type == "cuda":
        shared = torch.cuda.default_generators[rng.device.index or 0]
    before = shared.get_state()
    shared.set_state(rng.get_state())
    try:
        yield
    finally:
        rng.set_state(shared.get_state())
        shared.set_state(before)


class NumpyDraw:
    """Random numbers as NumPy arrays."""

    xp: Any = np

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def exponential(self, shape: tuple[int, ...]) -> Array:
        """Exponential with mean 1."""
        return self.rng.standard_exponential(shape)  # never 0 in float64

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal."""
        return self.rng.standard_normal(shape, np.float32)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """From [0, 1)."""
        return self.rng.random(shape, np.float32)


class TorchDraw:
    """Random numbers as tensors on a device."""

    xp: Any = torch

    def __init__(self, rng: torch.Generator):
        self.rng = rng

    def exponential(self, shape: tuple[int, ...]) -> Array:
        """Exponential with mean 1."""
        return torch.empty(shape, device=self.rng.device).exponential_(generator=self.rng)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal."""
        return torch.randn(shape, device=self.rng.device, generator=self.rng)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """From [0, 1)."""
        return torch.rand(shape, device=self.rng.device, generator=self.rng)


def to_tensor(values: Any, device: torch.device) -> Any:
    """A tree of arrays as tensors on a device; tensors that are there already are not copied.

    Arrays are: the last bit of a product can depend on how its factors lie in memory, which
    torch aligns by more than NumPy does.
    """

    def convert(leaf: Array) -> Tensor:
        if isinstance(leaf, np.ndarray):
            return torch.tensor(np.asarray(leaf, order="C"), device=device)
        return torch.as_tensor(leaf, device=device)

    return tree.map(convert, values)


def to_numpy(values: Any) -> Any:
    """A tree of tensors as NumPy arrays."""
    return tree.map(lambda leaf: leaf.detach().cpu().numpy(), values)


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser by torch's name; the fused form where it has one."""
    known = {
        key: cls
        for key, cls in vars(torch.optim).items()
        if isinstance(cls, type)
        and issubclass(cls, torch.optim.Optimizer)
        and "weight_decay" in inspect.signature(cls).parameters  # not LBFGS, SparseAdam
    }
    extra = {"Momentum": {"momentum": 0.9}, "Nesterov": {"momentum": 0.9, "nesterov": True}}
    cls = torch.optim.SGD if name in extra else known.get(name)
    if cls is None:
        names = [*known, *extra]
        raise UsageError(f"optimizer {name!r}.{closest(name, names)} Known: {', '.join(names)}")
    options: dict[str, Any] = dict(extra.get(name, {}), lr=learning_rate, weight_decay=weight_decay)
    make: Any = cls
    listed = list(parameters)
    try:
        try:
            return make(listed, **options, fused=True)
        except (TypeError, RuntimeError):
            return make(listed, **options)
    except ValueError as error:
        raise UsageError(f"optimizer {name}: {error}") from error


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimiser has gathered, as arrays and plain values."""
    gathered = optimizer.state_dict()["state"]
    return {
        str(i): {k: to_numpy(v) if isinstance(v, Tensor) else v for k, v in part.items()}
        for i, part in gathered.items()
    }


def gathered_form(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `optimizer_state` looks like after a step in which every weight had a gradient."""
    trial = copy.deepcopy(optimizer)
    for group in trial.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    trial.step()
    return optimizer_state(trial)


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], name: str = "optimizer"
) -> None:
    """The inverse of `optimizer_state`; refuses by `name` what this optimiser cannot have."""
    form = gathered_form(optimizer)  # but a weight without a gradient has gathered nothing
    forms.check(name, state, {i: part for i, part in form.items() if i in state})
    gathered = {
        int(i): {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in part.items()}
        for i, part in state.items()
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": gathered, "param_groups": groups})


def load_weights(module: nn.Module, state: Mapping[str, Any], name: str = "weights") -> None:
    """Fill a module from arrays; refuses by `name` what is not of its names, dtypes and shapes."""
    forms.check(name, state, dict(module.state_dict()))
    module.load_state_dict({name: torch.as_tensor(np.array(x)) for name, x in state.items()})


def clip_gradients(
    module: nn.Module, most: float, weights: Iterable[nn.Parameter] | None = None
) -> Tensor:
    """Scale the gradients to a norm of at most `most`; refuses one that is not finite by name.

    weights: the module's, where they are at hand.
    """
    weights = module.parameters() if weights is None else weights
    grads = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    size = float(norm)
    if not math.isfinite(size):
        named = ((name, weight.grad) for name, weight in module.named_parameters())
        bad = (name for name, grad in named if grad is not None and not grad.isfinite().all())
        culprit = next(bad, "all weights together")  # where only the sum of squares is too large
        raise RunError(
            f"the gradient of {culprit} is not finite; the weights before it are kept: "
            "try a smaller --learning-rate"
        )
    if size > most:
        torch._foreach_mul_(grads, most / size)
    return norm


def descend(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    most: float,
    name: str,
    update: int,
) -> Tensor:
    """One step, and the gradient's norm before it was cut to `most`.

    Refused by the loss's name, with the weights as they were, where a number is not finite.
    """
    size = float(loss.detach())
    if not math.isfinite(size):
        raise RunError(f"the {name} is {size} at update {update}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = None  # what zero_grad does, at a third of its cost
    loss.backward()
    norm = clip_gradients(module, most, weights)
    optimizer.step()
    return norm
