"""Checks of the network contract on random rollouts, for ours and for a user's own."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core import tree
from seqrl.core.action_mask import rest_space
from seqrl.core.errors import UsageError
from seqrl.core.tokens import PAD, token_space
from seqrl.core.types import State
from seqrl.networks import base, contract
from seqrl.networks.base import Network

TOLERANCE = 1e-5
ROUNDING = 1e-6  # of products whose shape depends on where episodes and replies begin


class Rollout(NamedTuple):
    """Observations [T, N, ...], episode starts [T, N], and observations to replace them by."""

    obs: Any
    start: Tensor
    other: Any


def check_network(
    module: nn.Module,
    observation_space: Space,
    *,
    steps: int = 12,
    envs: int = 3,
    seed: int = 0,
    device: Any = None,
) -> int:
    """Check a network, or a plain module, on random rollouts; return its number of features.

    In eval mode, with episode starts inside: step by step equals one call (1e-5); a start resets
    the memory whatever it was; changing an observation changes nothing before it, in another
    episode or in another environment (1e-6), and neither do added environments or later steps;
    gradients reach the parameters and stay within the episode; forward changes nothing.
    Raises UsageError naming the network and the property that fails.
    """
    network, observation_space = base.as_network(module), rest_space(observation_space)
    device = contract.device_of(network) if device is None else device
    features = contract.probe(network, observation_space, device)
    rollout = sample_rollout(observation_space, steps, envs, seed, device)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with _eval_mode(network):
        check_inputs(network, rollout)
        out, state = network(rollout.obs, rollout.start)
        contract.check_output(network, out, state, (steps, envs))
        for check in (check_stepping, check_memory, check_isolation, check_slices, check_gradients):
            check(network, rollout)
    for key, value in network.state_dict().items():
        _require(network, torch.equal(value, before[key]), f"forward changed {key}")
    return features


@torch.no_grad()
def check_inputs(network: Network, rollout: Rollout) -> None:
    """Check that forward leaves observations and memory as they are."""
    obs = tree.map(torch.clone, rollout.obs)
    _, state = network(obs, rollout.start)
    before = tree.map(torch.clone, state)
    network(obs, rollout.start, state)
    same = largest_gap((obs, state), (rollout.obs, before)) == 0
    text = "forward changes its observations or memory in place"
    _require(network, same, f"{text}; expected x = x * 2, not x *= 2 or x.mul_(2)")


@torch.no_grad()
def check_stepping(network: Network, rollout: Rollout) -> None:
    """Check that one call over the rollout equals a call a step, in outputs and memory."""
    whole, last = network(rollout.obs, rollout.start)
    state, outputs = None, []
    for t in range(len(rollout.start)):
        step = slice(t, t + 1)
        out, state = network(slice_time(rollout.obs, step), rollout.start[step], state)
        outputs.append(out)
    text, remedy = "step by step and in one call differ by", "; reset memory before a start's step"
    _require_close(network, torch.cat(outputs), whole, text, remedy)
    _require_close(network, state, last, f"the memories left {text}")


@torch.no_grad()
def check_memory(network: Network, rollout: Rollout) -> None:
    """Check that initial_state equals None, and that a start resets any memory that enters."""
    n = rollout.start.shape[1]
    starts = rollout.start.clone()
    starts[0] = True
    initial = network.initial_state(n)
    by_none, _ = network(rollout.obs, rollout.start)
    by_initial, last = network(rollout.obs, rollout.start, initial)
    text = "initial_state(N) and None differ"
    _require(network, largest_gap(by_initial, by_none) <= TOLERANCE, text)
    reset, _ = network(rollout.obs, starts, last)
    expected, _ = network(rollout.obs, starts)
    _require(network, largest_gap(reset, expected) == 0, "a start does not clear the memory")


@torch.no_grad()
def check_isolation(network: Network, rollout: Rollout) -> None:
    """Check that observation (t, n) affects outputs (t.., n) up to the episode's end only."""
    steps, envs = rollout.start.shape
    whole, _ = network(rollout.obs, rollout.start)
    for t in range(steps):
        n = t % envs
        out, _ = network(_with_other(rollout, t, n), rollout.start)
        same = ~causal_mask(rollout.start, t, n)
        gap = largest_gap(out[same], whole[same])
        text = "before it, of another episode or of another environment"
        text = f"an observation changed outputs {text} (by {gap:.2g})"
        _require(network, gap <= ROUNDING, f"{text}; they must stay as they were")


@torch.no_grad()
def check_slices(network: Network, rollout: Rollout) -> None:
    """Check that outputs are the same without the later steps or without an environment."""
    half, few = len(rollout.start) // 2, max(1, rollout.start.shape[1] - 1)
    whole, _ = network(rollout.obs, rollout.start)
    early, _ = network(slice_time(rollout.obs, slice(half)), rollout.start[:half])
    some = tree.map(lambda leaf: leaf[:, :few], rollout.obs)
    narrow, _ = network(some, rollout.start[:, :few])
    _require_close(network, early, whole[:half], "steps that follow change outputs by")
    _require_close(network, narrow, whole[:, :few], "further environments change outputs by")


