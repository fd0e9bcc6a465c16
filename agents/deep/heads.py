"""From features to actions: a distribution for each kind of action space.

A head says how many numbers it wants of the network (`size`), draws actions [..., *shape] from them
(`out` [..., size]) or gives the likeliest ones (`mode`), and says the log-probability (density) of
actions [...], all in NumPy or torch alike; in torch the entropy in nats [...].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from seqrl.agents.deep.devices import Draw
from seqrl.core.action_mask import FORBIDDEN
from seqrl.core.checks import check_numbers, has_bounds, own_units
from seqrl.core.errors import UsageError
from seqrl.core.types import Array

IGNORED = -100  # the target that torch's cross entropy leaves out
RESOLVED = 1e-5  # least half width of two bounds, as a share of their centre: 170 float32 numbers


def make_head(space: gym.Space) -> Categorical | Bernoulli | Gaussian:
    """The head for an action space; refuses what there is none for."""
    check_numbers("action", space)
    if isinstance(space, spaces.Discrete):
        return Categorical([int(space.n)], int(space.start), flat=True)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return Categorical(space.nvec.tolist(), space.start)
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(space.shape)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Gaussian(space)
    shown = " ".join(str(space).split())  # an array may take several lines
    raise UsageError(
        f"action space {shown}: expected Discrete, MultiDiscrete (one axis), MultiBinary or "
        "Box of real numbers"
    )


def log_softmax(out: np.ndarray) -> np.ndarray:
    """Return the logarithm of softmax over the last axis."""
    out = out - out.max(-1, keepdims=True)
    logs: np.ndarray = out - np.log(np.exp(out).sum(-1, keepdims=True))
    return logs


def cross_entropy(logits: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of -log softmax of the chosen logits where `mask` [...] holds, fused."""
    target = torch.where(mask, index, IGNORED).long().flatten()
    return nn.functional.cross_entropy(logits.flatten(0, -2), target, reduction="sum")


def mean_surprise(logits: Tensor) -> Tensor:
    """Return the mean of -log softmax [...] over the choices that may be taken."""
    legal = logits > FORBIDDEN / 2
    logs = torch.log_softmax(logits, -1)
    return -torch.where(legal, logs, 0.0).sum(-1) / legal.sum(-1)


