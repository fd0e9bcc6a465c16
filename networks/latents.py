"""Distributions of what a network is to find by itself: normal latents, rates of activity."""

from __future__ import annotations

from torch import Tensor

MOST = 8.0  # of the logarithm of a variance, up or down
LEAST = 1e-6  # a rate of activity whose logarithm is taken is this far from 0 and 1


def normal_of(out: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and logarithms of variances [..., latent] of layers' numbers."""
    mean, log_variance = out.chunk(2, -1)
    return mean, log_variance.clamp(-MOST, MOST)


def kl(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    """Return the Kullback-Leibler divergence from p to q, normal, in nats [..., latent].

    Each is given by means and logarithms of variances.
    """
    (p_mean, p_log), (q_mean, q_log) = p, q
    distance = (p_log.exp() + (p_mean - q_mean).square()) / q_log.exp()
    return 0.5 * (q_log - p_log + distance - 1.0)


def divergence(wanted: float, rate: Tensor) -> Tensor:
    """Return KL(wanted || rate) in nats of yes with these chances, elementwise."""
    rate = rate.clamp(LEAST, 1 - LEAST)
    return wanted * (wanted / rate).log() + (1 - wanted) * ((1 - wanted) / (1 - rate)).log()
