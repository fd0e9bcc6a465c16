"""A network with the layer that makes its features an agent's numbers, as it acts and learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.agents.deep.optim import (
    Optim,
    clip_gradients,
    follow,
    freeze,
    load_optimizer_state,
    load_weights,
    optimizer_state,
    without_denormals,
)
from seqrl.core import action_mask, schema, team, tree
from seqrl.core.arrays import joined, to_numpy, to_tensor
from seqrl.core.errors import UsageError
from seqrl.core.types import Array, DeferredChecks, State
from seqrl.networks.base import Network, handed
from seqrl.networks.batch_norm import batch_norms
from seqrl.networks.plain.numpy_adam import NumpyAdam
from seqrl.networks.plain.numpy_forward import NumpyForward, numpy_forward
from seqrl.networks.plain.numpy_mlp import NumpyMLP, numpy_mlp

Clipped = tuple[Tensor | float, DeferredChecks]
BACKENDS = ("auto", "torch", "numpy")


def leaves_its_inputs(layer: nn.Module) -> bool:
    """Return whether a layer is known to write to nothing it is given: one of ours or torch's."""
    known = type(layer).__module__.startswith(("seqrl.", "torch.nn.modules."))
    return known and not getattr(layer, "inplace", False)


def masked(out: Array, legal: Array, choices: Sequence[int]) -> Array:
    """Return numbers [..., K] whose first A are of actions: FORBIDDEN where not legal [..., A].

    Of a choice that may be taken in no way at all every one may be.
    """
    count, never = legal.shape[-1], action_mask.FORBIDDEN
    if len(choices) > 1:
        ends = np.cumsum(choices).tolist()
        groups = [legal[..., end - n : end] for n, end in zip(choices, ends, strict=True)]
        legal = joined([group | ~group.any(-1)[..., None] for group in groups], -1)
    if isinstance(out, np.ndarray):
        first: Array = np.where(legal, out[..., :count], np.asarray(never, out.dtype))
    else:
        first = torch.where(legal.to(out.device), out[..., :count], never)
    return first if count == out.shape[-1] else joined([first, out[..., count:]], -1)


