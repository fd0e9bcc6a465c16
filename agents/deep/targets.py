"""What action values are moved towards: pure functions on batches, worked out by hand in the tests.

Leaves are [..., A] for values of actions, [...] for values of states; [L + 1, B] is a sequence
whose last row only closes it. A FINAL row holds what followed the last step of an episode.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from seqrl.agents.tabular.policy import TEMPERATURE

CURVE = 1e-3  # epsilon of `squash`
SPREAD = 0.9  # eta of `sequence_error`


def chosen(q: Tensor, action: Tensor) -> Tensor:
    """Q(s, a) [...] of q [..., A]."""
    return q.gather(-1, action[..., None])[..., 0]


def expected(kind: int, q: Tensor, rate: float) -> Tensor:
    """sum_a pi(a|s) Q(s, a), as `exploration.expected` has it for one state."""
    if kind == TEMPERATURE:
        return (torch.softmax(q / rate, -1) * q).sum(-1)
    return rate * q.mean(-1) + (1.0 - rate) * q.amax(-1)


def double(q: Tensor, chooser: Tensor) -> Tensor:
    """Q(s, argmax_a Q'(s, a)): one network picks, the other says what it is worth.

    van Hasselt, Guez and Silver (2016), eq. 4.
    """
    return chosen(q, chooser.argmax(-1))


def n_step(
    reward: Tensor, terminated: Tensor, final: Tensor, value: Tensor, gamma: float, n: int
) -> Tensor:
    """n rewards, then the value of what follows them [L + 1, B]; fewer where the rows end.

    G_t = R_{t+1} + gamma (1 - terminated) G'_{t+1}, where G' is the same with n - 1, the value of
    that row for n = 0, in a FINAL row and in the last one. Sutton & Barto (2018), eq. 7.1, p. 143.
    """
    total = value
    stays = final.clone()
    stays[-1] = True
    factor = gamma * ~terminated
    for _ in range(n):
        following = torch.cat([total[1:], total[-1:]])
        total = torch.where(stays, value, reward + factor * following)
    return total


def squash(x: Tensor) -> Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x: large values closer together.

    Pohlen et al. (2018), proposition A.2.
    """
    return x.sign() * ((x.abs() + 1.0).sqrt() - 1.0) + CURVE * x


def unsquash(x: Tensor) -> Tensor:
    """The inverse of `squash`."""
    size = x.abs() + 1.0 + CURVE
    # (root - 1) / (2 epsilon) without the difference of two numbers that are nearly equal
    root = 2.0 * size / (1.0 + (1.0 + 4.0 * CURVE * size).sqrt())
    return x.sign() * (root.square() - 1.0)


def elementwise_loss(kind: str, value: Tensor, target: Tensor, reduction: str = "none") -> Tensor:
    """Half the square of each error; with "huber" linear where it is beyond 1 (Huber, 1964)."""
    if kind == "squared":
        return 0.5 * functional.mse_loss(value, target, reduction=reduction)
    return functional.huber_loss(value, target, reduction=reduction)


def mean(each: Tensor, mask: Tensor) -> Tensor:
    """The mean of what is not masked out; 0 where all is."""
    return torch.where(mask, each, 0.0).sum() / mask.sum().clamp(min=1)


def sequence_error(error: Tensor, mask: Tensor) -> Tensor:
    """eta max |error| + (1 - eta) mean |error| over the masked rows of [T, B], for each of B.

    Kapturowski et al. (2019), section 2.3.
    """
    size = error.abs() * mask
    mean = size.sum(0) / mask.sum(0).clamp(min=1)
    return SPREAD * size.amax(0) + (1.0 - SPREAD) * mean
