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
    inner = module.network if isinstance(module, Normalized) else module
    network = getattr(inner, "source", inner)  # of a core on one
    if not isinstance(network, AutoEncoder) or not isinstance(obs, np.ndarray):
        return None
    seen, decode = torch.as_tensor(obs, device=network.center.device), network.decode
    if isinstance(module, Normalized):
        seen = module.normalized(seen[None])[0]
        if not network.decoding:  # answers are in the units of what is observed
            decode = partial(in_own_units, module, network)
    code = network.code_of(seen)
    mean, spread, drawn = code.mean(0), code.std(0, correction=0), None
    if isinstance(network, VAE):
        mean, spread = torch.zeros_like(mean), torch.ones_like(spread)
        noise = np.random.default_rng(0).standard_normal(code.shape)
        drawn = decode(torch.as_tensor(noise, dtype=code.dtype, device=code.device))
    first, second = (
        code.std(0, correction=0)
        .argsort(descending=True)[[0, -1 if len(mean) == 1 else 1]]
        .tolist()
    )
    places = torch.linspace(-FAR, FAR, ACROSS, device=code.device)
    grid = mean.repeat(ACROSS, ACROSS, 1)
    grid[:, :, first] = mean[first] + (spread[first] * places)[:, None]
    grid[:, :, second] = mean[second] + spread[second] * places
    walk = decode(grid.flatten(0, 1)).unflatten(0, (ACROSS, ACROSS))
    given_back, drawn, walk = to_numpy((decode(code), drawn, walk))
    return Codes(given_back, drawn, walk, (first, second))


def in_own_units(module: Normalized, network: AutoEncoder, code: Tensor) -> Tensor:
    """Return what codes [B, code] stand for in the units of what is observed, [B, ...]."""
    return module.undo(network.decode(code))
