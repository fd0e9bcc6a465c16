"""Layers in pairs: one, and another from what it gives back to what it was given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.errors import UsageError
from seqrl.networks.activations import pieces
from seqrl.networks.cnn import CNN, channels_last, conv_size
from seqrl.networks.options import activation as make_activation
from seqrl.networks.options import initialise_layer

Kind = str | type[nn.Module]


class Pair(NamedTuple):
    """A layer [B, n] -> [B, size], and one from there to n numbers, without its activation."""

    there: nn.Module
    back: nn.Linear | nn.ConvTranspose2d
    size: int


class FromMaps(nn.ConvTranspose2d):
    """The transposed convolution of a convolution, from flat maps [..., n] to flat maps.

    last: whether it gives them with the channels last, as an image has them.
    """

    def __init__(self, undone: nn.Conv2d, shape: tuple[int, ...], *, last: bool) -> None:
        kernel, stride, padding = undone.kernel_size, undone.stride, undone.padding
        assert not isinstance(padding, str)
        geometry = zip(shape[1:], kernel, stride, padding, strict=True)
        self.maps = undone.out_channels, *(conv_size(*each) for each in geometry)
        geometry = zip(shape[1:], kernel, stride, padding, strict=True)
        rest = tuple((n + 2 * p - k) % s for n, k, s, p in geometry)  # what the stride left over
        channels = undone.out_channels, undone.in_channels
        super().__init__(*channels, kernel, stride, padding, output_padding=rest)  # type: ignore[arg-type]
        self.last = last

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Map [..., n] to [..., m]."""
        out = super().forward(x.reshape(-1, *self.maps))
        out = out.movedim(1, -1) if self.last else out
        return out.reshape(*x.shape[:-1], -1)


class ToMaps(nn.Module):
    """An image [B, n], flat with its channels first or last, as [B, C, H, W]."""

    def __init__(self, shape: tuple[int, ...], *, last: bool) -> None:
        super().__init__()
        self.shape, self.last = shape, last

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, n] to [B, C, H, W]."""
        channels, *size = self.shape
        if self.last:
            return x.reshape(-1, *size, channels).movedim(-1, 1)
        return x.reshape(-1, *self.shape)


def dense(inputs: int, size: int, activation: Kind, init: str | float | None) -> Pair:
    """Return a linear layer with its activation, and a linear layer back."""
    there, back = nn.Linear(inputs, size), nn.Linear(size, inputs)
    for layer in (there, back):
        initialise_layer(layer, init)
    return Pair(nn.Sequential(there, one_to_one(activation)), back, size)


def one_to_one(activation: Kind) -> nn.Module:
    """Return a new activation layer; UsageError for one that gives fewer numbers than it takes."""
    made = make_activation(activation)
    if pieces(made) > 1:
        raise UsageError(f"activation {activation} cannot be undone; use it in an MLP")
    return made


def convolutions(
    space: Space, preset: str | None, activation: Kind, init: str | float | None
) -> list[Pair]:
    """Return the convolutions of a `CNN`, each with its transposed one.

    Whatever the size of an image that they take, as many pixels are given back. UsageError where
    there is none of a convolution.
    """
    trunk = CNN(space, preset, activation=activation, init=init).trunk
    shape = space.shape or ()
    last = len(shape) == 3 and channels_last(shape)
    shape = (1, *shape) if len(shape) == 2 else shape
    shape = (shape[2], *shape[:2]) if last else shape
    pairs: list[Pair] = []
    for layer, after in zip(*[iter(trunk)] * 2, strict=True):
        if not isinstance(layer, nn.Conv2d) or isinstance(after, nn.MaxPool2d):
            problem = f"preset {preset!r}: its pooling cannot be undone"
            raise UsageError(f'{problem}; take preset "small" or "nature"')
        outer = last and not pairs
        back = FromMaps(layer, shape, last=outer)
        initialise_layer(back, init)
        there = nn.Sequential(ToMaps(shape, last=outer), layer, after, nn.Flatten())
        shape = back.maps
        pairs.append(Pair(there, back, int(np.prod(shape))))
    return pairs
