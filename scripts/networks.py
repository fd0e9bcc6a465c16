"""The network a user names: one of ours, or a class of their own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seqrl.core import UsageError

if TYPE_CHECKING:
    import gymnasium as gym
    from torch import nn


def build_network(name: str, space: gym.Space, args: dict[str, Any]) -> nn.Module:
    """A network by name, or `module:Class` called as Class(**args).

    A parameter named observation_space is given the space. Raises UsageError in a line.
    """
    if ":" not in name:
        from seqrl.networks import build

        return build(name, space, **args)
    return build_own(name, space, args)


def build_own(name: str, space: gym.Space, args: dict[str, Any]) -> nn.Module:
    """An instance of the class that `module:Class` names."""
    import inspect

    from torch import nn

    module, _, attribute = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
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
