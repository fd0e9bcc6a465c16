"""Activations that torch has not: Maxout, and a step with a straight-through gradient."""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """The largest of `pieces` numbers for each unit (Goodfellow et al., 2013).

    Maps [..., pieces * units] to [..., units]; the layer before it is as many times as wide.
    """

    pieces = 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest of each unit's numbers, which stand side by side."""
        return x.unflatten(-1, (-1, self.pieces)).amax(-1)


class Step(nn.Module):
    """1 where x is above 0, else 0; the gradient passes as if it were the identity.

    The straight-through estimator of Bengio, Leonard and Courville (2013).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map each number to 0 or 1."""
        return (x > 0).to(x.dtype) + (x - x.detach())


def pieces(activation: nn.Module) -> int:
    """Return how many numbers an activation takes for each one that it gives."""
    return activation.pieces if isinstance(activation, Maxout) else 1