def check_gradients(network: Network, rollout: Rollout) -> None:
    """Check that gradients are finite, reach the weights, and stay within the episode."""
    inputs: list[Tensor] = []

    def require_grad(leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        inputs.append(leaf.clone().requires_grad_())
        return inputs[-1]

    obs = tree.map(require_grad, rollout.obs)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    if not weights and not inputs:
        return
    out, _ = network(obs, rollout.start)
    _require(network, out.requires_grad, "no gradient reaches its weights: something detaches it")
    grads = _gradients(out.square().sum(), [*weights, *inputs])
    _require(network, all(bool(g.isfinite().all()) for g in grads), "gradients not finite")
    _require(network, any(bool(g.any()) for g in grads), "all its gradients are zero")
    text = "a gradient reaches an observation that is later, or of another episode or environment"
    for t in range(len(out)):
        n = t % out.shape[1]
        mask = torch.stack([causal_mask(rollout.start, i, n)[t] for i in range(len(out))])  # [T, N]
        for grad in _gradients(out[t, n].sum(), inputs):
            _require(network, not bool(grad[~mask].any()), text)


def causal_mask(start: Tensor, t: int, n: int) -> Tensor:
    """Return bool [T, N]: the outputs that may depend on observation (t, n)."""
    episode = start[:, n].cumsum(0)
    time = torch.arange(len(start), device=start.device)
    mask = torch.zeros_like(start)
    mask[:, n] = (time >= t) & (episode == episode[t])
    return mask


def slice_time(obs: Any, times: slice) -> Any:
    """Return these steps of a rollout's observations."""
    return tree.map(lambda leaf: leaf[times], obs)


def largest_gap(a: State, b: State) -> float:
    """Return the largest difference between two trees of tensors; inf if there is a NaN."""
    gap = 0.0
    for one, other in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if one.numel() and not torch.equal(one, other):
            worst = float((one.detach().double() - other.detach().double()).abs().max())
            gap = max(gap, worst if worst == worst else float("inf"))
    return gap


def sample_rollout(
    space: Space, steps: int, envs: int, seed: int = 0, device: Any = None
) -> Rollout:
    """Return random observations; a step in four is a start, in each environment at least one."""
    rng = np.random.default_rng(seed)
    start = rng.random((steps, envs)) < 0.25
    start[rng.integers(1, steps, envs), np.arange(envs)] = True

    def sample(part: Space) -> Tensor:
        if isinstance(part, spaces.Box) and part.dtype.kind == "f":  # bounds may be 1e38 or none
            values = rng.standard_normal((steps, envs, *part.shape)).clip(part.low, part.high)
            return torch.as_tensor(values.astype(part.dtype), device=device)
        part.seed(int(rng.integers(2**31)))
        values = np.stack([np.asarray(part.sample()) for _ in range(steps * envs)])
        return torch.as_tensor(values.reshape(steps, envs, *values.shape[1:]), device=device)

    obs, other = (tree.map(sample, base.parts_of(copy.deepcopy(space))) for _ in range(2))
    if _shows_tokens(space):
        obs, other = (_padded_behind(shown, "source") for shown in (obs, other))
    elif isinstance(space, spaces.Dict) and set(space) == {"tokens", "parent"}:
        obs, other = map(_as_trees, (obs, other))
    return Rollout(obs, torch.as_tensor(start, device=device), other)


def _shows_tokens(space: Space) -> bool:
    """Return whether a space is that of a token task, whose sources are padded behind."""
    try:
        return bool(token_space(space, ""))
    except UsageError:
        return False


def _as_trees(obs: Any) -> Any:
    """Return observations of trees, in which every token hangs from one before it."""
    obs = _padded_behind(obs, "tokens")
    place = torch.arange(obs["parent"].shape[-1], device=obs["parent"].device).clamp(min=1)
    return {**obs, "parent": (obs["parent"] % place).masked_fill(obs["tokens"] == PAD, 0)}


def _padded_behind(obs: Any, name: str) -> Any:
    """Return observations with at least one token, and padding behind the last."""
    source = obs[name]
    order = (source == PAD).to(torch.uint8).sort(dim=-1, stable=True).indices
    source = source.gather(-1, order)
    source[..., 0].clamp_(min=PAD + 1)
    return {**obs, name: source}


def _with_other(rollout: Rollout, t: int, n: int) -> Any:
    def swap(leaf: Tensor, other: Tensor) -> Tensor:
        leaf = leaf.clone()
        leaf[t, n] = other[t, n]
        return leaf

    return tree.map(swap, rollout.obs, rollout.other)


def _gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    if not inputs:
        return []
    grads = torch.autograd.grad(out, inputs, retain_graph=True, allow_unused=True)
    return [grad.clone() for grad in grads if grad is not None]


def _require_close(network: Network, a: State, b: State, text: str, remedy: str = "") -> None:
    gap = largest_gap(a, b)
    _require(network, gap <= TOLERANCE, f"{text} {gap:.2g}{remedy}")


def _require(network: Network, holds: bool, text: str) -> None:
    if not holds:
        base.refuse(network, text)


@contextlib.contextmanager
def _eval_mode(network: Network) -> Iterator[None]:
    """Set eval mode, and full float32 in cuDNN: its TF32 default is exact to 1e-3 only."""
    training = network.training
    network.eval()
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        network.train(training)
