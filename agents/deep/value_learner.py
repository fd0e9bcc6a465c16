"""Gradient steps of action values towards their targets, with a target network beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqrl.agents.deep import targets
from seqrl.agents.deep.action_values import ActionValues
from seqrl.agents.deep.optim import (
    gradient_step,
    load_optimizer_state,
    load_weights,
    optimizer_state,
)
from seqrl.agents.deep.value_arguments import TargetArguments
from seqrl.agents.experience.batches import Sequences, Steps
from seqrl.agents.experience.episodes import EpisodeBatch as Episodes
from seqrl.agents.experience.whole_episodes import sequence
from seqrl.core import schema, tree
from seqrl.core.arrays import to_numpy
from seqrl.networks.plain.numpy_mlp import NumpyMLP


class UpdateResult(NamedTuple):
    """What a gradient step tells."""

    loss: Tensor | float
    norm: Tensor | float  # of the gradient
    error: Tensor  # target minus value [T, B]
    mask: Tensor | None  # [T, B] what of it was learned from; None for all

    def per_item(self) -> Tensor:
        """The error of each item [B], in size."""
        if self.mask is None:
            return self.error[0].abs()
        return targets.sequence_error(self.error, self.mask)

    def numbers(self) -> dict[str, float]:
        """Loss, mean size of the error, norm of the gradient."""
        size = self.error.abs()
        mean = size.mean() if self.mask is None else targets.mean(size, self.mask)
        return {"loss": float(self.loss), "td_error": float(mean), "grad_norm": float(self.norm)}


class ValueLearner:
    """The values, their optimiser and, where asked for, a target network that follows them."""

    mlp: NumpyMLP | None = None  # the values in NumPy, where that is how they are learned

    def __init__(
        self,
        values: ActionValues,
        optimizer: torch.optim.Optimizer,
        target_args: TargetArguments,
        *,
        target_network: bool,
    ):
        self.values, self.optimizer, self.target_args = values, optimizer, target_args
        self.target = values.frozen() if target_network else values
        self.updates = 0
        self.constants: dict[int, tuple[Tensor, Tensor]] = {}  # by B: [1, B] of False, of True

    def follow(self, share: float) -> None:
        """Move the target network that far towards the values (1: all the way)."""
        pairs = list(zip(self.target.parameters(), self.values.parameters(), strict=True))
        with torch.no_grad():
            torch._foreach_lerp_([old for old, _ in pairs], [new for _, new in pairs], share)
            for old, new in zip(self.target.buffers(), self.values.buffers(), strict=True):
                old.copy_(new)

    def update(
        self, batch: Steps | Sequences, weight: Tensor | None, learning_rate: float, epsilon: float
    ) -> UpdateResult:
        """One gradient step; weights [B] of the columns, the policy's rate for expected values."""
        if not self.values.training:
            self.values.train()
        mask = None
        if isinstance(batch, Steps):
            value, target = self._of_steps(batch, epsilon)
            seen = self._constant(batch.action)[1]
        else:
            value, target, mask = self._of_sequences(batch, epsilon)
            seen = batch.mask
        loss = self._loss(value, target, mask, weight)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.updates += 1
        most = self.target_args.max_grad_norm
        norm = gradient_step(self.values, self.optimizer, loss, most, "loss", self.updates)
        self.values.network.update(batch.obs, seen)  # last: until here the values are those of then
        return UpdateResult(loss.detach(), norm, target - value.detach(), mask)

    def _loss(
        self, value: Tensor, target: Tensor, mask: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        kind = self.target_args.loss
        if mask is None and weight is None:
            return targets.elementwise_loss(kind, value, target, "mean")
        each = targets.elementwise_loss(kind, value, target)
        each = each if weight is None else each * weight
        return each.mean() if mask is None else targets.mean(each, mask)

    def _of_steps(self, batch: Steps, epsilon: float) -> tuple[Tensor, Tensor]:
        """Values and targets [1, B]."""
        start = self._constant(batch.action)[0]
        target = batch.total
        if self.target_args.target != "monte-carlo":
            with torch.no_grad():
                following = self._following(batch, start, epsilon)
                target = target + batch.discount * self._plain(following)
        q, _ = self.values(batch.obs, start)
        return targets.chosen(q, self._action(batch.action)), self._squashed(target)

    def _following(self, batch: Steps, start: Tensor, epsilon: float) -> Tensor:
        q, _ = self.target(batch.after, start)
        other = q
        if self.target_args.double:
            other, _ = self.values(batch.after, start)
        return self._value(q, other, batch.after_action, batch.after_final, epsilon)

    def _of_sequences(self, batch: Sequences, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        """Values, targets and mask [L + 1 - burn_in, B]; the last row is none to learn from."""
        first = self.target_args.burn_in
        q = self._unroll(self.values, batch, grad=True)
        with torch.no_grad():
            slow = q if self.target is self.values else self._unroll(self.target, batch)
            action, final = batch.action[first:], batch.final[first:]
            value = self._plain(self._value(slow, q, action, final, epsilon))
            target = targets.n_step(
                batch.reward[first:],
                batch.terminated[first:],
                final,
                value,
                self.target_args.gamma,
                self.target_args.n_step,
            )
        value = targets.chosen(q, self._action(action))
        return value, self._squashed(target), batch.mask[first:]

    def _unroll(self, values: ActionValues, batch: Sequences, grad: bool = False) -> Tensor:
        """Q of the rows behind the burn-in, which only brings the memory up to date."""
        first, state = self.target_args.burn_in, batch.state
        rolled: Any = (batch.obs, batch.start)
        if first:
            with torch.no_grad():
                _, state = values(*cut(rolled, slice(first)), state)
            rolled = cut(rolled, slice(first, None))
        with torch.set_grad_enabled(grad):
            return values(*rolled, state)[0]

    def _value(
        self, q: Tensor, other: Tensor, action: Tensor, final: Tensor, epsilon: float
    ) -> Tensor:
        """What a row is worth [...] under the target_args, by the target network's q [..., A]."""
        target_args = self.target_args
        if target_args.target == "q-learning":
            return targets.double(q, other) if target_args.double else q.amax(-1)
        mean = targets.expected(target_args.kind, q, epsilon)
        if target_args.expected or target_args.target == "monte-carlo":
            return mean
        return torch.where(final, mean, targets.chosen(q, self._action(action)))

    def bootstrap(self, batch: Episodes, memory: bool, epsilon: float) -> Tensor:
        """What followed the last step of episodes is worth to the policy [B]; 0 where it was over.

        With memory it is seen with that of the episode.
        """
        over = batch.terminated
        if bool(over.all()):
            return torch.zeros(len(over), device=over.device)
        with torch.no_grad():
            if memory:
                q = self.values(*sequence(batch))[0]
                q = q[batch.length.long(), torch.arange(len(over), device=over.device)]
            else:
                obs = tree.map(lambda leaf: leaf[None], batch.last)
                q = self.values(obs, self._constant(over[None])[0])[0][0]
            worth = self._plain(targets.expected(self.target_args.kind, q, epsilon))
        return torch.where(over, 0.0, worth)

    def _action(self, action: Tensor) -> Tensor:
        """Actions as indices."""
        return action - self.target_args.first_action if self.target_args.first_action else action

    def _plain(self, value: Tensor) -> Tensor:
        return targets.unsquash(value) if self.target_args.rescale else value

    def _squashed(self, value: Tensor) -> Tensor:
        return targets.squash(value) if self.target_args.rescale else value

    def _constant(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """No step opens an episode, every step counts: bool [1, B] for `like` [1, B]."""
        n = like.shape[1]
        if n not in self.constants:
            no = torch.zeros_like(like, dtype=torch.bool)
            self.constants[n] = no, ~no
        return self.constants[n]

    def state_dict(self) -> dict[str, Any]:
        """Weights, those of the target network, the optimiser's moments, the counter."""
        slow = None if self.target is self.values else to_numpy(dict(self.target.state_dict()))
        return {
            "values": to_numpy(dict(self.values.state_dict())),
            "target": slow,
            "optimizer": optimizer_state(self.optimizer),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse; refuses what is not of this form."""
        own = self.state_dict()
        form = dict.fromkeys(("values", "target", "optimizer"), schema.anything)
        schema.check(NAME, state, form | {"updates": 0})
        schema.check(f"{NAME}/target", state["target"], own["target"])
        load_weights(self.values, state["values"], f"{NAME}/values")
        if self.target is not self.values:
            load_weights(self.target, state["target"], f"{NAME}/target")
        load_optimizer_state(self.optimizer, state["optimizer"], f"{NAME}/optimizer")
        self.updates = state["updates"]


NAME = "agent/learner"  # of an entry in a checkpoint


def cut(rolled: Any, part: slice) -> Any:
    """That part of the time of every leaf."""
    return tree.map(lambda leaf: leaf[part], rolled)
