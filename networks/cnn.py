"""Convolutional encoders for images, channels first or last."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core import UsageError
from seqrl.networks.base import Encoder
from seqrl.networks.options import activation as make_activation
from seqrl.networks.options import initialise_layer, integer, lookup
from seqrl.networks.vectors import uint8_scale


class Conv(NamedTuple):
    """One convolution: output channels, square kernel, stride, zero padding."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


CONVOLUTIONS = {
    "small": (Conv(16, 3, 1, 1), Conv(32, 3, 2, 1)),
    "nature": (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3)),  # Mnih et al. 2015
}
IMPALA_CHANNELS = (16, 32, 32)  # of the deep network's sections (Espeholt et al. 2018)
FEATURES = {"small": 128, "nature": 512, "impala": 256}  # features by default


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
    """Convolutions, then one linear layer to `features`.

    preset: "small" (two 3x3 layers, any image), "nature" (three layers, from 36x36 on), "impala"
        (residual, any image); None is small below 64x64, else nature.
    channels: "first" or "last"; None takes the shorter of the first and last axes, last if equal.
    features: output size; None is 128, 512, 256 for the three presets.
    uint8 images are scaled to [0, 1]; float images are not scaled.
    """

    scale: Tensor

    def __init__(
        self,
        space: Space,
        preset: str | None = None,
        *,
        features: int | None = None,
        channels: str | None = None,
        activation: str | type[nn.Module] = "ReLU",
        init: str | float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(space, spaces.Box) or not is_image(space):
            raise UsageError(
                "CNN: expected an image space, Box [H, W, C] or [C, H, W], or uint8 [H, W], "
                f"got {space}; use MLP for a vector"
            )
        last = len(space.shape) == 3 and channels_last(space.shape, channels)
        image = _image_shape(space.shape, last)
        preset = lookup("preset", preset, FEATURES) if preset else _default_preset(image)
        self.features = FEATURES[preset] if features is None else integer("features", features)
        self.channels_last = last
        self.register_buffer("scale", torch.tensor(uint8_scale(space)), persistent=False)
        shape, self.trunk = _trunk(preset, image, activation)
        if min(shape) < 1:
            raise UsageError(
                f"preset {preset!r}: too large for an image of {image[1]} x {image[2]}; "
                'use preset "small" or "impala"'
            )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(int(np.prod(shape)), self.features), make_activation(activation)
        )
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
        self.branch = nn.Sequential(
            make_activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            make_activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x + self.branch(x)


def channels_last(shape: tuple[int, ...], channels: str | None = None) -> bool:
    """Return whether the last of three axes is the channels: as given, else if not longer."""
    if channels not in (None, "first", "last"):
        raise UsageError(f'channels {channels!r}: expected "first", "last" or None')
    return shape[-1] <= shape[0] if channels is None else channels == "last"


def _default_preset(image: tuple[int, int, int]) -> str:
    return "small" if min(image[1:]) < 64 else "nature"


def _image_shape(shape: tuple[int, ...], last: bool) -> tuple[int, int, int]:
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    return (shape[2], shape[0], shape[1]) if last else (shape[0], shape[1], shape[2])


def _trunk(
    preset: str, image: tuple[int, int, int], activation: str | type[nn.Module]
) -> tuple[tuple[int, int, int], nn.Sequential]:
    """Return the output shape [C, H, W] of the convolutions, and the convolutions."""
    if preset in CONVOLUTIONS:
        return _convolutions(CONVOLUTIONS[preset], image, activation)
    return _impala(image, activation)


def _convolutions(
    convs: tuple[Conv, ...], image: tuple[int, int, int], activation: str | type[nn.Module]
) -> tuple[tuple[int, int, int], nn.Sequential]:
    inputs, height, width = image
    layers = nn.Sequential()
    for channels, kernel, stride, padding in convs:
        layers.append(nn.Conv2d(inputs, channels, kernel, stride, padding))
        layers.append(make_activation(activation))
        height, width = (conv_size(n, kernel, stride, padding) for n in (height, width))
        inputs = channels
    return (inputs, height, width), layers


def _impala(
    image: tuple[int, int, int], activation: str | type[nn.Module]
) -> tuple[tuple[int, int, int], nn.Sequential]:
    inputs, height, width = image
    layers = nn.Sequential()
    for channels in IMPALA_CHANNELS:
        layers.append(nn.Conv2d(inputs, channels, 3, padding=1))
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        layers.extend(Residual(channels, activation) for _ in range(2))
        inputs, height, width = channels, conv_size(height, 3, 2, 1), conv_size(width, 3, 2, 1)
    layers.append(make_activation(activation))
    return (inputs, height, width), layers
