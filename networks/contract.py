"""The contract of networks, as a first try shows it; the try builds lazy layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core import tree
from seqrl.core.checks import check_parts
from seqrl.core.errors import UsageError, explain
from seqrl.core.types import State
from seqrl.networks.base import Network, describe, parts_of, refuse


def probe(network: Network, observation_space: Space, device: Any = None) -> int:
    """Run dummy batches (T = 1) to build lazy layers; return the number of features.

    Weights and running statistics stay as they are; `device` None is that of the weights.
    Raises UsageError, naming the network, when it fails on such a batch or its output or memory
    breaks the contract.
    """
    training = network.training
    network.eval()
    device = device_of(network) if device is None else device
    obs = dummy(observation_space, (1, 2), device)
    start = torch.ones((1, 2), dtype=torch.bool, device=device)
    try:
        return attempt(network, obs, start, f"a batch of zeros from {observation_space}")
    finally:
        network.train(training)


@torch.inference_mode(False)  # layers built in it could not be trained
@torch.no_grad()
def attempt(network: Network, obs: Any, start: Tensor, what: str) -> int:
    """Try a network on observations [1, N, ...] and on one environment fewer (two for N = 1).

    Returns the number of features; refuses what fails or breaks the contract. A memory that has
    another axis in front can have the right length for one N only.
    """
    n = start.shape[1]
    for count in (n, n - 1 or 2):
        seen, begins = tree.map(lambda x, k=count: torch.cat([x, x], 1)[:, :k], (obs, start))
        out, state = call(network, seen, begins, None, what)
        check_output(network, out, state, (1, count))
        network.features = out.shape[-1]
        check_initial_state(network, state, count)
        if state is not None:  # learning goes through time
            seen, begins = tree.map(lambda x: torch.cat([x, x]), (seen, begins))
            out, state = call(network, seen, begins, state, what)
            check_output(network, out, state, (2, count))
    return network.features


def call(network: Network, obs: Any, start: Tensor, state: State, what: str) -> Any:
    """Call a network; refuse one that fails."""
    try:
        out, state = network(obs, start, state)
    except UsageError:
        raise
    except Exception as error:
        refuse(network, f"failed on {what}: {explain(error)}", error)
    return out, state


def check_output(network: Network, out: Any, state: State, shape: tuple[int, int]) -> None:
    """Raise UsageError unless out is [T, N, features], finite, and memory has N as axis 0."""
    t, n = shape
    expected = f"output [T, N, features] = [{t}, {n}, {network.features or 'features'}]"
    problem = f"expected {expected}, got {describe(out)}"
    if not isinstance(out, Tensor) or out.ndim != 3 or out.shape[:2] != shape:
        refuse(network, problem)
    if network.features and out.shape[2] != network.features:
        refuse(network, f"{problem}; set its attribute `features` to {out.shape[2]}")
    if not out.is_floating_point() or not bool(out.isfinite().all()):
        refuse(network, f"expected finite floats, got NaN, inf or {out.dtype}")
    for leaf in tree.leaves(state):
        if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) != n:
            memory = f"every part of its memory to have N = {n} as axis 0"
            refuse(network, f"expected {memory}, got {describe(leaf)}")
        if leaf.dtype is torch.bfloat16:
            refuse(network, "expected memory of a type that NumPy has, got torch.bfloat16")


def check_initial_state(network: Network, state: State, n: int) -> None:
    """Refuse memory of another form than `initial_state` has: without one it is not kept."""
    try:
        initial = network.initial_state(n)
    except UsageError:
        raise
    except Exception as error:
        refuse(network, f"initial_state({n}) failed: {explain(error)}", error)
    first, later = (tree.map(describe, memory) for memory in (initial, state))
    if first != later:
        problem = f"initial_state({n}) gives {first}, forward {later} as memory"
        refuse(network, f"{problem}; expected the same form: override initial_state(n) with zeros")


def dummy(space: Space, shape: tuple[int, int], device: Any = None) -> Any:
    """Return a tree [T, N, ...] of zeros, or of the first category where that is not 0."""

    def has_numbers(part: Space) -> bool:
        return part.shape is not None and np.dtype(part.dtype).kind in "biuf"

    def zeros(part: Space) -> Tensor:
        first = getattr(part, "start", 0)  # Discrete and MultiDiscrete need not begin at 0
        leaf = np.broadcast_to(np.asarray(first, part.dtype), shape + (part.shape or ()))
        return torch.tensor(leaf, device=device)

    check_parts(space, has_numbers, "a network takes arrays of numbers")
    return tree.map(zeros, parts_of(space))


def device_of(network: nn.Module) -> torch.device:
    """Return the device of the first weight; the CPU if there is none."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))
