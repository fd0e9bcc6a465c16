"""Convolutional encoders for images, channels first or last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.networks.activations import pieces
from seqrl.networks.base import Encoder
from seqrl.networks.options import activation as make_activation
from seqrl.networks.options import initialise_layer, lookup, sizes
from seqrl.networks.vectors import uint8_scale

Shape = tuple[int, ...]


class Conv(NamedTuple):
    """One convolution: output channels, square kernel, stride, zero padding; max pooling behind.

    The windows of the pooling stand side by side, `pool` wide; 0 or 1 is none.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: int = 0


class Preset(NamedTuple):
    """Convolutions, the features by default, and the linear layers between them."""

    convolutions: tuple[Conv, ...]
    features: int
    hidden: tuple[int, ...] = ()


PRESETS = {
    "small": Preset((Conv(16, 3, 1, 1), Conv(32, 3, 2, 1)), 128),
    # Mnih et al. 2015
    "nature": Preset((Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3)), 512),
    # the deep network's sections (Espeholt et al. 2018): channels, and the geometry of the pooling
    "impala": Preset(tuple(Conv(channels, 3, 2, 1) for channels in (16, 32, 32)), 256),
    # LeNet-5 (LeCun et al. 1998), whose pooling was a mean with weights
    "lenet": Preset((Conv(6, 5, pool=2), Conv(16, 5, pool=2)), 84, (120,)),
    # a quarter of the channels of Krizhevsky et al. 2012, small kernels for images of 32 x 32
    "alexnet": Preset(
        (
            *(Conv(24, 3, 1, 1, 2), Conv(64, 3, 1, 1, 2), Conv(96, 3, 1, 1)),
            *(Conv(96, 3, 1, 1), Conv(64, 3, 1, 1, 2)),
        ),
        256,
        (256,),
    ),
}


