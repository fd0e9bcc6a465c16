"""The encoder that follows an observation space."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Set
from typing import Any

from gymnasium import Space, spaces
from torch import nn

from seqrl.networks.base import Encoder, Network, as_network
from seqrl.networks.cnn import CNN, is_image
from seqrl.networks.mlp import MLP
from seqrl.networks.vectors import Embedding, Parts, flat, numbers


def encoder(space: Space, **options: Any) -> Network:
    """The usual encoder for a space; options are those of the class it takes.

    Image (see `is_image`) -> CNN; Discrete -> Embedding; Dict or Tuple -> MLP over its parts
    side by side (see `parts`), with the options of both; else MLP.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return _class(space)(space, **options)
    early = {name: options.pop(name) for name in OF_PARTS & options.keys()}
    return MLP(parts(space, **early), **options)


def parts(
    space: Space, *, preset: str | None = None, size: int = 64, normalize: bool = False
) -> Encoder:
    """The first stage of a tree of spaces, with features side by side.

    Images go through a CNN of this preset, Discrete is embedded in `size` numbers, the rest is
    taken as it is (`normalize`: running normalisation of numbers; categories one-hot).
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return Parts(space, lambda part: parts(part, preset=preset, size=size, normalize=normalize))
    if is_image(space):
        return CNN(space, preset)
    if isinstance(space, spaces.Discrete):
        return Embedding(space, size)
    return flat(space, normalize=normalize)


def encoder_options(space: Space) -> Set[str]:
    """The names of the options that `encoder` takes for this space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return options_of(MLP) | OF_PARTS
    return options_of(_class(space))


def options_of(function: Any) -> Set[str]:
    """The names of the parameters after the first one."""
    return set(list(inspect.signature(function).parameters)[1:])


OF_PARTS = options_of(parts)


def as_source(source: Space | nn.Module | int) -> Network:
    """What a core goes on top of: a space's encoder, a network, a module, or plain numbers."""
    if isinstance(source, Space):
        return encoder(source)
    return numbers(source) if isinstance(source, int) else as_network(source)


def _class(space: Space) -> Callable[..., Network]:
    if is_image(space):
        return CNN
    return Embedding if isinstance(space, spaces.Discrete) else MLP