class Outputs(nn.Module):
    """A network and a linear layer from its features to K numbers of each step.

    dueling: the layer gives V(s) and A(s, .); the numbers are V(s) + A(s, a) - mean A(s, .)
        (Wang et al., 2016, eq. 9, with the network's features shared by both).
    head: a module whose weights belong to these numbers (a spread that is learned).
    choices: how many of the first numbers are of each choice among actions, which obeys a mask.
    """

    def __init__(
        self,
        network: Network,
        layer: nn.Linear,
        *,
        dueling: bool = False,
        head: Any = None,
        choices: Sequence[int] = (),
    ):
        super().__init__()
        self.network, self.layer, self.dueling = network, layer, dueling
        self.choices = choices
        if head is not None:
            self.head = head
        self.copies = not all(map(leaves_its_inputs, network.modules()))

    def forward(
        self, obs: Any, start: Tensor, state: State = None, noise: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Map obs [T, B, ...], start [T, B] and memory to numbers [T, B, K] and memory."""
        features, state = self.features(obs, start, state, noise)
        return self.numbers(features), state

    def features(
        self, obs: Any, start: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State]:
        """Map obs, start, memory and noise to the network's features [T, B, F] and memory."""
        if self.copies:
            obs, state = tree.map(torch.clone, (obs, state))
        return handed(self.network, obs, start, state, noise)

    def study(
        self, obs: Any, start: Tensor, state: State, answer: Tensor, valid: Tensor
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Return features, memory, and the network's own terms of the loss by name."""
        if self.copies:
            obs, state = tree.map(torch.clone, (obs, state))
        return self.network.study(obs, start, state, answer, valid)

    def numbers(self, features: Tensor) -> Tensor:
        """Map features [T, B, F] to numbers [T, B, K]."""
        return self.combined(self.layer(features.to(self.layer.weight.dtype)))

    def train(self, mode: bool = True) -> Outputs:
        """Set the mode of all layers but those that normalise by running statistics."""
        super().train(mode)
        for norm in batch_norms(self.network):
            norm.training = False
        return self

    def combined(self, out: Array) -> Array:
        """Return the layer's numbers, combined where they are dueling."""
        if not self.dueling:
            return out
        advantage = out[..., 1:]
        return out[..., :1] + advantage - advantage.mean(-1)[..., None]


class Part:
    """Outputs that are trained, and NumPy arrays in their place where those are faster.

    The module's parameters are the only home of the weights: plain layers act and learn in arrays
    that share their memory, other small networks act by a copy that follows every change.

    backend: "torch", "numpy", or "auto", which takes NumPy where the network is plain and on the
        CPU.
    draws: whether layers such as dropout draw while it learns; those of a policy do not, since it
        is to learn as it acts.
    numpy: whether it may learn in NumPy: arrays where batches are arrays, else a tensor that the
        loss is differentiated by, and NumPy from there on. `learns_in_numpy` says whether it does:
        an MLP without dueling, and Adam without weight decay.
    """

    def __init__(
        self,
        module: Outputs,
        optim: Optim | None,
        device: torch.device,
        backend: str,
        *,
        draws: bool = True,
        numpy: bool = False,
    ):
        self.module, self.device, self.draws = module, device, draws
        self._rest()  # all of it: the network may have been tried alone
        self.optim = optim
        if optim is not None and optim.freeze:
            freeze(module.network, optim.freeze)
        self.optimizer = None if optim is None else optim.make(module.parameters())
        self.mlp: NumpyMLP | None = None
        self.plain: NumpyMLP | NumpyForward | None = None
        self.adam: NumpyAdam | None = None
        if device.type == "cpu" and backend != "torch":
            self.mlp = numpy_mlp(module.network, module.layer, getattr(module, "head", None))
            self.plain = self.mlp or numpy_forward(module.network, module.layer)
        self.torch_for = ""
        if numpy and self.mlp is not None and not module.dueling and optim is not None:
            own, adam = len(list(module.parameters())), self.optimizer
            if adam is not None and own == len(self.mlp.parameters):
                self.torch_for = optim.beyond_numpy
                self.adam = None if self.torch_for else NumpyAdam(adam, self.mlp)
        if backend == "numpy" and self.plain is None:
            name = type(module.network).__name__
            raise UsageError(f"backend numpy: network {name} is not plain; take auto or torch")
        # of the newest learning pass in NumPy: activations, outputs as a tensor, gradient
        self.activations: list[np.ndarray] = []
        self.leaf: Tensor | None = None
        self.gradient: np.ndarray | None = None
        self.terms: list[Tensor] = []  # what that adds to the loss

    @property
    def learns_in_numpy(self) -> bool:
        """Whether there is a NumPy form of the gradient and of the optimiser's step."""
        return self.adam is not None

    def refresh(self) -> None:
        """Follow weights that were replaced or written to, by whomever."""
        if self.plain is not None:
            self.plain.refresh()
        if self.adam is not None and not self.adam.bound:
            self.adam.bind()

    @property
    def weights(self) -> list[nn.Parameter]:
        """What the optimiser steps: the module's weights of now, where some were replaced."""
        assert self.optimizer is not None
        return follow(self.optimizer, self.module)

    def clear(self) -> None:
        """Forget the gradients."""
        for weight in self.weights if self.adam is None else self.adam.mlp.of_head:
            weight.grad = None  # what zero_grad does, at a third of its cost

    def take_terms(self) -> list[Tensor]:
        """Return what the newest learning pass adds to the loss, if anything, and forget it."""
        found, self.terms = self.terms, []
        return found

    def clip(self, most: float, by_outputs: np.ndarray | None = None) -> Clipped:
        """Add the penalties' gradients, cut all to a norm of at most `most`.

        Return the norm before that, and its deferred checks.
        by_outputs: of a loss by the newest outputs, where it was worked out in NumPy.
        """
        if by_outputs is None and self.leaf is not None and self.leaf.grad is not None:
            by_outputs = self.leaf.grad.numpy()
        if by_outputs is None:
            assert self.optim is not None
            weights = self.weights
            team.add_up(weight.grad for weight in weights if weight.grad is not None)
            self.optim.regularisation.add_penalties(weights)
            return clip_gradients(self.module, weights, most, self.optim.max_grad_value)
        assert self.mlp is not None
        flat = self.mlp.backward(self.activations, by_outputs.reshape(-1, by_outputs.shape[-1]))
        team.add_up([flat])
        norm = math.sqrt(flat @ flat)
        if not math.isfinite(norm):
            for weight, view in zip(self.mlp.parameters, self.mlp.views(flat), strict=True):
                weight.grad = torch.from_numpy(view)
            clip_gradients(self.module, self.mlp.parameters, most)  # refuses it by name
        if norm > most:
            flat *= most / norm
        self.gradient = flat
        return norm, ()

    def step(self, learning_rate: float) -> None:
        """Step the weights along their gradients."""
        with without_denormals():
            if self.adam is not None:
                assert self.gradient is not None
                self.adam.step(self.gradient, learning_rate)
                return
            assert self.optimizer is not None
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()

    def act(
        self, obs: Array, start: Array, state: State, noise: Array | None = None
    ) -> tuple[Array, State]:
        """Map one step, obs [N, ...], to numbers [N, K] of the same kind of array, and memory.

        noise: [N, noise] for a network that draws; None for no draw.
        """
        on_host = isinstance(start, np.ndarray)
        obs, legal = action_mask.split(obs)
        if self.plain is not None and on_host:
            self.refresh()
            out, state = self.plain.step(obs, start, state)
            out = self.module.combined(out)
        else:
            out, state = self.act_in_torch(obs, start, state, noise)
            out = to_numpy(out) if on_host else out
        return self._masked(out, legal), state

    def act_in_torch(
        self, obs: Array, start: Array, state: State, noise: Array | None = None
    ) -> tuple[Tensor, State]:
        """Map one step to numbers [N, K] as a tensor on the device, and memory."""
        rolled = to_tensor((obs, start, noise), self.device)
        seen, begins, drawn = tree.map(lambda leaf: leaf[None], rolled)
        self._rest()
        with torch.inference_mode():
            out, state = self.module(seen, begins, to_tensor(state, self.device), drawn)
        return out[0], state

    def learn(
        self,
        obs: Array,
        start: Array,
        state: State = None,
        valid: Array | None = None,
        noise: Array | None = None,
    ) -> Array:
        """Map a batch to numbers [T, B, K] that a loss may be differentiated by.

        valid: bool [T, B], of which steps the features' activity is to be sparse; None for all.
        noise: [T, B, noise] that the network was handed when it acted.
        """
        obs, legal = action_mask.split(obs)
        return self._masked(self._learn(obs, start, state, valid, noise), legal)

    def _learn(
        self, obs: Array, start: Array, state: State, valid: Array | None, noise: Array | None
    ) -> Array:
        if isinstance(start, np.ndarray):
            self.activations = self._in_numpy(obs, start)
            return self.activations[-1].reshape(*start.shape, -1)
        if self.learns_in_numpy:
            self.refresh()
            self.activations = self._in_numpy(obs.numpy(), start.numpy())
            self.leaf = torch.from_numpy(self.activations[-1]).view(*start.shape, -1)
            return self.leaf.requires_grad_()
        self._wake()
        return self._in_torch(obs, start, state, valid, noise=noise)[0]

    def _wake(self) -> None:
        """Set the module to learning."""
        if not self.draws:
            rest(self.module)
        elif not self.module.training:
            self.module.train()

    def study(
        self, obs: Array, start: Array, state: State, answer: Array, valid: Array
    ) -> tuple[Array, dict[str, Tensor]]:
        """Map a batch to numbers [T, B, K] and the network's own terms of the loss by name.

        answer [T, B, ...] are the right actions, known where `valid` [T, B] holds.
        """
        if self.learns_in_numpy:  # a plain network, which adds nothing
            return self.learn(obs, start, state), {}
        obs, legal = action_mask.split(obs)
        self._wake()
        out, terms = self._in_torch(obs, start, state, valid, answer)
        return self._masked(out, legal), terms

    def _in_torch(
        self,
        obs: Any,
        start: Tensor,
        state: State,
        valid: Array | None,
        answer: Any = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the numbers [T, B, K], and the network's own terms where it is told answers."""
        assert self.optim is not None
        regular, self.terms = self.optim.regularisation, []
        if regular.auxiliary:
            counted = torch.ones_like(start, dtype=torch.bool) if valid is None else valid
            self.terms.append(regular.auxiliary_term(self.module.network, obs, counted))
        if regular.input_noise and self.draws:
            obs = regular.noisy(obs)
        if answer is None and not (self.optim.bptt or regular.sparsity):
            return self.module(obs, start, state, noise)[0], {}
        features, terms = self._in_pieces(obs, start, state, valid, answer, noise)
        if regular.sparsity:
            self.terms.append(regular.activity_term(features, valid))
        return self.module.numbers(features), terms

    def _in_pieces(
        self, obs: Any, start: Tensor, state: State, valid: Any, answer: Any, noise: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the features [T, B, F] and terms; over pieces memory goes on, but no gradient."""
        assert self.optim is not None
        parts, sums = [], dict[str, Tensor]()
        length = self.optim.bptt or len(start)
        shares = shares_of_valid(valid, length) if answer is not None else [1.0]
        for place, first in enumerate(range(0, len(start), length)):
            rows = slice(first, first + length)
            seen, drawn = tree.map(lambda leaf, rows=rows: leaf[rows], (obs, noise))
            if answer is None:
                features, state = self.module.features(seen, start[rows], state, drawn)
            else:
                told = answer[rows], valid[rows]
                features, state, terms = self.module.study(seen, start[rows], state, *told)
                if share := shares[place]:
                    sums |= {name: sums.get(name, 0) + share * x for name, x in terms.items()}
            state = tree.map(Tensor.detach, state)
            parts.append(features)
        return torch.cat(parts) if len(parts) > 1 else parts[0], sums

    def evaluate(
        self, obs: Array, start: Array, state: State = None, noise: Array | None = None
    ) -> Array:
        """Map a batch to numbers [T, B, K] without a gradient."""
        obs, legal = action_mask.split(obs)
        return self._masked(self._evaluate(obs, start, state, noise), legal)

    def _evaluate(self, obs: Array, start: Array, state: State, noise: Array | None) -> Array:
        if isinstance(start, np.ndarray):
            return self._in_numpy(obs, start)[-1].reshape(*start.shape, -1)
        if self.learns_in_numpy:
            self.refresh()
            return torch.from_numpy(self._evaluate(obs.numpy(), start.numpy(), state, noise))
        self._rest()
        with torch.no_grad():
            return self.module(obs, start, state, noise)[0]

    def memory_after(self, obs: Array, start: Array, state: State) -> State:
        """Return the memory behind a batch."""
        self._rest()
        with torch.no_grad():
            return self.module(action_mask.split(obs)[0], start, state)[1]

    def _masked(self, out: Array, legal: Array | None) -> Array:
        choices = self.module.choices
        return masked(out, legal, choices) if legal is not None and choices else out

    def _rest(self) -> None:
        if self.module.training:
            self.module.eval()

    def _in_numpy(self, obs: Array, start: np.ndarray) -> list[np.ndarray]:
        assert self.mlp is not None
        return self.mlp.activations(obs.reshape(start.size, *obs.shape[2:]))

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and what the optimiser has gathered."""
        self.refresh()
        weights = to_numpy(dict(self.module.state_dict()))
        gathered = None if self.optimizer is None else optimizer_state(self.optimizer)
        return {"weights": weights, "optimizer": gathered}

    def load_state_dict(self, state: dict[str, Any], name: str) -> None:
        """Continue where `state` was taken; refuse by name what is of another network."""
        gathered = None if self.optimizer is None else schema.anything
        schema.check(name, state, {"weights": schema.anything, "optimizer": gathered})
        load_weights(self.module, state["weights"], f"{name}/weights")
        if self.optimizer is not None:
            load_optimizer_state(self.optimizer, state["optimizer"], f"{name}/optimizer")
        self.refresh()


def shares_of_valid(valid: Tensor, length: int) -> list[float]:
    """Return the share of the valid steps [T, B] in each piece of a length; of one piece 1.

    A mean over the steps of a piece without any would be 0 / 0, so what is 0 here is left out.
    """
    if len(valid) <= length:
        return [1.0]
    counts: list[int] = torch.stack([piece.sum() for piece in valid.split(length)]).tolist()
    return [count / max(sum(counts), 1) for count in counts]


def rest(module: nn.Module) -> None:
    """Set a module to evaluation; torch's recurrent layers only where they would draw.

    On a GPU they are differentiated in training mode alone, which without dropout is the same.
    """
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.RNNBase) and not part.dropout:
            part.train()
