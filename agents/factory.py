"""Agents and networks by the names and numbers of a run's config."""

from __future__ import annotations

import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from seqrl.agents.arguments import arguments
from seqrl.agents.protocol import Agent
from seqrl.agents.registry import agent_class, on_network
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.tabular_agent import TabularAgent, check_actions
from seqrl.agents.word_vectors import EMBEDDING
from seqrl.core.action_mask import rest_space
from seqrl.core.errors import UsageError, UserError, explain
from seqrl.core.named_code import named_object
from seqrl.core.seeding import Streams

if TYPE_CHECKING:
    import gymnasium as gym
    import numpy as np
    from torch import nn

Config = dict[str, Any]  # what config.toml holds
NEEDED = "act learn values reseed state_dict load_state_dict gamma horizon device learner".split()


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

    if ":" not in name:
        if "." in name:
            own = "a network of your own is named module:Class, as in mynets:MyNet"
            raise UsageError(f"--network {name}: {own}")
        return build(name, space, **args)
    cls = named_object(name, f"--network {name}")
    given = {"observation_space": space} if wants_space(cls) else {}
    try:
        made = cls(**args, **given)
    except UserError as error:  # it says itself what it expected
        raise UsageError(f"--network {name}: {error}") from error
    except Exception as error:
        made_of = f"it cannot be made of {space}" if given else "it cannot be made"
        remedy = "name a class that can, with its --network-arg"
        raise UsageError(f"--network {name}: {made_of}: {explain(error)}; {remedy}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"--network {name}: expected a torch.nn.Module, got {type(made).__name__}")
    return made


def wants_space(cls: Any) -> bool:
    """Return whether what makes a network takes an argument observation_space."""
    try:
        return "observation_space" in inspect.signature(cls).parameters
    except (TypeError, ValueError):  # nothing to be called, or nothing that tells
        return False


def build_agent(
    config: Config, observation_space: gym.Space, action_space: gym.Space, streams: Streams
) -> Agent:
    """Return the agent of a run for environments of these spaces, on a table or on a network.

    Its class is called by keywords alone; a network's weights are drawn from the run's own stream.
    """
    name, networked = config["agent"], on_network(config["agent"], bool(config.get("network")))
    cls = agent_class(name, networked)
    if uses_torch(config):
        set_torch(config, streams.network)
    # a config of version 0.1 has no adam_eps; it was this
    old = {"adam_eps": 1e-8} if networked and ":" not in name else {}
    given = arguments(cls, {**old, **config["agent_args"]})
    given |= {"action_space": action_space, "seed": streams.agent}
    if issubclass(cls, TabularAgent):
        check_actions(action_space)  # before the user counts observations in vain
        given["observation_space"] = table_index(config, observation_space)
    else:
        given["observation_space"] = observation_space
    if networked:
        args = config.get("network_args", {})
        if ":" not in (config.get("network") or ""):  # vectors are given once it is made
            args = {name: value for name, value in args.items() if name != EMBEDDING}
        made = config.get("network") or "mlp", observation_space, args
        given["network"] = build_network(*made, normalize=bool(config.get("normalize_obs")))
    return build_own(cls, name, given) if ":" in name else cls(**given)


def build_own(cls: Any, name: str, given: dict[str, Any]) -> Agent:
    """Return an agent of a user's class; UsageError where it cannot be made or lacks something."""
    if "device" in given:
        from seqrl.agents.deep.devices import pick_device

        given["device"] = str(pick_device(given["device"])[0])
    try:
        agent = cls(**given)
    except UserError:
        raise
    except Exception as error:
        raise UsageError(f"--agent {name}: {explain(error)}") from error
    lacking = [part for part in NEEDED if not hasattr(agent, part)]
    if lacking:
        needed = f"it has no {', '.join(lacking)}, which a run needs; see seqrl.agents.Agent"
        raise UsageError(f"--agent {name}: {needed}")
    return agent


def uses_torch(config: Config) -> bool:
    """Return whether the agent of a config is on a network, or its code has loaded torch."""
    networked = on_network(config["agent"], bool(config.get("network")))
    return networked or (":" in config["agent"] and "torch" in sys.modules)


def set_torch(config: Config, seed: np.random.SeedSequence) -> None:
    """Set threads, torch's global generator, and whether it repeats exactly, as a config says."""
    import torch
    from threadpoolctl import threadpool_limits

    if config.get("threads") or "OMP_NUM_THREADS" not in os.environ:
        # small networks lose more to a second thread than they gain, in torch and in NumPy
        threads = config.get("threads") or 1
        torch.set_num_threads(threads)
        threadpool_limits(threads, user_api="blas")
    if config.get("deterministic"):  # the same bits every time, on a GPU too
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at cuBLAS's first use
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    # what a network of the user's draws in its layers comes from there, too
    torch.manual_seed(int(seed.generate_state(1)[0]))


def table_index(config: Config, space: gym.Space) -> TableIndex:
    """How observations become rows of a table."""
    ranges = {int(d): (low, high) for d, (low, high) in config["bin_range"].items()}
    tiles = config.get("tiles") or 1
    bins = config.get("bins") or (8 if tiles > 1 else None)
    return TableIndex(space, bins, tiles, ranges)
