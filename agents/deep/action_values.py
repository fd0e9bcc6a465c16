"""Any network as an action-value function: Q(s, .) of every step, and acting on it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.core import Array, State, tree
from seqrl.core.arrays import to_numpy, to_tensor
from seqrl.networks import Network, numpy_forward
from seqrl.networks.plain.numpy_forward import NumpyForward
from seqrl.networks.plain.numpy_mlp import NumpyMLP


class ActionValues(nn.Module):
    """A network and a linear layer from its features to one value an action.

    dueling: the layer gives V(s) and A(s, .); Q(s, a) = V(s) + A(s, a) - mean A(s, .)
        (Wang et al., 2016, eq. 9, with the network's features shared by both).
    """

    def __init__(self, network: Network, actions: int, *, dueling: bool = False):
        super().__init__()
        self.network, self.dueling = network, dueling
        self.layer = nn.Linear(network.features, actions + dueling)

    def forward(self, obs: Any, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """obs [T, N, ...] -> [T, N, A] and memory."""
        features, state = self.network(obs, start, state)
        return self.combined(self.layer(features)), state

    def combined(self, out: Array) -> Array:
        """The layer's numbers as the values of actions."""
        if not self.dueling:
            return out
        advantage = out[..., 1:]
        return out[..., :1] + advantage - advantage.mean(-1)[..., None]

    def frozen(self) -> ActionValues:
        """A copy that nobody trains, in eval mode."""
        twin = copy.deepcopy(self).eval()
        return twin.requires_grad_(False)


class Actor:
    """One step of an ActionValues for N environments: through NumPy where that can be.

    It holds a copy of the weights: set `stale` after they changed. A mlp spares the copy.
    """

    def __init__(self, values: ActionValues, device: torch.device, mlp: NumpyMLP | None = None):
        self.values, self.device, self.stale = values, device, False
        self.fast: NumpyMLP | NumpyForward | None = mlp
        if mlp is None and device.type == "cpu":
            self.fast = numpy_forward(values.network, values.layer)

    def __call__(self, obs: Array, start: Array, state: State) -> tuple[Array, State]:
        """obs [N, ...] -> Q [N, A] in the same kind of array, and memory."""
        on_host = isinstance(next(tree.leaves(obs)), np.ndarray)
        if self.fast is not None and on_host:
            if self.stale:
                self.fast.refresh()
                self.stale = False
            out, state = self.fast.step(obs, start, state)
            return self.values.combined(out), state
        out, state = self.through_torch(obs, start, state)
        return to_numpy(out) if on_host else out, state

    def through_torch(self, obs: Array, start: Array, state: State) -> tuple[Tensor, State]:
        """The same as tensors on the device."""
        rolled = tree.map(lambda leaf: leaf[None], to_tensor((obs, start), self.device))
        if self.values.training:
            self.values.eval()
        with torch.inference_mode():
            out, state = self.values(*rolled, to_tensor(state, self.device))
        return out[0], state