def conv_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Return the length of a convolution's (or pooling's) output: floor((n + 2p - k) / s) + 1.

    >>> conv_size(5, 3, 2, 1)
    3
    """
    return (size + 2 * padding - kernel) // stride + 1


def is_image(space: Space) -> bool:
    """Return whether it is a Box of three axes, or a uint8 one of two (grey, no channels)."""
    if not isinstance(space, spaces.Box):
        return False
    return len(space.shape) == 3 or (len(space.shape) == 2 and space.dtype == np.uint8)


class CNN(Encoder):
    """Convolutions, then one linear layer to `features`, perhaps with `hidden` ones between.

    preset: "small" (two 3x3 layers, any image), "nature" (three layers, from 36x36 on), "impala"
        (residual, any image), "lenet" (from 16x16 on, made for 32x32), "alexnet" (five layers, from
        8x8 on, for 32x32); None is small below 64x64, else nature.
    layers: convolutions in place of a preset's, each (channels, kernel) or with stride, padding and
        the width of a max pooling behind: (channels, kernel, stride, padding, pool).
    hidden: sizes of linear layers before the last one; None is 120 for lenet, 256 for alexnet, else
        none.
    features: output size; None is 512 for nature, 256 for impala and alexnet, 84 for lenet, else
        128.
    channels: "first" or "last"; None takes the shorter of the first and last axes, last if equal.
    uint8 images are scaled to [0, 1]; float images are not scaled.
    """

    scale: Tensor

    def __init__(
        self,
        space: Space,
        preset: str | None = None,
        *,
        layers: Sequence[Sequence[int]] | None = None,
        hidden: int | tuple[int, ...] | None = None,
        features: int | None = None,
        channels: str | None = None,
        activation: str | type[nn.Module] = "ReLU",
        init: str | float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(space, spaces.Box) or not is_image(space):
            expected = "an image space, Box [H, W, C] or [C, H, W], or uint8 [H, W]"
            raise UsageError(f"CNN: expected {expected}, got {space}; use MLP for a vector")
        if pieces(make_activation(activation)) > 1:
            raise UsageError(f"CNN: activation {activation} takes more channels; use it in an MLP")
        last = len(space.shape) == 3 and channels_last(space.shape, channels)
        image = space.shape if len(space.shape) == 3 else (1, *space.shape)
        image = (image[2], *image[:2]) if last else image  # [C, H, W]
        name, chosen = _chosen(preset, layers, image)
        self.features = chosen.features if features is None else check_whole("features", features)
        self.channels_last = last
        self.register_buffer("scale", torch.tensor(uint8_scale(space)), persistent=False)
        shape, self.trunk = _trunk(name, chosen.convolutions, image, activation)
        between = chosen.hidden if hidden is None else sizes("hidden", hidden)
        widths = [int(np.prod(shape)), *between, self.features]
        self.head = nn.Sequential(nn.Flatten())
        for inputs, outputs in pairwise(widths):
            self.head.extend([nn.Linear(inputs, outputs), make_activation(activation)])
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                initialise_layer(layer, init)

    def encode(self, obs: Tensor) -> Tensor:
        """Map [B, H, W, C], [B, C, H, W] or [B, H, W] to [B, features]."""
        image = obs.movedim(-1, 1) if self.channels_last else obs
        image = image.unsqueeze(1) if image.ndim == 3 else image
        return self.head(self.trunk(image.to(self.scale.dtype) / self.scale))


class Residual(nn.Module):
    """Two 3x3 convolutions with a skip connection (He et al. 2016)."""

    def __init__(self, channels: int, activation: str | type[nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential()
        for _ in range(2):
            self.branch.append(make_activation(activation))
            self.branch.append(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x + self.branch(x)


def channels_last(shape: Shape, channels: str | None = None) -> bool:
    """Return whether the last of three axes is the channels: as given, else if not longer."""
    if channels not in (None, "first", "last"):
        raise UsageError(f'channels {channels!r}: expected "first", "last" or None')
    return shape[-1] <= shape[0] if channels is None else channels == "last"


def _chosen(
    preset: str | None, layers: Sequence[Sequence[int]] | None, image: Shape
) -> tuple[str, Preset]:
    """Return the preset and its name, "" for one of `layers`."""
    if layers is None:
        default = "small" if min(image[1:]) < 64 else "nature"
        name = lookup("preset", preset, PRESETS) if preset else default
        return name, PRESETS[name]
    if preset:
        raise UsageError(f"layers: they stand in place of preset {preset!r}; leave one out")
    return "", Preset(_convolutions(layers), PRESETS["small"].features)


def _convolutions(layers: Sequence[Sequence[int]]) -> tuple[Conv, ...]:
    """Return convolutions as they were given; UsageError for what is none."""
    least = Conv(1, 1, 1, 0, 0)
    if not isinstance(layers, tuple | list) or not layers:
        raise UsageError(
            f"layers {layers!r}: expected a convolution or more, as ((16, 3), (32, 3))"
        )
    for layer in layers:
        if not isinstance(layer, tuple | list) or not 2 <= len(layer) <= len(least):
            expected = "(channels, kernel) and perhaps stride, padding, pool"
            raise UsageError(f"layers: {layer!r}; expected {expected}")
        for name, value, low in zip(Conv._fields, layer, least, strict=False):
            check_whole(f"layers, {name}", value, low)
    return tuple(Conv(*layer) for layer in layers)


def _trunk(
    preset: str, convolutions: Sequence[Conv], image: Shape, activation: str | type[nn.Module]
) -> tuple[Shape, nn.Sequential]:
    """Return the output shape [C, H, W] of the convolutions, and the convolutions."""
    layers, shape = nn.Sequential(), image
    for conv in convolutions:
        channels, geometry, pool = conv.channels, conv[1:4], max(conv.pool, 1)
        if preset == "impala":
            layers.append(nn.Conv2d(shape[0], channels, 3, padding=1))
            layers.append(nn.MaxPool2d(*geometry))
            layers.extend(Residual(channels, activation) for _ in range(2))
        else:
            layers.append(nn.Conv2d(shape[0], channels, *geometry))
            layers.append(make_activation(activation))
        if pool > 1:
            layers.append(nn.MaxPool2d(pool))
        shape = channels, *(conv_size(n, *geometry) // pool for n in shape[1:])
        if min(shape) < 1:
            what = f"preset {preset!r}" if preset else "layers"
            text = f"too large for an image of {image[1]} x {image[2]}"
            raise UsageError(f'{what}: {text}; use preset "small"')
    if preset == "impala":
        layers.append(make_activation(activation))
    return shape, layers
