"""Autoencoders: what is seen as a code of few numbers, from which it is given back."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core import tree
from seqrl.core.checks import check_amount, check_whole, own_units
from seqrl.core.errors import UsageError
from seqrl.core.types import State
from seqrl.networks.base import Encoder
from seqrl.networks.cnn import is_image
from seqrl.networks.latents import MOST, divergence, kl
from seqrl.networks.options import activation as make_activation
from seqrl.networks.options import probability, sizes
from seqrl.networks.undone import Kind, convolutions, dense, one_to_one
from seqrl.networks.vectors import flat, uint8_scale

Terms = dict[str, Tensor]


class AutoEncoder(Encoder):
    """A code of the observation, and a decoder that gives the observation back.

    An agent acts on the code. Where the observation is the answer that is imitated (`answering`)
    the agent's numbers are those of the decoder, and by `auxiliary` its error is learned beside any
    agent's loss. Images go through convolutions, which the decoder undoes one by one; all else is
    flattened, categories one-hot (Hinton and Salakhutdinov, 2006).

    code: numbers of the code, at least 1.
    hidden: sizes of the layers between the observation, or convolutions, and the code.
    activation: of these layers, in the decoder too.  init: see `initialise`.
    code_activation: of the code itself: "Sigmoid" for one from 0 to 1.
    preset: convolutions of images, "small" or "nature"; None by the size, as CNN has it.
    masking: share of the numbers seen that are set to 0 where it learns, in [0, 1).
    gaussian: standard deviation of noise added to them where it learns, at least 0.
        What is to be given back is without either (denoising: Vincent et al., 2010).
    sparsity: weight of the divergence of each code number's mean from `sparsity_rate`, at least 0.
        Of a sigmoid code (Ng, 2011, CS294A, "Sparse autoencoder").
    layer_steps: steps learned from in which each layer learns alone, the first one first; 0 none.
        Its own layer of the decoder gives back what the layers before it make of the observation
        (greedy layer-wise training: Bengio et al., 2007); after the last all learn together.
    """

    center: Tensor
    reach: Tensor
    studied: Tensor
    has_auxiliary = True

    def __init__(
        self,
        space: Space,
        code: int = 8,
        *,
        hidden: int | tuple[int, ...] | list[int] = (64,),
        activation: Kind = "Tanh",
        code_activation: Kind = "Identity",
        init: str | float | None = None,
        preset: str | None = None,
        masking: float = 0.0,
        gaussian: float = 0.0,
        sparsity: float = 0.0,
        sparsity_rate: float = 0.05,
        layer_steps: int = 0,
    ) -> None:
        super().__init__()
        if preset is not None and not is_image(space):
            raise UsageError(f"preset {preset!r}: {space} is no image; leave it out")
        one_to_one(activation)
        check_sparsity(sparsity, sparsity_rate, code_activation)
        check_amount("gaussian", gaussian)
        self.masking, self.gaussian = probability("masking", masking), gaussian
        self.sparsity, self.sparsity_rate = sparsity, sparsity_rate
        self.layer_steps = check_whole("layer_steps", layer_steps, 0)
        self.features = check_whole("code", code)
        self.space, self.flat = space, flat(space)
        self.decoding = False  # whether its features are the decoder's, for an answer
        pairs = convolutions(space, preset, activation, init) if is_image(space) else []
        width = pairs[-1].size if pairs else self.flat.features
        layers = [(size, activation) for size in sizes("hidden", hidden)]
        for size, after in [*layers, (code, code_activation)]:
            pairs.append(dense(width, size, after, init))
            width = size
        self.encoder = nn.ModuleList(pair.there for pair in pairs)
        first, *others = (pair.back for pair in pairs)
        inner = [nn.Sequential(layer, one_to_one(activation)) for layer in others]
        self.decoder = nn.ModuleList([first, *inner])
        self.width = pairs[0].size  # of what its last layer is given
        self._set_units(space)
        self.register_buffer("studied", torch.zeros((), dtype=torch.int64))

    def _set_units(self, space: Space) -> None:
        """Note in which units a space's members are given back: bounded numbers from -1 to 1."""
        center, reach = torch.zeros(self.flat.features), torch.ones(self.flat.features)
        if isinstance(space, spaces.Box):
            scale = uint8_scale(self.space)
            center, reach = (torch.as_tensor(x.ravel() / scale) for x in own_units(space))
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("reach", reach, persistent=False)

    def encode(self, obs: Any) -> Tensor:
        """Map `obs` [B, ...] to its code, or to what the decoder's last layer is given."""
        code = self._code(self.flat.encode(obs))
        return self._before_output(code) if self.decoding else code

    def answering(self, action_space: Space) -> nn.Module | None:
        """Return the decoder's last layer where answers are of the observation's own form."""
        if not isinstance(self.space, spaces.Box) or self.space.shape != action_space.shape:
            return None
        if not isinstance(action_space, spaces.Box):
            return None
        self.decoding = True
        self.features = self.width
        self._set_units(action_space)  # which are not its own where it sees normalised numbers
        return self.decoder[0]

    def study(
        self, obs: Any, start: Tensor, state: State, answer: Tensor, valid: Tensor
    ) -> tuple[Tensor, State, Terms]:
        """Map as `forward` does, but what learns: noise, draws, and one layer alone in its turn."""
        if not self.decoding:
            return super().study(obs, start, state, answer, valid)
        features, terms = self._learned(self._seen(obs), valid.flatten())
        return features.unflatten(0, start.shape), None, terms

    def auxiliary(self, obs: Any, valid: Tensor) -> Terms:
        """Return the error of what is given back, half the squared one a step, and other terms."""
        x, counted = self._seen(obs), valid.flatten()
        features, terms = self._learned(x, counted)
        error = squared_error(self.decoder[0](features), (x - self.center) / self.reach, counted)
        return {"reconstruction": error, **terms}

    def update(self, obs: Any, valid: Tensor) -> None:
        """Count the steps learned from."""
        self.studied += valid.sum()

    def decode(self, code: Tensor) -> Tensor:
        """Map codes [B, code] to observations [B, ...] as real numbers, flat where it is no Box."""
        out = self.decoder[0](self._before_output(code)) * self.reach + self.center
        if not isinstance(self.space, spaces.Box):
            return out
        return (out * uint8_scale(self.space)).reshape(-1, *self.space.shape)

    def code_of(self, obs: Any) -> Tensor:
        """Map observations [B, ...] to their codes [B, code]."""
        return self._code(self.flat.encode(obs))

    def _seen(self, obs: Any) -> Tensor:
        """Return observations [T, N, ...] as numbers [T * N, n]."""
        return self.flat.encode(tree.map(lambda leaf: leaf.flatten(0, 1), obs))

    def _code(self, x: Tensor) -> Tensor:
        for layer in self.encoder:
            x = layer(x)
        return x

    def _before_output(self, code: Tensor) -> Tensor:
        """Return what the decoder's last layer is given [B, features] for codes."""
        for layer in reversed(self.decoder[1:]):
            code = layer(code)
        return code

    def _corrupted(self, x: Tensor) -> Tensor:
        """Return numbers with noise and some of them 0, drawn from torch's generator."""
        if self.gaussian:
            x = x + self.gaussian * torch.randn_like(x)
        return x * (torch.rand_like(x) >= self.masking) if self.masking else x

    def _learned(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Terms]:
        """Return what the last layer is given for numbers [B, n] that are learned, and terms."""
        turn = int(self.studied) // self.layer_steps if self.layer_steps else len(self.encoder)
        if turn < len(self.encoder):
            return self._layer_alone(turn, x, valid)
        code, terms = self._learned_code(self._corrupted(x), valid)
        return self._before_output(code), terms

    def _learned_code(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Terms]:
        """Return codes [B, code] that are to be decoded, and terms of their own."""
        code = self._code(x)
        if not self.sparsity:
            return code, {}
        rate = (code * valid[:, None]).sum(0) / valid.sum().clamp(min=1)
        return code, {"sparsity": self.sparsity * divergence(self.sparsity_rate, rate).sum()}

    def _layer_alone(self, turn: int, x: Tensor, valid: Tensor) -> tuple[Tensor, Terms]:
        """Return what the last layer is given, and the error of the layer whose turn it is.

        The first layer's is the error of the observation itself.
        """
        if not turn:
            return self.encoder[0](self._corrupted(x)), {}
        with torch.no_grad():
            first = x = self.encoder[0](x)
            for layer in self.encoder[1:turn]:
                x = layer(x)
        back = self.decoder[turn](self.encoder[turn](self._corrupted(x)))
        return first, {"layer": squared_error(back, x, valid)}


