"""What an autoencoder makes of observations, and of codes that none has."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.core.arrays import to_numpy
from seqrl.networks.autoencoder import VAE, AutoEncoder
from seqrl.networks.normalized import Normalized

ACROSS = 7  # codes along each side of a walk
FAR = 2.0  # standard deviations that it goes to either side


class Codes(NamedTuple):
    """Observations, and what the decoder gives for their codes and for others."""

    given_back: np.ndarray  # [M, ...], of the observations
    drawn: np.ndarray | None  # [M, ...], from the distribution that codes are held to, if to any
    walk: np.ndarray  # [K, K, ...], where two numbers of the code change, down and across
    changed: tuple[int, int]  # which


@torch.no_grad()
def codes(module: nn.Module, obs: Any) -> Codes | None:
    """Return what an autoencoder makes of observations [M, ...]; None of another network.

    The two numbers that vary most over the observations are changed, by two standard deviations to
    either side; all others are at their mean. The same observations give the same.
    """
    network = autoencoder_in(module)
    if network is None or not isinstance(obs, np.ndarray):
        return None
    seen = torch.as_tensor(obs, device=network.center.device)
    code = network.code_of(
        module.normalized(seen[None])[0] if isinstance(module, Normalized) else seen
    )
    mean, spread, drawn = code.mean(0), code.std(0, correction=0), None
    order = spread.argsort(descending=True).tolist()
    changed = order[0], order[min(1, len(order) - 1)]
    decode = partial(decoded, module, network)
    if isinstance(network, VAE):
        mean, spread = torch.zeros_like(mean), torch.ones_like(spread)
        noise = np.random.default_rng(0).standard_normal(code.shape)
        drawn = decode(torch.as_tensor(noise, dtype=code.dtype, device=code.device))
    walk = decode(walked(mean, spread, changed).flatten(0, 1)).unflatten(0, (ACROSS, ACROSS))
    given_back, drawn, walk = to_numpy((decode(code), drawn, walk))
    return Codes(given_back, drawn, walk, changed)


def autoencoder_in(module: nn.Module) -> AutoEncoder | None:
    """Return the autoencoder that a network is, normalises for or stands on; None of others."""
    inner = module.network if isinstance(module, Normalized) else module
    source = getattr(inner, "source", inner)
    return source if isinstance(source, AutoEncoder) else None


def decoded(module: nn.Module, network: AutoEncoder, code: Tensor) -> Tensor:
    """Return what codes [B, code] stand for, in the units of what is observed."""
    out = network.decode(code)
    if network.decoding or not isinstance(module, Normalized):
        return out  # answers are in these units, however it sees them
    return module.undo(out)


def walked(mean: Tensor, spread: Tensor, changed: tuple[int, int]) -> Tensor:
    """Return codes [K, K, code] about a mean, of which one number changes down, one across."""
    first, second = changed
    places = torch.linspace(-FAR, FAR, ACROSS, device=mean.device)
    grid = mean.repeat(ACROSS, ACROSS, 1)
    grid[:, :, first] = mean[first] + (spread[first] * places)[:, None]
    grid[:, :, second] = mean[second] + spread[second] * places
    return grid
