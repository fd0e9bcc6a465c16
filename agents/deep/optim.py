"""Optimisers and gradient steps: made, taken, saved and loaded."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.core import RunError, UsageError, closest, schema
from seqrl.core.arrays import to_numpy


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
    schema.check(name, state, {i: part for i, part in form.items() if i in state})
    gathered = {
        int(i): {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in part.items()}
        for i, part in state.items()
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": gathered, "param_groups": groups})


def load_weights(module: nn.Module, state: Mapping[str, Any], name: str = "weights") -> None:
    """Fill a module from arrays; refuses by `name` what is not of its names, dtypes and shapes."""
    schema.check(name, state, dict(module.state_dict()))
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


def gradient_step(
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
