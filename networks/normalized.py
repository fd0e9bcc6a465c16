"""Any network on normalised observations."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.types import State
from seqrl.networks.base import Network, as_network, parts_of, refuse
from seqrl.networks.cnn import is_image
from seqrl.networks.normalize import Normalize
from seqrl.networks.vectors import Numbers


def is_normalized(part: Space) -> TypeGuard[spaces.Box]:
    """Return whether observations of a space without parts are normalised."""
    return isinstance(part, spaces.Box) and not is_image(part)


def normalized_space(space: Space) -> Space:
    """Return the space of normalised observations."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: normalized_space(part) for key, part in space.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([normalized_space(part) for part in space])
    return spaces.Box(-np.inf, np.inf, space.shape) if is_normalized(space) else space


class Normalized(Network):
    """A network whose observations of numbers are normalised first (see Normalize), shapes kept.

    network: a Network or any module from [B, ...] to [B, F] that does not normalise itself.
        Built for `normalized_space(space)`, which is what it sees.
    space: of the observations; its Boxes are normalised, images and what is counted are left.
    """

    def __init__(self, network: nn.Module, space: Space) -> None:
        super().__init__()
        self.network = as_network(network)
        if any(isinstance(part, Normalize) for part in network.modules()):
            refuse(network, "it normalises observations already; leave one of the two out")
        if any(isinstance(part, Numbers) and part.scaled for part in network.modules()):
            refuse(network, "it scales uint8 observations; build it for normalized_space(space)")
        self.parts = nn.ModuleList()
        self.which = tree.map(self._place, parts_of(space))
        if not len(self.parts):
            remedy = "leave --normalize-obs out"
            raise UsageError(f"observation space {space}: no numbers to normalise; {remedy}")
        self.features, self.has_auxiliary = self.network.features, self.network.has_auxiliary
        self.is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1

    def _place(self, part: Space) -> int:
        """Return the index in `parts` of what normalises a part of the space; -1 for none."""
        if not is_normalized(part):
            return -1
        self.parts.append(Normalize(Numbers(part)))
        return len(self.parts) - 1

    def initial_state(self, n: int) -> State:
        """Return the network's initial memory."""
        return self.network.initial_state(n)

    def forward(self, obs: Any, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Apply the network to the normalised observations."""
        out, state = self.network(self.normalized(obs), start, state)
        self.features = self.features or out.shape[-1]
        return out, state

    def study(
        self, obs: Any, start: Tensor, state: State, answer: Tensor, valid: Tensor
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Let the network study the normalised observations."""
        return self.network.study(self.normalized(obs), start, state, answer, valid)

    def answering(self, action_space: Space) -> nn.Module | None:
        """Let the network give answers."""
        layer = self.network.answering(action_space)
        self.features = self.network.features
        return layer

    def auxiliary(self, obs: Any, valid: Tensor) -> dict[str, Tensor]:
        """Return the network's terms, of the normalised observations."""
        return self.network.auxiliary(self.normalized(obs), valid)

    def update(self, obs: Any, valid: Tensor) -> None:
        """Update the running statistics of observations, and those of the network."""
        self.network.update(self.normalized(obs), valid)

        def update(i: int, leaf: Tensor) -> None:
            if i >= 0:
                part: Any = self.parts[i]
                part.update(leaf, valid)

        tree.map(update, self.which, obs)

    def normalized(self, obs: Any) -> Any:
        """Return what the network sees of observations [T, N, ...]."""

        def normalized(i: int, leaf: Tensor) -> Tensor:
            if i < 0:
                return leaf
            part: Any = self.parts[i]
            return part.encode(leaf.flatten(0, 1)).view(leaf.shape)

        return tree.map(normalized, self.which, obs)

    def undo(self, obs: Tensor) -> Tensor:
        """Map normalised observations [B, ...] of a Box back to what they were."""
        (part,) = self.parts
        out: Tensor = part.undo(obs.flatten(1))  # type: ignore[operator]
        return out.view(obs.shape)
