"""The greedy policy of an agent on a network, as a program of torch and as steps in NumPy."""

from __future__ import annotations

import io
import json
import logging
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from seqrl.agents.deep.heads import Real
from seqrl.agents.deep.network_agent import NetworkAgent
from seqrl.agents.deep.outputs import Outputs, masked
from seqrl.agents.deep.policy_agent import PolicyAgent
from seqrl.agents.deep.squashed import Squashed
from seqrl.agents.npz_policy import Path, Step, choice, whole_path
from seqrl.core import action_mask, tree
from seqrl.core.arrays import to_numpy, to_tensor
from seqrl.core.errors import UsageError, explain
from seqrl.core.types import Array
from seqrl.networks.base import copied, name_of
from seqrl.networks.normalize import Normalize
from seqrl.networks.plain.numpy_forward import numpy_forward
from seqrl.networks.vectors import Numbers, OneHot

BATCH = 3  # observations that a program for any number of them is traced with
ABOUT = "policy.json"  # in a program's file: what it takes and gives
Play = Callable[[Array, np.ndarray], np.ndarray]


class Greedy(nn.Module):
    """From observations, memory and episode starts to greedy actions and memory, on the CPU.

    obs: a tree with leaves [N, ...], an action mask included. state: the leaves of the memory
    [N, ...], () where there is none. start: bool [N]; where it is True the memory is forgotten.
    Actions are as the environments take them: counted from their start, clipped to their bounds.
    """

    low: Tensor
    high: Tensor

    def __init__(self, agent: NetworkAgent, action_space: gym.Space):
        super().__init__()
        self.outputs: Outputs = copied(acting(agent)).cpu().eval().requires_grad_(False)
        self.initial = self.outputs.network.initial_state(1)
        self.greedy = agent.greedy
        self.bounded = isinstance(action_space, gym.spaces.Box)
        if isinstance(action_space, gym.spaces.Box):
            self.register_buffer("low", torch.from_numpy(action_space.low))
            self.register_buffer("high", torch.from_numpy(action_space.high))

    def forward(
        self, obs: Any, state: tuple[Tensor, ...], start: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map one step of N episodes to actions [N, ...] and memory."""
        seen, legal = action_mask.split(obs)
        leaves = iter(state)
        before = tree.map(lambda _: next(leaves), self.initial)
        out, after = self.outputs(*tree.map(lambda leaf: leaf[None], (seen, start)), before)
        out = out[0]
        if legal is not None and self.outputs.choices:
            out = masked(out, legal, self.outputs.choices)
        action = self.greedy(out)
        if self.bounded:
            action = action.maximum(self.low).minimum(self.high)
        return action, tuple(tree.leaves(tree.map(lambda _, leaf: leaf, self.initial, after)))

    def memory(self, n: int) -> tuple[Tensor, ...]:
        """Return the leaves of the initial memory of N episodes."""
        return tuple(tree.leaves(self.outputs.network.initial_state(n)))


def acting(agent: NetworkAgent) -> Outputs:
    """Return the network and layer that an agent acts by."""
    return next(iter(agent.parts.values())).module


def program(agent: NetworkAgent, action_space: gym.Space, obs: Array) -> tuple[bytes, Play, int]:
    """Return the file of the program that torch.export makes, its play, and for how many rows.

    The play maps N observations [N, ...] and their starts [N] to actions, by what the file holds.
    It is for 1 row where torch.export could not trace the network for any number of them.
    obs: a batch of one observation [1, ...].
    """
    module = Greedy(agent, action_space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        traced, n = traced_program(module, obs)
        file = io.BytesIO()
        about = json.dumps(description(module, obs, n))
        torch.export.save(traced, file, extra_files={ABOUT: about})
        file.seek(0)
        loaded, state = torch.export.load(file).module(), module.memory(n)

    def play(obs: Array, start: np.ndarray) -> np.ndarray:
        nonlocal state
        seen, begins = to_tensor((obs, start), "cpu")
        action, state = loaded(seen, state, begins)
        return to_numpy(action)

    return file.getvalue(), play, n


def traced_program(module: Greedy, obs: Array) -> tuple[Any, int]:
    """Return a program for any number of observations and BATCH; or for one alone, and 1."""
    for n in (BATCH, 1):
        start = torch.ones(n, dtype=torch.bool)
        seen = to_tensor(tree.map(lambda leaf, n=n: np.repeat(leaf, n, 0), obs), "cpu")
        inputs = seen, module.memory(n), start
        axis = torch.export.Dim("n")
        shapes = None if n == 1 else tree.map(lambda _, axis=axis: {0: axis}, inputs)
        try:
            with torch.no_grad(), silent():
                return torch.export.export(module, inputs, dynamic_shapes=shapes), n
        except Exception as error:  # whatever a module of the user's may do
            problem = error
    name = name_of(module.outputs.network)
    cause = textwrap.shorten(explain(problem), 120, placeholder=" ...")
    remedy = "see what torch.export says of its forward, or play it by seqrl.load"
    raise UsageError(f"network {name} cannot be traced: {cause}; {remedy}") from problem


@contextmanager
def silent() -> Iterator[None]:
    """Let nothing be said: of a network that cannot be traced torch logs and prints graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def description(module: Greedy, obs: Array, n: int) -> dict[str, Any]:
    """Return what a program takes, as plain values: the first axis N is left out of shapes."""
    seen = to_tensor(obs, "cpu")

    def leaf(x: Tensor) -> dict[str, Any]:
        return {"shape": list(x.shape[1:]), "dtype": str(x.dtype).removeprefix("torch.")}

    inputs = {"obs": tree.map(leaf, seen), "state": tree.map(leaf, module.memory(1))}
    return {**inputs, "start": {"shape": [], "dtype": "bool"}, "batch": "any" if n > 1 else 1}


def network_steps(
    agent: NetworkAgent, observation_space: gym.Space, action_space: gym.Space
) -> tuple[Sequence[Path], Sequence[Step]]:
    """Return the path to what is observed, and the steps from there to the greedy action.

    UsageError for a network that is not plain, or has memory.
    """
    outputs = acting(agent)
    forward = numpy_forward(outputs.network, outputs.layer)
    layers = [] if forward is None else forward.layers
    if not layers or any(type(layer) not in STEPS for layer in layers):
        plain = "npz holds multi-layer perceptrons on one vector, without memory"
        name = name_of(outputs.network)
        raise UsageError(f"network {name}: {plain}; export it to NAME.pt2")
    steps = [step for layer in layers for step in STEPS[type(layer)](layer)]
    if outputs.dueling:
        steps.append(("dueling",))
    elif isinstance(agent, PolicyAgent):  # without values and spreads beside its numbers
        name, *arrays = steps[-1]
        steps[-1] = name, *(array[..., : agent.head.deciding] for array in arrays)
    last = last_steps(agent, observation_space, action_space)
    return [whole_path(observation_space, ())], [*steps, *last]


def last_steps(
    agent: NetworkAgent, observation_space: gym.Space, action_space: Any
) -> Sequence[Step]:
    """Return the steps from the numbers of a network to the greedy action."""
    head, counts = getattr(agent, "head", None), acting(agent).choices
    if counts:
        return [choice(observation_space, counts, action_space.start)]
    if isinstance(head, Real) and isinstance(agent, PolicyAgent):
        squashed: list[Step] = [("squash", head.flags)] if isinstance(head, Squashed) else []
        scaled = "scaled", head.center, head.reach / np.float32(agent.temperature)
        return [*squashed, scaled, ("clip", action_space.low, action_space.high)]
    return [("positive", np.zeros(action_space.shape, np.int8))]


def linear_step(layer: nn.Linear) -> list[Step]:
    """Return the step of a linear layer: weights [inputs, outputs] and bias [outputs]."""
    weight = to_numpy(layer.weight).T
    bias = np.zeros_like(weight[0]) if layer.bias is None else to_numpy(layer.bias)
    return [("linear", weight, bias)]


def normalize_step(layer: Normalize) -> list[Step]:
    """Return the step of running normalisation."""
    scale = torch.rsqrt(layer.var + layer.epsilon)
    return [("normalize", *to_numpy((layer.mean, scale)), np.float32(layer.limit))]


def one_hot_step(layer: OneHot) -> list[Step]:
    """Return the step of one-hot columns."""
    return [("one_hot", to_numpy(layer.shift), layer.features)]


STEPS: dict[type[nn.Module], Callable[[Any], list[Step]]] = {
    nn.Linear: linear_step,
    Normalize: normalize_step,
    Numbers: lambda layer: [("numbers", to_numpy(layer.scale))],
    OneHot: one_hot_step,
    nn.Tanh: lambda layer: [("tanh",)],
    nn.ReLU: lambda layer: [("relu",)],
    nn.Sigmoid: lambda layer: [("sigmoid",)],
    nn.Identity: lambda layer: [],
    nn.Flatten: lambda layer: [],
}