class Head(nn.Module):
    """From a network's numbers to actions."""

    size: int  # numbers that it wants
    counts: Sequence[int] = ()  # of them that are of each choice of one among several

    @property
    def deciding(self) -> int:
        """How many of the numbers, the first ones, the mode is made of."""
        return self.size

    def metrics(self) -> dict[str, Tensor]:
        """Return what is worth watching besides the entropy, by tag."""
        return {}

    def log_prob(self, out: Array, action: Array) -> Array:
        """Return the log-probability (density) of actions [..., *shape] by numbers [..., size]."""
        raise NotImplementedError

    def entropy(self, out: Tensor) -> Tensor:
        """Return the entropy in nats [...] of numbers [..., size]."""
        raise NotImplementedError

    def evaluate(self, out: Tensor, action: Tensor) -> tuple[Array, Array]:
        """Return the log-probability of actions and the entropy, each [...]."""
        return self.log_prob(out, action), self.entropy(out)

    def negative_log_likelihood(
        self, out: Tensor, action: Tensor, mask: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """Return minus the sum of the log-probabilities of actions where `mask` [...] holds.

        out [..., size]. With label smoothing that share of each target is spread evenly over all
        choices that may be taken (Szegedy et al., 2016, section 7).
        """
        raise NotImplementedError

    def divergence(self, out: Tensor, other: Tensor, head: Any) -> Tensor:
        """Return KL(this || other) in nats [...], of the distributions of numbers [..., size].

        head: that of `other`, which may have a spread of its own.
        """
        raise NotImplementedError


class Categorical(Head):
    """One choice, or several at once: softmax over each group of logits."""

    def __init__(self, counts: list[int], start: Any = 0, flat: bool = False):
        super().__init__()
        self.counts, self.start, self.flat = counts, start, flat
        self.size, self.choices = sum(counts), len(counts)
        self.ends = np.cumsum(counts).tolist()

    def sample(self, out: Array, draw: Draw) -> Array:
        """Gumbel-max: the largest of logits with Gumbel noise (the log of an exponential)."""
        return self.mode(out - draw.xp.log(draw.exponential(tuple(out.shape))))

    def mode(self, out: Array) -> Array:
        """The largest logit of each group, the first where several are."""
        if self.flat:
            return out.argmax(-1) + self.start
        chosen = [part.argmax(-1) for part in self._groups(out)]
        if isinstance(out, np.ndarray):
            return np.stack(chosen, -1) + self.start
        return torch.stack(chosen, -1) + torch.as_tensor(self.start, device=out.device)

    def log_prob(self, out: Array, action: Array) -> Array:
        """The sum over the groups."""
        if isinstance(out, np.ndarray):
            chosen = (action - self.start).reshape(-1, self.choices)
            rows, each = out.reshape(-1, self.size), np.arange(len(chosen))
            logs = [log_softmax(part) for part in self._groups(rows)]
            parts = [log[each, chosen[:, i]] for i, log in enumerate(logs)]
            return sum(parts[1:], parts[0]).reshape(out.shape[:-1])
        return self._taken(self._logs(out), action)

    def entropy(self, out: Tensor) -> Tensor:
        """The sum over the groups."""
        return self._spread(self._logs(out))

    def evaluate(self, out: Tensor, action: Tensor) -> tuple[Array, Array]:
        """Both from one softmax of each group."""
        logs = self._logs(out)
        return self._taken(logs, action), self._spread(logs)

    def _logs(self, out: Tensor) -> list[Tensor]:
        """Return the log-probability of every choice, by group."""
        return [torch.log_softmax(part, -1) for part in self._groups(out)]

    def _taken(self, logs: list[Tensor], action: Tensor) -> Tensor:
        """Return the log-probability of what was chosen [...]."""
        groups = zip(logs, self._chosen(action), self.counts, strict=True)
        # where nothing was done stands any number
        each = [
            log.gather(-1, index[..., None].long().clamp(0, n - 1)).squeeze(-1)
            for log, index, n in groups
        ]
        return sum(each[1:], each[0])

    def _spread(self, logs: list[Tensor]) -> Tensor:
        """Return the entropy [...]."""
        each = [-(log.exp() * log).sum(-1) for log in logs]
        return sum(each[1:], each[0])

    def negative_log_likelihood(
        self, out: Tensor, action: Tensor, mask: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """The sum over the groups, each in one fused call."""
        chosen = self._chosen(action)
        if not smoothing:
            both = zip(self._groups(out), chosen, strict=True)
            each = [cross_entropy(part, index, mask) for part, index in both]
            return sum(each[1:], each[0])
        exact = self.negative_log_likelihood(out, action, mask)
        evenly = [(mean_surprise(part) * mask).sum() for part in self._groups(out)]
        return (1.0 - smoothing) * exact + smoothing * sum(evenly[1:], evenly[0])

    def divergence(self, out: Tensor, other: Tensor, head: Any) -> Tensor:
        """The sum over the groups."""
        both = zip(self._groups(out), self._groups(other), strict=True)
        logs = [(torch.log_softmax(p, -1), torch.log_softmax(q, -1)) for p, q in both]
        each = [(p.exp() * (p - q)).sum(-1) for p, q in logs]
        return sum(each[1:], each[0])

    def _chosen(self, action: Tensor) -> Sequence[Tensor]:
        """Return the number of the choice [...] in each group."""
        if self.flat:
            return [action - self.start if self.start else action]
        first = torch.as_tensor(self.start, device=action.device)
        return (action - first).unbind(-1)

    def _groups(self, out: Array) -> list[Array]:
        if self.choices == 1:
            return [out]
        both = zip(self.counts, self.ends, strict=True)
        return [out[..., end - n : end] for n, end in both]


class Bernoulli(Head):
    """Independent yes or no, by the sigmoid of each logit."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape, self.size = shape, math.prod(shape)

    def sample(self, out: Array, draw: Draw) -> Array:
        """1 where a uniform number is below the sigmoid."""
        odds = draw.xp.exp(-draw.xp.abs(out))  # never overflows
        chance = draw.xp.where(out >= 0, 1.0 / (1.0 + odds), odds / (1.0 + odds))
        return self._shaped(draw.uniform(tuple(out.shape)) < chance)

    def mode(self, out: Array) -> Array:
        """1 where it is likelier."""
        return self._shaped(out > 0)

    def log_prob(self, out: Array, action: Array) -> Array:
        """The sum over the entries."""
        if isinstance(out, np.ndarray):
            signed = np.where(action.reshape(out.shape), out, -out)
            return -np.logaddexp(0.0, -signed).sum(-1)
        yes = action.reshape(out.shape).to(out.dtype)
        logs = -nn.functional.binary_cross_entropy_with_logits(out, yes, reduction="none")
        return logs.sum(-1)

    def entropy(self, out: Tensor) -> Tensor:
        """The sum over the entries."""
        chance = torch.sigmoid(out)
        return nn.functional.binary_cross_entropy_with_logits(out, chance, reduction="none").sum(-1)

    def negative_log_likelihood(
        self, out: Tensor, action: Tensor, mask: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """The sum over the entries."""
        yes = action.reshape(out.shape).to(out.dtype) * (1.0 - smoothing) + smoothing / 2
        each = nn.functional.binary_cross_entropy_with_logits(out, yes, reduction="none")
        return torch.where(mask, each.sum(-1), 0.0).sum()

    def divergence(self, out: Tensor, other: Tensor, head: Any) -> Tensor:
        """The sum over the entries."""
        cross, chance = nn.functional.binary_cross_entropy_with_logits, torch.sigmoid(out)
        each = cross(other, chance, reduction="none") - cross(out, chance, reduction="none")
        return each.sum(-1)

    def _shaped(self, yes: Array) -> Array:
        yes = yes.reshape((*yes.shape[:-1], *self.shape))
        return yes.astype(np.int8) if isinstance(yes, np.ndarray) else yes.to(torch.int8)


class Real(Head):
    """Actions of real numbers, in units of their space: bounded dimensions from -1 to 1.

    A dimension of one value has no part in densities and entropies.
    """

    center_there: Tensor
    reach_there: Tensor
    moving_there: Tensor

    def __init__(self, space: spaces.Box):
        super().__init__()
        self.shape, self.dimensions = space.shape, math.prod(space.shape)
        self.bounded = has_bounds(space)
        self.center, self.reach = own_units(space)
        self.moving = (space.low < space.high).ravel()  # bool [D]
        if not (~self.bounded | (self.reach > RESOLVED * abs(self.center))).all():
            shown = " ".join(str(space).split())
            found = f"action space {shown}: its bounds are too close to be told apart in float32"
            raise UsageError(f"{found}; let a wrapper rescale it, as gymnasium's RescaleAction")
        # where the weights are, so that a turn sends none of them to a device
        for name in ("center", "reach", "moving"):
            there = torch.as_tensor(getattr(self, name))
            self.register_buffer(f"{name}_there", there, persistent=False)

    def scaled(self, unit: Array) -> Array:
        """Return numbers [..., D] of the space's own units as actions [..., *shape]."""
        unit = unit.reshape((*unit.shape[:-1], *self.shape))
        if isinstance(unit, np.ndarray):
            return self.center + self.reach * unit
        return self.center_there + self.reach_there * unit

    def units(self, action: Tensor) -> Tensor:
        """Return actions [..., *shape] in the space's own units [..., D]."""
        unit = (action - self.center_there) / self.reach_there
        return unit.reshape((*unit.shape[: unit.ndim - len(self.shape)], self.dimensions))

    def total(self, each: Tensor) -> Tensor:
        """Return the sum [...] over the dimensions [..., D] of more than one value."""
        if not self.moving.all():
            each = torch.where(self.moving_there, each, 0.0)
        return each.sum(-1)


class Gaussian(Real):
    """Independent normal actions; the spread is learned, the same in every state.

    Draws beyond a bound are clipped by the environment's adapter, while learning sees what was
    drawn.
    """

    def __init__(self, space: spaces.Box):
        super().__init__(space)
        self.size = self.dimensions
        self.log_std = nn.Parameter(torch.full((self.size,), -0.5))

    def sample(self, out: Array, draw: Draw) -> Array:
        """Mean plus spread times a normal number."""
        spread: Array = self.log_std.detach().exp()
        spread = spread.cpu().numpy() if isinstance(out, np.ndarray) else spread
        return self.mode(out + spread * draw.normal(tuple(out.shape)))

    def mode(self, out: Array) -> Array:
        """The mean, in the environment's units."""
        return self.scaled(out)

    def log_prob(self, out: Array, action: Array) -> Array:
        """Log-density in the space's own units, the sum over the dimensions."""
        if isinstance(out, np.ndarray):
            with torch.no_grad():
                return self.log_prob(torch.from_numpy(out), torch.from_numpy(action)).numpy()
        z = (self.units(action) - out) * torch.exp(-self.log_std)
        return self.total(-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi))

    def entropy(self, out: Tensor) -> Tensor:
        """The sum over the dimensions."""
        each = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return self.total(each) + torch.zeros_like(out[..., 0])

    def negative_log_likelihood(
        self, out: Tensor, action: Tensor, mask: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """The sum over the dimensions; there are no choices to smooth."""
        return -torch.where(mask, self.log_prob(out, self._known(action, mask)), 0.0).sum()

    def divergence(self, out: Tensor, other: Tensor, head: Any) -> Tensor:
        """The sum over the dimensions, in the space's own units."""
        narrower = self.log_std - head.log_std
        scaled = (out - other) * torch.exp(-head.log_std)
        return self.total(0.5 * (torch.exp(2 * narrower) + scaled.square() - 1) - narrower)

    def squared_error(self, out: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        """Return half the sum of squared errors in the space's own units where `mask` holds.

        But for a constant it is the negative log-likelihood under a spread of 1.
        """
        unit = self.units(self._known(action, mask))
        return torch.where(mask, 0.5 * (unit - out).square().sum(-1), 0.0).sum()

    def _known(self, action: Tensor, mask: Tensor) -> Tensor:
        """Return actions, 0 where they are not known and may be no number."""
        return torch.where(mask.reshape(*mask.shape, *(1 for _ in self.shape)), action, 0.0)

    def metrics(self) -> dict[str, Tensor]:
        """Return the spread, the mean over the dimensions."""
        return {"train/std": self.log_std.detach().exp().mean()}
