"""Agents and networks by the names and numbers of a run's config."""

from __future__ import annotations

import inspect
import os
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from seqrl.agents.protocol import Agent
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.policy import Boltzmann, EpsilonGreedy
from seqrl.core.action_mask import rest_space
from seqrl.core.errors import UsageError
from seqrl.core.named_code import import_named
from seqrl.core.seeding import Streams

if TYPE_CHECKING:
    import gymnasium as gym
    from torch import nn

Config = dict[str, Any]  # what config.toml holds


def build_network(
    name: str, space: gym.Space, args: dict[str, Any], normalize: bool = False
) -> nn.Module:
    """A network by name, or `module:Class` called as Class(**args), on normalised observations.

    A parameter named observation_space is given the space. Raises UsageError in a line.
    """
    space = rest_space(space)
    if normalize:
        from seqrl.networks.normalized import Normalized, normalized_space

        return Normalized(build_network(name, normalized_space(space), args), space)
    from torch import nn

    from seqrl.networks.build import build

    module, own, attribute = name.partition(":")
    if not own:
        return build(name, space, **args)
    try:
        cls = getattr(import_named(module), attribute)
    except Exception as error:  # whatever a module of the user's may do
        problem = f"{type(error).__name__}: {error}"
        raise UsageError(f"--network {name}: {problem}; expected module:Class") from error
    try:
        wants = "observation_space" in inspect.signature(cls).parameters
        made = cls(**args, **({"observation_space": space} if wants else {}))
    except Exception as error:
        raise UsageError(f"--network {name}: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"--network {name}: expected a torch.nn.Module, got {type(made).__name__}")
    return made


def build_agent(
    config: Config, observation_space: gym.Space, action_space: gym.Space, streams: Streams
) -> Agent:
    """Return the agent of a run for environments of these spaces, on a table or on a network."""
    if config.get("network") or not AGENTS[config["agent"]].table:
        return build_network_agent(config, observation_space, action_space, streams)
    cls = agent_class(config["agent"])
    numbers = arguments(cls, config["agent_args"])
    return cls(table_index(config, observation_space), action_space, **numbers, seed=streams.agent)


def arguments(cls: Any, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return an agent's constructor arguments from its numbers, as flags and config name them.

    The fields of argument classes (see `Optim`) are gathered into these, epsilon or temperature
    into the exploration.
    """
    numbers = dict(numbers)
    for name, parameter in inspect.signature(cls).parameters.items():
        default: Any = parameter.default
        if is_dataclass(default):
            own = [field.name for field in fields(default) if field.name in numbers]
            changed: Any = replace
            numbers[name] = changed(default, **{field: numbers.pop(field) for field in own})
        elif name == "exploration" and "temperature" in numbers:
            numbers[name] = Boltzmann(numbers.pop("temperature"))
        elif name == "exploration" and "epsilon" in numbers:
            numbers[name] = EpsilonGreedy(numbers.pop("epsilon"))
    return numbers


def build_network_agent(
    config: Config, observation_space: gym.Space, action_space: gym.Space, streams: Streams
) -> Agent:
    """An agent on a network; weights are drawn from the run's own stream."""
    import torch
    from threadpoolctl import threadpool_limits

    if "OMP_NUM_THREADS" not in os.environ:
        # small networks lose more to a second thread than they gain, in torch and in NumPy
        torch.set_num_threads(1)
        threadpool_limits(1, user_api="blas")
    if config.get("deterministic"):  # the same bits every time, on a GPU too
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at cuBLAS's first use
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    # what a network of the user's draws in its layers comes from there, too
    torch.manual_seed(int(streams.network.generate_state(1)[0]))
    name = config.get("network") or "mlp"
    made = name, observation_space, config.get("network_args", {})
    network = build_network(*made, normalize=bool(config.get("normalize_obs")))
    cls = agent_class(config["agent"], network=True)
    # a config of version 0.1 has no adam_eps; it was this
    numbers = arguments(cls, {"adam_eps": 1e-8, **config["agent_args"]})
    return cls(network, action_space, observation_space, **numbers, seed=streams.agent)


def table_index(config: Config, space: gym.Space) -> TableIndex:
    """How observations become rows of a table."""
    ranges = {int(d): (low, high) for d, (low, high) in config["bin_range"].items()}
    tiles = config.get("tiles") or 1
    bins = config.get("bins") or (8 if tiles > 1 else None)
    return TableIndex(space, bins, tiles, ranges)
