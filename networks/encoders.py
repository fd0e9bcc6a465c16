"""The default encoder of an observation space."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Set
from functools import partial
from typing import Any

from gymnasium import Space, spaces
from torch import nn

from seqrl.networks.base import Encoder, Network, as_network
from seqrl.networks.cnn import CNN, is_image
from seqrl.networks.mlp import MLP
from seqrl.networks.vectors import Embedding, TreeEncoder, flat, numbers


def encoder(space: Space, **options: Any) -> Network:
    """Return the default encoder of a space; options are those of its class.

    Image (see `is_image`) -> CNN; Discrete -> Embedding; Dict or Tuple -> MLP on its parts'
    features (see `tree_encoder`), with the options of both; else MLP.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return _encoder_class(space)(space, **options)
    tree_options = {name: options.pop(name) for name in TREE_OPTIONS & options.keys()}
    return MLP(tree_encoder(space, **tree_options), **options)


def tree_encoder(
    space: Space, *, preset: str | None = None, size: int = 64, normalize: bool = False
) -> Encoder:
    """Return an encoder of a tree of spaces that concatenates the features of its parts.

    Images go through a CNN of this preset, Discrete is embedded in `size` numbers, the rest is
    flattened (`normalize`: running normalisation of numbers; categories one-hot).
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        make = partial(tree_encoder, preset=preset, size=size, normalize=normalize)
        return TreeEncoder(space, make)
    if is_image(space):
        return CNN(space, preset)
    if isinstance(space, spaces.Discrete):
        return Embedding(space, size)
    return flat(space, normalize=normalize)


def encoder_options(space: Space) -> Set[str]:
    """Return the names of the options that `encoder` takes for this space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return options_of(MLP) | TREE_OPTIONS
    return options_of(_encoder_class(space))


def options_of(function: Any) -> Set[str]:
    """Return the names of the parameters after the first one, with those passed to a base."""
    _, *parameters = inspect.signature(function).parameters.values()
    names = {part.name for part in parameters if part.kind != part.VAR_KEYWORD}
    return names if len(names) == len(parameters) else names | options_of(function.__base__)


TREE_OPTIONS = options_of(tree_encoder)


def as_source(source: Space | nn.Module | int) -> Network:
    """Return the network below a core, from a space, a network, a module or a feature count."""
    if isinstance(source, Space):
        return encoder(source)
    return numbers(source) if isinstance(source, int) else as_network(source)


def _encoder_class(space: Space) -> Callable[..., Network]:
    if is_image(space):
        return CNN
    return Embedding if isinstance(space, spaces.Discrete) else MLP
