"""How weights are stepped along a gradient: optimisers, made, saved and loaded."""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.agents.deep.adabound import AdaBound
from seqrl.agents.deep.regularisation import Regularisation
from seqrl.agents.schedules import Rate
from seqrl.core import schema
from seqrl.core.arrays import is_on_host, to_numpy
from seqrl.core.checked import check_part, checked_part
from seqrl.core.checks import check_whole
from seqrl.core.deferred import require_finite
from seqrl.core.errors import RunError, UsageError, closest
from seqrl.core.types import DeferredChecks
from seqrl.networks.base import Network, name_of
from seqrl.networks.batch_norm import keep_statistics

DENORMAL, ONE = np.float32(1e-42), np.float32(1.0)
EXTRA = {"Momentum": {"momentum": 0.9}, "Nesterov": {"momentum": 0.9, "nesterov": True}}


@checked_part
@dataclass(frozen=True)
class Optim:
    """How an agent's weights are stepped along a gradient.

    learning_rate: of the optimiser, a number or a schedule, at least 0.
    max_grad_norm: gradients are scaled down to this norm, above 0; inf for no limit.
    optimizer: by torch's name (SGD, Momentum, Nesterov, RMSprop, Adam, AdamW, ...), or AdaBound.
    weight_decay: as the optimiser has it, at least 0; apart from the gradient in AdamW.
    adam_eps: what Adam and its kin add to the root of the squared gradients, above 0.
        Where a policy is learned gradients fade to nothing; the first one after that would be a
        step of the full learning rate for every weight, however small, if nothing were added.
    momentum: of SGD, RMSprop, Momentum or Nesterov (0.9 where left out), in [0, 1).
    max_grad_value: gradients are cut to this size one by one, above 0; before that of the norm.
    bptt: env steps that a gradient goes back through memory, 0 for all that are learned from.
        A batch is run in pieces of so many, the memory is carried on (Williams and Peng, 1990).
    freeze: a part of the network of which nothing moves, by its name, as encoder.
        No weight, and no running statistic in it. What `normalize_obs` knows stands before all
        parts, and goes on.
    regularisation: what is minimised beside the loss, and noise in learning.
    """

    learning_rate: Rate
    max_grad_norm: float
    optimizer: str = "Adam"
    weight_decay: float = 0.0
    adam_eps: float = 1e-8
    momentum: float | None = None
    max_grad_value: float = math.inf
    bptt: int = 0
    freeze: str = ""
    regularisation: Regularisation = field(default_factory=Regularisation)

    def __post_init__(self) -> None:
        for name in ("max_grad_norm", "max_grad_value"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} {getattr(self, name)}: expected a number above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay {self.weight_decay}: expected a number of at least 0")
        if not 0 < self.adam_eps < math.inf:
            raise UsageError(f"adam_eps {self.adam_eps}: expected a number above 0")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise UsageError(f"momentum {self.momentum}: expected a number in [0, 1)")
        check_whole("bptt", self.bptt, 0)
        check_part("regularisation", self.regularisation, Regularisation())
        self.make([nn.Parameter(torch.zeros(1))])  # refuse what there is none of

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of some weights, in its fused form where it has one."""
        name, listed = self.optimizer, list(parameters)
        cls = without_compiler(optimizer_class(name))
        options: dict[str, Any] = {**EXTRA.get(name, {}), "weight_decay": self.weight_decay}
        if "Adam" in name or name == "AdaBound":
            options["eps"] = self.adam_eps
        if self.momentum is not None:
            if "momentum" not in inspect.signature(cls).parameters:
                takes = "SGD, Momentum, Nesterov or RMSprop"
                raise UsageError(f"momentum {self.momentum}: {name} takes none; take {takes}")
            options["momentum"] = self.momentum
        try:
            try:
                return cls(listed, lr=0.0, **options, fused=True)
            except (TypeError, RuntimeError):
                return cls(listed, lr=0.0, **options)
        except ValueError as error:
            raise UsageError(f"optimizer {name}: {error}") from error

    @property
    def beyond_numpy(self) -> str:
        """Return the first option that a step in NumPy has not; "" where it has them all."""
        if self.optimizer != "Adam":
            return self.optimizer
        own = {
            "weight_decay": self.weight_decay > 0,
            "max_grad_value": self.max_grad_value < math.inf,
            "freeze": bool(self.freeze),
        }
        used = [*(name for name, there in own.items() if there), *self.regularisation.used]
        return used[0] if used else ""


def optimizer_class(name: str) -> Any:
    """Return the class of optimisers by a name; UsageError with the closest."""
    known: dict[str, Any] = {
        key: cls
        for key, cls in vars(torch.optim).items()
        if isinstance(cls, type)
        and issubclass(cls, torch.optim.Optimizer)
        and "weight_decay" in inspect.signature(cls).parameters  # not LBFGS, SparseAdam
    }
    known |= {"AdaBound": AdaBound, **dict.fromkeys(EXTRA, torch.optim.SGD)}
    if name not in known:
        raise UsageError(f"optimizer {name!r}.{closest(name, known)} Known: {', '.join(known)}")
    return known[name]


@cache
def without_compiler(cls: Any) -> Any:
    """Return a class of optimisers with the same methods, free of what `torch.compile` needs.

    torch's decorators import its compiler, a second of CPU time, when they are first called.
    """
    names = {name for base in cls.__mro__ for name, x in vars(base).items() if callable(x)}
    found = {name: getattr(cls, name) for name in names}
    own = {name: inspect.unwrap(x) for name, x in found.items() if hasattr(x, "__wrapped__")}
    own["step"] = torch.no_grad()(own["step"])

    def reduce(self: Any, protocol: int) -> tuple[Any, ...]:
        return unpickled, (cls,), self.__getstate__()

    return type(cls.__name__, (cls,), {**own, "__reduce_ex__": reduce})


def unpickled(cls: Any) -> Any:
    """Return an optimiser of `without_compiler(cls)` whose state pickle sets next."""
    made = without_compiler(cls)
    return made.__new__(made)


def follow(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[nn.Parameter]:
    """Return a module's weights, and let its optimiser step them, where some were replaced.

    What was gathered for a weight goes on for the one of the same shape in its place.
    """
    weights, group = list(module.parameters()), optimizer.param_groups[0]
    known = group["params"]
    if len(known) != len(weights) or any(map(operator.is_not, known, weights)):
        gathered = [optimizer.state.pop(old, None) for old in known]
        for old, new, part in zip(known, weights, gathered, strict=False):
            if part and old.shape == new.shape:
                optimizer.state[new] = part
        group["params"] = list(weights)
    return weights


def freeze(network: Network, name: str) -> None:
    """Let nothing of a network's parts of a name move; refuse a name that no part has."""
    found = [part for path, part in network.named_modules() if path.rpartition(".")[2] == name]
    weights = [weight for part in found for weight in part.parameters()]
    if not weights:
        paths = [path.split(".")[:-1] for path, _ in network.named_parameters()]
        known = sorted({part for path in paths for part in path if not part.isdigit()})
        text = f"{name_of(network)} has no part of that name with weights"
        raise UsageError(
            f"freeze {name!r}: {text}.{closest(name, known)} Known: {', '.join(known)}"
        )
    for weight in weights:
        weight.requires_grad_(False)
    for part in found:
        keep_statistics(part)