def check_sparsity(weight: float, rate: float, activation: Kind) -> None:
    """Refuse numbers out of range, and a code that has no rate of activity."""
    check_amount("sparsity", weight)
    if not 0 < rate < 1:
        raise UsageError(f"sparsity_rate {rate!r}: expected a number in (0, 1)")
    if weight and not isinstance(make_activation(activation), nn.Sigmoid):
        remedy = "take code_activation=Sigmoid"
        raise UsageError(f"sparsity {weight}: the code has no rate of activity; {remedy}")


def squared_error(out: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    """Return half the sum of squared errors of rows [B, n], the mean where valid [B]."""
    each = 0.5 * (out - wanted).square().sum(-1)
    return torch.where(valid, each, 0.0).sum() / valid.sum().clamp(min=1)


class VAE(AutoEncoder):
    """An autoencoder whose codes are drawn, and held to a normal distribution.

    Where it learns, codes are drawn about the encoder's means, with spreads of their own, and the
    loss has the term kl, the weighted divergence from a standard normal distribution, from which
    new observations can be drawn (Kingma and Welling, 2014). Agents act on the means.

    beta: weight of the divergence, at least 0.
        The error is that of a spread of 1 where bounded numbers go from -1 to 1; beta is the
        variance that what is given back has about what was seen (Higgins et al., 2017).
    free_bits: nats of each number, of the mean over steps, that cost nothing (Kingma et al., 2016).
    kl_anneal: steps learned from over which beta grows from 0 on (Bowman et al., 2016).
    Other arguments are those of AutoEncoder.
    """

    def __init__(
        self,
        space: Space,
        code: int = 8,
        *,
        beta: float = 0.05,
        free_bits: float = 0.0,
        kl_anneal: int = 0,
        **others: Any,
    ) -> None:
        super().__init__(space, code, **others)
        if self.sparsity:
            reason = "codes are held to a normal distribution; take network autoencoder"
            raise UsageError(f"sparsity {self.sparsity}: {reason}")
        check_amount("beta", beta)
        check_amount("free_bits", free_bits)
        self.beta, self.free_bits = beta, free_bits
        self.kl_anneal = check_whole("kl_anneal", kl_anneal, 0)
        before: Any = self.encoder[-1]
        self.log_variance = nn.Linear(before[0].in_features, code)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and logarithms of variances [B, code] of the codes of numbers [B, n]."""
        for layer in self.encoder[:-1]:
            x = layer(x)
        return self.encoder[-1](x), self.log_variance(x).clamp(-MOST, MOST)

    def _learned_code(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Terms]:
        """Return codes that are drawn, and the weighted divergence."""
        mean, log_variance = self.posterior(x)
        nothing = torch.zeros_like(mean)
        each = kl((mean, log_variance), (nothing, nothing)) * valid[:, None]
        each = each.sum(0) / valid.sum().clamp(min=1)
        grown = (self.studied / self.kl_anneal).clamp(max=1.0) if self.kl_anneal else 1.0
        term = self.beta * grown * each.clamp(min=self.free_bits).sum()
        return mean + (0.5 * log_variance).exp() * torch.randn_like(mean), {"kl": term}
