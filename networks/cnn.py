"""Convolutional encoders for images, channels first or last."""

from __future__ import annotations

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
from seqrl.networks.options import initialise_layer, lookup
from seqrl.networks.vectors import uint8_scale

Shape = tuple[int, ...]


class Conv(NamedTuple):
    """One convolution: output channels, square kernel, stride, zero padding."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


CONVOLUTIONS = {
    "small": (Conv(16, 3, 1, 1), Conv(32, 3, 2, 1)),
    "nature": (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3)),  # Mnih et al. 2015
    # the deep network's sections (Espeholt et al. 2018): channels, and the geometry of the pooling
    "impala": tuple(Conv(channels, 3, 2, 1) for channels in (16, 32, 32)),
}
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
            expected = "an image space, Box [H, W, C] or [C, H, W], or uint8 [H, W]"
            raise UsageError(f"CNN: expected {expected}, got {space}; use MLP for a vector")
        if pieces(make_activation(activation)) > 1:
            raise UsageError(f"CNN: activation {activation} takes more channels; use it in an MLP")
        last = len(space.shape) == 3 and channels_last(space.shape, channels)
        image = space.shape if len(space.shape) == 3 else (1, *space.shape)
        image = (image[2], *image[:2]) if last else image  # [C, H, W]
        default = "small" if min(image[1:]) < 64 else "nature"
        preset = lookup("preset", preset, FEATURES) if preset else default
        self.features = FEATURES[preset] if features is None else check_whole("features", features)
        self.channels_last = last
        self.register_buffer("scale", torch.tensor(uint8_scale(space)), persistent=False)
        shape, self.trunk = _trunk(preset, image, activation)
        if min(shape) < 1:
            text = f"too large for an image of {image[1]} x {image[2]}"
            raise UsageError(f'preset {preset!r}: {text}; use preset "small" or "impala"')
        linear = nn.Linear(int(np.prod(shape)), self.features)
        self.head = nn.Sequential(nn.Flatten(), linear, make_activation(activation))
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


def _trunk(
    preset: str, image: Shape, activation: str | type[nn.Module]
) -> tuple[Shape, nn.Sequential]:
    """Return the output shape [C, H, W] of the convolutions, and the convolutions."""
    layers = nn.Sequential()
    for conv in CONVOLUTIONS[preset]:
        channels, geometry = conv.channels, conv[1:]
        if preset == "impala":
            layers.append(nn.Conv2d(image[0], channels, 3, padding=1))
            layers.append(nn.MaxPool2d(*geometry))
            layers.extend(Residual(channels, activation) for _ in range(2))
        else:
            layers.append(nn.Conv2d(image[0], channels, *geometry))
            layers.append(make_activation(activation))
        image = channels, *(conv_size(n, *geometry) for n in image[1:])
    if preset == "impala":
        layers.append(make_activation(activation))
    return image, layers