def keeper(module: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Return what sets a module's numbers, and what was gathered for them, to those of now."""
    kept = [leaf.clone() for leaf in module.state_dict().values()]
    gathered = copy.deepcopy(optimizer.state_dict())

    def undo() -> None:
        with torch.no_grad():
            for leaf, before in zip(module.state_dict().values(), kept, strict=True):
                leaf.copy_(before)
        optimizer.load_state_dict(gathered)

    return undo


@contextmanager
def without_denormals() -> Iterator[None]:
    """Let this thread take numbers below the smallest normal one, 1.2e-38, for 0, where it can.

    Moments of weights whose gradient has become 0, as behind dead units, decay into them, and a
    step of Adam on such numbers takes over ten times as long. No normal weight moves otherwise.
    """
    before = bool(DENORMAL * ONE == 0.0)  # torch has no question for it
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what an optimiser has gathered, as arrays and plain values."""
    gathered = optimizer.state_dict()["state"]
    return {
        str(i): {k: to_numpy(v) if isinstance(v, Tensor) else v for k, v in part.items()}
        for i, part in gathered.items()
    }


def expected_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return `optimizer_state` as it is after a step in which every weight had a gradient."""
    trial = copy.deepcopy(optimizer)
    for group in trial.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    trial.step()
    return optimizer_state(trial)


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], name: str = "optimizer"
) -> None:
    """Load what `optimizer_state` gave; refuse by `name` what this optimiser cannot have."""
    if not isinstance(state, dict):
        schema.refuse(name, state, "what an optimiser has gathered")
    expected = expected_state(optimizer)  # but a weight without a gradient has gathered nothing
    schema.check(name, state, {i: part for i, part in expected.items() if i in state})
    gathered = {
        int(i): {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in part.items()}
        for i, part in state.items()
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": gathered, "param_groups": groups})


def load_weights(module: nn.Module, state: Mapping[str, Any], name: str = "weights") -> None:
    """Fill a module from arrays; refuse by `name` what is not of its names, dtypes and shapes."""
    schema.check(name, state, dict(module.state_dict()))
    module.load_state_dict({name: torch.as_tensor(np.array(x)) for name, x in state.items()})


def clip_gradients(
    module: nn.Module, weights: Iterable[Tensor], most: float, each: float = math.inf
) -> tuple[Tensor, DeferredChecks]:
    """Cut gradients to a size of at most `each`, then scale them to a norm of at most `most`.

    Return the norm before both. A gradient that is not finite is refused (RunError) by its
    weight's name in the module; where a device knows the check is returned.
    """
    owners = [weight for weight in weights if weight.grad is not None]
    grads: list[Any] = [weight.grad for weight in owners]
    norm = before = norm_of(grads)
    # the next step's gradients take the place of these before a device is looked at
    found = grads if is_on_host(norm) else torch._foreach_norm(grads, math.inf)
    checks = require_finite(norm, partial(refuse_gradient, module, owners, found))
    if each < math.inf:
        torch._foreach_clamp_min_(grads, -each)
        torch._foreach_clamp_max_(grads, each)
        norm = norm_of(grads)
    if not is_on_host(norm):  # whose size nobody asks for
        torch._foreach_mul_(grads, (most / norm.double()).clamp(max=1.0).to(norm.dtype))
    elif (size := float(norm)) > most:
        torch._foreach_mul_(grads, most / size)
    return before, checks


def refuse_gradient(module: nn.Module, owners: list[Tensor], found: Sequence[Tensor]) -> NoReturn:
    """Raise the RunError that names a module's first weight whose numbers found are not finite."""
    wrong = {id(owner) for owner, x in zip(owners, found, strict=True) if not x.isfinite().all()}
    bad = (name for name, weight in module.named_parameters() if id(weight) in wrong)
    first = next(bad, "all weights together")  # where only the sum of squares is too large
    kept = "the weights before it are kept: try a smaller --learning-rate"
    raise RunError(f"the gradient of {first} is not finite; {kept}")


def norm_of(grads: list[Tensor]) -> Tensor:
    """Return the Euclidean norm of all gradients together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
