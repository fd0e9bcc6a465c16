"""The base classes of networks, and what makes any module one of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NoReturn, TypeGuard

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core import tree
from seqrl.core.errors import UsageError, explain
from seqrl.core.types import State


class Network(nn.Module):
    """Base of all networks: observations [T, N, ...] -> features [T, N, features].

    Time is always axis 0; acting is T = 1. Memory is a tensor or nested tuples or dicts of
    tensors with N as axis 0, None for a network that keeps none. It is reset BEFORE the step
    where `start` is True; the memory returned is the one after the last step, not reset.
    """

    features: int = 0  # F; 0 while a lazy network waits for its first batch (see probe)
    noise: int = 0  # normal numbers a step that a network which draws is handed (see forward)
    has_auxiliary = False  # whether it learns from observations alone (see auxiliary)

    def initial_state(self, n: int) -> State:
        """Return the initial memory of n environments (zeros); None for a network without."""
        return None

    def forward(self, obs: Any, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map `obs` [T, N, ...], `start` bool [T, N], `state` or None to [T, N, F] and state.

        A network with `noise` above 0 takes one argument more: the normal numbers [T, N, noise]
        that its draws are made of, or None, where nothing is drawn and it gives the likeliest.
        """
        raise NotImplementedError

    def study(
        self, obs: Any, start: Tensor, state: State, answer: Tensor, valid: Tensor
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Map as `forward` does where right answers are learned; name more terms of the loss.

        `answer` [T, N, ...] are the right actions, known where `valid` [T, N] holds. A term is
        one number, a mean over the valid steps with its weight, added to the mean of minus the
        log-likelihood; finite where there are none of these. By itself there are no terms.
        """
        return *self(obs, start, state), {}

    def answering(self, action_space: Space) -> nn.Module | None:
        """Prepare to give answers of these actions; return the last layer if it brings its own.

        What imitates asks once, before anything goes through the network. The layer maps features
        [..., F] to the actions' numbers and has weights `weight` and `bias`.
        """
        return None

    def auxiliary(self, obs: Any, valid: Tensor) -> dict[str, Tensor]:
        """Return terms of a loss of its own, learned from observations [T, N, ...] alone, by name.

        Each is a mean over the steps where `valid` [T, N] holds; none unless `has_auxiliary`.
        """
        return {}

    def output_weight(self) -> Tensor | None:
        """Return weights [K, F] that a layer from features to K numbers is to share; here none."""
        return None

    def update(self, obs: Any, valid: Tensor) -> None:
        """Update the running statistics, if there are any, with observations [T, N, ...].

        Only steps where `valid` [T, N] is True count. Agents call this in `learn`; `forward`
        never changes anything.
        """


class Encoder(Network):
    """A network without memory: each observation is encoded by itself."""

    wide = False  # whether its features may need float64 before they are normalised

    def encode(self, obs: Any) -> Tensor:
        """Map `obs` [B, ...] to features [B, features]."""
        raise NotImplementedError

    def forward(self, obs: Any, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Encode every step by itself; `start` is ignored."""
        out = self.encode(tree.map(lambda leaf: leaf.flatten(0, 1), obs))
        return out.unflatten(0, start.shape), None


class ModuleEncoder(Encoder):
    """Any torch module from [B, ...] to [B, F], as an Encoder."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.features = _known_features(module)

    def encode(self, obs: Any) -> Tensor:
        """Return the module's output; raise UsageError unless it is [B, features]."""
        out = self.module(obs)
        count = next(tree.leaves(obs)).shape[0]  # not len, which a trace takes for a constant
        if not isinstance(out, Tensor) or out.ndim != 2 or out.shape[0] != count:
            got = f"got {describe(out)}; flatten and project to one row an observation"
            refuse(self, f"expected output [B, features] with B = {count}, {got}")
        self.features = self.features or out.shape[1]
        return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out  # autocast


class Core(Network):
    """A network on top of a source network: maps the source's features, perhaps with memory.

    A subclass sets its attributes and calls `build_once()`; it makes its layers in `build`, maps
    features in `run`, and (with memory) returns zeros in `own_initial_state`. The memory of both
    is that of the source, that of the core, or the pair (source's, core's) if both have one.
    """

    has_own_memory = False

    def __init__(self, source: Network) -> None:
        super().__init__()
        self.source, self.noise = source, source.noise
        self.has_auxiliary = source.has_auxiliary
        self.source_has_memory = has_memory(source)
        self.built = False

    def build(self, features: int) -> None:
        """Make the layers for `features` inputs and set `self.features`."""
        raise NotImplementedError

    def own_initial_state(self, n: int) -> State:
        """Return this core's own initial memory."""
        return None

    def run(self, x: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
        """Map features [T, N, F] and this core's own memory to its output and memory."""
        raise NotImplementedError

    def build_once(self, x: Tensor | None = None) -> None:
        """Call `build` as soon as the source's features are known: now, or by its first output."""
        features = self.source.features if x is None else x.shape[-1]
        if not self.built and features:
            self.build(features)
            self.built = True
            if x is not None:
                self.to(x.device, x.dtype)

    def initial_state(self, n: int) -> State:
        """Return the initial memory: the source's, this core's, or both as a pair."""
        if not self.built:
            problem = "the features of its encoder are not known yet"
            refuse(self, f"{problem}; call probe(network, observation_space) first")
        return self._join(self.source.initial_state(n), self.own_initial_state(n))

    def forward(
        self, obs: Any, start: Tensor, state: State = None, noise: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Apply the source, then this core."""
        source_state, own_state = self._split(state)
        x, source_state = handed(self.source, obs, start, source_state, noise)
        return self._above(x, start, source_state, own_state)

    def study(
        self, obs: Any, start: Tensor, state: State, answer: Tensor, valid: Tensor
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Let the source study, then apply this core."""
        source_state, own_state = self._split(state)
        x, source_state, terms = self.source.study(obs, start, source_state, answer, valid)
        return *self._above(x, start, source_state, own_state), terms

    def auxiliary(self, obs: Any, valid: Tensor) -> dict[str, Tensor]:
        """Return the source's terms."""
        return self.source.auxiliary(obs, valid)

    def _above(
        self, x: Tensor, start: Tensor, source_state: State, own_state: State
    ) -> tuple[Tensor, State]:
        """Apply this core to the source's features."""
        if not self.built:
            self.build_once(x)
        if own_state is None and self.has_own_memory:
            own_state = self.own_initial_state(start.shape[1])
        out, own_state = self.run(x, start, own_state)
        return out, self._join(source_state, own_state)

    def update(self, obs: Any, valid: Tensor) -> None:
        """Update the source's running statistics."""
        self.source.update(obs, valid)

    def _split(self, state: State) -> tuple[State, State]:
        if state is None:
            return None, None
        if not self.has_own_memory:
            return state, None
        return state if self.source_has_memory else (None, state)

    def _join(self, source_state: State, own_state: State) -> State:
        if not self.has_own_memory:
            return source_state
        return (source_state, own_state) if self.source_has_memory else own_state


def handed(
    network: Network, obs: Any, start: Tensor, state: State, noise: Tensor | None
) -> tuple[Tensor, State]:
    """Call a network, with noise [T, N, K] where there is some."""
    return network(obs, start, state) if noise is None else network(obs, start, state, noise)


def has_memory(network: Network) -> bool:
    """Return whether the network carries memory from step to step."""
    if isinstance(network, Encoder):
        return False
    if isinstance(network, Core):
        return network.has_own_memory or network.source_has_memory
    return network.initial_state(1) is not None


def as_network(module: nn.Module) -> Network:
    """Return the module if it is a Network, else wrapped as a map from [B, ...] to [B, F].

    What `torch.compile` has wrapped is compiled in place, so that its weights keep their names.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"network {module!r}: expected a torch.nn.Module, built, not a class")
    if hasattr(module, "_orig_mod"):
        compiled: Any = module
        module = compiled._orig_mod
        module._compiled_call_impl = compiled.dynamo_ctx(module._call_impl)
    check_precision(module)
    if isinstance(module, Network):
        return module
    if hasattr(module, "initial_state"):
        problem = "it has initial_state but is no Network"
        refuse(module, f"{problem}; derive it from seqrl.networks.Network")
    return ModuleEncoder(module)


def check_precision(module: nn.Module) -> None:
    """Refuse floats that neither optimisers nor NumPy can do with."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            problem = f"its {name} is {tensor.dtype}; expected float32 or float64"
            refuse(module, f"{problem}: call float(), and use torch.autocast in forward")


def refuse(network: nn.Module, problem: str, cause: Exception | None = None) -> NoReturn:
    """Raise a UsageError that names the network."""
    raise UsageError(f"network {name_of(network)}: {problem}") from cause


def parts_of(space: Space) -> Any:
    """Return the parts of a space as a tree: none of them is a Dict or Tuple."""
    if isinstance(space, spaces.Dict):
        return {key: parts_of(part) for key, part in space.items()}
    return tuple(map(parts_of, space)) if isinstance(space, spaces.Tuple) else space


def copied(module: nn.Module) -> Any:
    """Return an independent copy; refuse in a line what cannot be copied."""
    try:
        return copy.deepcopy(module, kept_outputs(module))
    except Exception as error:
        problem = f"it cannot be copied ({explain(error)})"
        refuse(module, f"{problem}; expected a module without locks, open files and generators")


def kept_outputs(module: nn.Module) -> dict[int, Tensor]:
    """Return copies of the outputs that a forward has kept, without their graph, by id.

    They are for deepcopy's memo, as torch copies nothing that has a graph.
    """
    kept = (x for part in module.modules() for x in _tensors([*vars(part).values()]))
    return {id(x): x.detach().clone() for x in kept if not x.is_leaf}


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(values, dict):
        values = [*values.values()]
    if isinstance(values, list | tuple):
        for part in values:
            yield from _tensors(part)
    elif isinstance(values, Tensor):
        yield values


def name_of(network: nn.Module) -> str:
    """Return the name of the class, of the wrapped one for a plain module."""
    return type(network.module if isinstance(network, ModuleEncoder) else network).__name__


def describe(out: Any) -> str:
    """Return what a network gave, for messages."""
    return f"shape {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__


def is_chain(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Return whether the module applies its layers one after the other, and nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _known_features(module: nn.Module) -> int:
    """Return the features declared by the module, or by a Sequential's last layer; else 0."""
    if is_chain(module) and len(module):
        return _known_features(module[-1])
    known = getattr(module, "features", getattr(module, "out_features", 0))
    return known if isinstance(known, int) else 0
