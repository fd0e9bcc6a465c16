"""Returns, targets and losses as pure functions on batches, worked out by hand in the tests.

Leaves are [..., A] for values of actions, [...] for values of states; [T + 1, B] is a sequence
whose last row only closes it (see `Batch`). Where it says "of either kind" NumPy arrays are taken
as well as tensors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from seqrl.core.action_mask import FORBIDDEN
from seqrl.core.picking import rows_where, taken
from seqrl.core.types import Array

CURVE = 1e-3  # epsilon of `squash`
SPREAD = 0.9  # eta of `sequence_error`
ROUNDING = 1e-8  # least spread that is divided by


class Loss(NamedTuple):
    """A loss as the sum over what is learned from, and how much that is."""

    total: Array
    count: Any  # of valid steps
    error: Array | None = None  # target minus value [T, B]
    valid: Array | None = None  # bool [T, B], of the errors; None for all
    gradient: Array | None = None  # of `total` by the outputs [T, B, K]; None: by autograd
    metrics: Any = None  # by their tags; or a function that works them out, if they are wanted


def chosen(q: Array, action: Array) -> Array:
    """Return Q(s, a) [...] of q [..., A] and action [...], of either kind."""
    if isinstance(q, np.ndarray):
        rows = q.reshape(-1, q.shape[-1])
        return rows[np.arange(len(rows)), action.ravel()].reshape(action.shape)
    return q.gather(-1, action[..., None])[..., 0]


def highest(q: Array) -> Array:
    """Return max_a Q(s, a) [...] of q [..., A], of either kind."""
    return q.max(-1) if isinstance(q, np.ndarray) else q.amax(-1)


def double(q: Array, chooser: Array) -> Array:
    """Return Q(s, argmax_a Q'(s, a)), of either kind: one network picks, the other evaluates.

    van Hasselt, Guez and Silver (2016), eq. 4.
    """
    return chosen(q, chooser.argmax(-1))


def expected_greedy(q: Array, epsilon: float) -> Array:
    """Return sum_a pi(a|s) Q(s, a) of an epsilon-greedy policy, of either kind."""
    legal = q > FORBIDDEN / 2
    where = np.where if isinstance(q, np.ndarray) else torch.where
    mean = where(legal, q, q * 0).sum(-1) / legal.sum(-1)
    return epsilon * mean + (1.0 - epsilon) * highest(q)


def expected_softmax(q: Array, preferred: Array, temperature: float) -> Array:
    """Return sum_a pi(a|s) Q(s, a) of pi = softmax(preferred / temperature), of either kind."""
    if isinstance(q, np.ndarray):
        both = torch.from_numpy(q), torch.from_numpy(preferred)
        return expected_softmax(*both, temperature).numpy()
    chance = torch.softmax(preferred / temperature, -1)
    return (torch.where(q > FORBIDDEN / 2, q, 0.0) * chance).sum(-1)


def n_step(reward: Array, discount: Array, final: Array, value: Array, n: int) -> Array:
    """Return n rewards and then the value of what follows them [T + 1, B]; fewer at the end.

    G_t = R_{t+1} + discount_t G'_{t+1}, where G' is the same with n - 1, the value of that row for
    n = 0, in a final row and in the last one. Sutton & Barto (2018), eq. 7.1, p. 143. Of either
    kind.
    """
    total = value
    for _ in range(n):
        behind = reward[:-1] + discount[:-1] * total[1:]
        if isinstance(value, np.ndarray):
            total = np.concatenate([np.where(final[:-1], value[:-1], behind), value[-1:]])
        else:
            total = torch.cat([torch.where(final[:-1], value[:-1], behind), value[-1:]])
    return total


def discounted(reward: Array, discount: Array, final: Array, bootstrap: Array) -> Array:
    """Return G_t = R_{t+1} + discount_t G_{t+1} [T + 1, B], of either kind.

    In a final row and in the last one G is `bootstrap` [T + 1, B], the value of what followed.
    Sutton & Barto (2018), eq. 3.9, p. 55.
    """
    if not isinstance(reward, np.ndarray) and reward.device.type == "cpu":
        leaves = (x.numpy() for x in (reward, discount, final, bootstrap))
        return torch.from_numpy(discounted(*leaves))
    if not isinstance(reward, np.ndarray):
        ends = torch.where(final[:-1], bootstrap[:-1], reward[:-1])
        return scanned(torch.cat([ends, bootstrap[-1:]]), torch.where(final, 0.0, discount))
    totals = [bootstrap[-1]]
    for t in range(len(reward) - 2, -1, -1):
        totals.append(np.where(final[t], bootstrap[t], reward[t] + discount[t] * totals[-1]))
    return np.stack(totals[::-1])


def gae(
    reward: Array,
    discount: Array,
    final: Array,
    over: Array,
    value: Array,
    following: Array,
    decay: float,
) -> Array:
    """Return generalised advantages [T + 1, B], of either kind; 0 in final rows and in the last.

    A_t = delta_t + discount_t decay A_{t+1}, delta_t = R_{t+1} + discount_t V_{t+1} - V_t. Behind a
    step with which an episode was `over` no advantage follows, and V_{t+1} is `following`, the
    value of what followed it. Schulman et al. (2016), eq. 16.
    """
    if not isinstance(reward, np.ndarray) and reward.device.type == "cpu":
        leaves = (x.numpy() for x in (reward, discount, final, over, value, following))
        return torch.from_numpy(gae(*leaves, decay))  # type: ignore
    where: Any = np.where if isinstance(reward, np.ndarray) else torch.where
    behind = where(over[:-1], following[:-1], value[1:])
    delta = where(final[:-1], 0.0, reward[:-1] + discount[:-1] * behind - value[:-1])
    factor = where(over[:-1] | final[:-1], 0.0, decay * discount[:-1])
    last = value[-1:] * 0
    if not isinstance(reward, np.ndarray):
        return scanned(torch.cat([delta, last]), torch.cat([factor, last]))
    advantages = [last[0]]
    for t in range(len(delta) - 1, -1, -1):
        advantages.append(delta[t] + factor[t] * advantages[-1])
    return np.stack(advantages[::-1])


def scanned(value: Tensor, factor: Tensor) -> Tensor:
    """Return x_t = value_t + factor_t x_{t+1} of [T, B], 0 behind the last, in log2 T operations.

    Hillis and Steele (1986): after k of them an x holds the 2^k values from its own on.
    """
    reach = 1
    while reach < len(value):
        longer = value[:-reach] + factor[:-reach] * value[reach:]
        value = torch.cat([longer, value[-reach:]])
        factor = torch.cat([factor[:-reach] * factor[reach:], factor[-reach:] * 0])
        reach *= 2
    return value


def squash(x: Tensor) -> Tensor:
    """Return h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x: large values closer together.

    Pohlen et al. (2018), proposition A.2.
    """
    return x.sign() * ((x.abs() + 1.0).sqrt() - 1.0) + CURVE * x


def unsquash(x: Tensor) -> Tensor:
    """Return the inverse of `squash`."""
    size = x.abs() + 1.0 + CURVE
    # (root - 1) / (2 epsilon) without the difference of two numbers that are nearly equal
    root = 2.0 * size / (1.0 + (1.0 + 4.0 * CURVE * size).sqrt())
    return x.sign() * (root.square() - 1.0)


def elementwise_loss(kind: str, value: Tensor, target: Tensor) -> Tensor:
    """Return half the square of each error; "huber": linear where beyond 1 (Huber, 1964)."""
    if kind == "squared":
        return 0.5 * functional.mse_loss(value, target, reduction="none")
    return functional.huber_loss(value, target, reduction="none")


def regression(
    kind: str,
    q: Array,
    action: Array,
    target: Array,
    valid: Array | None = None,
    weight: Array | None = None,
) -> Loss:
    """Return the loss of Q(s, a) against targets [T, B], of either kind.

    q [T, B, A] of the steps' observations; valid bool [T, B], None for all; weight [B] of the
    columns. With arrays the gradient by q is worked out here.
    """
    value = chosen(q, action)
    if isinstance(q, np.ndarray):
        return _regression(kind, q, action, target - value, valid, weight)
    target = target.to(value.dtype)  # of two dtypes torch 2.10 has no gradient
    each = elementwise_loss(kind, value, target)
    each = each if weight is None else each * weight
    error = target - value.detach()
    if valid is None:
        return Loss(each.sum(), each.numel(), error)
    return Loss(torch.where(valid, each, 0.0).sum(), valid.sum().clamp(min=1), error, valid)


def _regression(
    kind: str, q: Array, action: Array, error: Array, valid: Array | None, weight: Array | None
) -> Loss:
    """The same with arrays, and its gradient: d/dv of L(y - v) is -L'(y - v)."""
    slope = error if kind == "squared" else np.minimum(np.maximum(error, -1.0), 1.0)
    each = slope * (error - 0.5 * slope)
    factor = weight if valid is None else valid * (1.0 if weight is None else weight)
    if factor is not None:
        each, slope = each * factor, slope * factor
    gradient = np.zeros_like(q)
    rows = gradient.reshape(-1, q.shape[-1])
    rows[np.arange(len(rows)), action.ravel()] = -slope.ravel()
    count = error.size if valid is None else max(1, int(valid.sum()))
    return Loss(each.sum(), count, error, valid, gradient)


def kept(each: Tensor, valid: Tensor | None) -> Tensor:
    """Return what is valid, 0 elsewhere; None for all."""
    return each if valid is None else torch.where(valid, each, 0.0)


def count(each: Tensor, valid: Tensor | None) -> Any:
    """Return how many are valid, at least 1; None for all."""
    return each.numel() if valid is None else valid.sum().clamp(min=1)


def mean(each: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean of what is valid; 0 where nothing is."""
    return kept(each, valid).sum() / count(each, valid)


def normalized(each: Tensor, valid: Tensor, count: int | None = None) -> Tensor:
    """Return what is valid with mean 0 and standard deviation 1; 0 where it is all the same.

    A single one is left as it is: it has no spread.  count: of the valid, where the host knows it.
    """
    chosen = taken(each, rows_where(valid, count))
    if len(chosen) == 1:
        return torch.where(valid, each, 0.0)
    spread, average = torch.std_mean(chosen, correction=0)
    differ = valid & (spread > 1e-6 * average.abs())
    return torch.where(differ, (each - average) / (spread + ROUNDING), 0.0)


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Return 1 - Var(target - value) / Var(target) of [B]: 0 is that of a constant.

    It is 0 as well where the targets differ by no more than rounding.
    """
    spread, average = torch.std_mean(target, correction=0)
    explained = 1.0 - ((target - value).std(correction=0) / spread.clamp(min=ROUNDING)).square()
    return torch.where(spread > 1e-5 * average.abs() + ROUNDING, explained, 0.0)


def sequence_error(error: Tensor, valid: Tensor) -> Tensor:
    """Return eta max |error| + (1 - eta) mean |error| over the valid rows of [T, B], for each B.

    Kapturowski et al. (2019), section 2.3.
    """
    size = error.abs() * valid
    average = size.sum(0) / valid.sum(0).clamp(min=1)
    return SPREAD * size.amax(0) + (1.0 - SPREAD) * average
