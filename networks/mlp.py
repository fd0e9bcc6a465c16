"""The multi-layer perceptron on a space, on a number of features, or on another network."""

from __future__ import annotations

from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.errors import UsageError
from seqrl.core.types import State
from seqrl.networks.activations import pieces
from seqrl.networks.base import Core, Network, as_network
from seqrl.networks.options import activation as make_activation
from seqrl.networks.options import initialise_layer, probability, sizes
from seqrl.networks.vectors import flat, numbers


class MLP(Core):
    """Linear layers with activations, and with LayerNorm and dropout if asked.

    source: an observation space (flattened; categories one-hot), a number of features, or a
        network or module to go on top of.
    hidden: sizes of the layers; the last one is the number of features. () only flattens.
    activation: by torch's name ("Tanh", "ReLU", ...), Maxout or Step.  init: see `initialise`.
    normalize: running normalisation of the observations (see Normalize).
    """

    def __init__(
        self,
        source: Space | nn.Module | int,
        hidden: int | tuple[int, ...] | list[int] = (64, 64),
        *,
        activation: str | type[nn.Module] = "Tanh",
        init: str | float | None = None,
        layer_norm: bool = False,
        dropout: float = 0.0,
        normalize: bool = False,
    ) -> None:
        super().__init__(_source(source, normalize))
        self.hidden, self.activation, self.init = sizes("hidden", hidden), activation, init
        self.layer_norm, self.dropout = layer_norm, probability("dropout", dropout)
        self.layers = nn.Sequential()
        self.features = self.hidden[-1] if self.hidden else self.source.features
        self.build_once()

    def build(self, features: int) -> None:
        """Make the layers, from `features` inputs to the last hidden size."""
        for size in self.hidden:
            activation = make_activation(self.activation)
            linear = nn.Linear(features, size * pieces(activation))
            initialise_layer(linear, self.init)
            self.layers.append(linear)
            if self.layer_norm:
                self.layers.append(nn.LayerNorm(linear.out_features))
            self.layers.append(activation)
            if self.dropout:
                self.layers.append(nn.Dropout(self.dropout))
            features = size
        self.features = features

    def run(self, x: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
        """Map [T, N, F] to [T, N, features]."""
        return self.layers(x), None


def _source(source: Space | nn.Module | int, normalize: bool) -> Network:
    if isinstance(source, int):
        return numbers(source)
    if isinstance(source, Space):
        return flat(source, normalize=normalize)
    if normalize:
        raise UsageError("MLP: normalize needs an observation space; use MLP(Normalize(encoder))")
    return as_network(source)
