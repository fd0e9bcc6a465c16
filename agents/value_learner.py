"""Gradient steps of action values towards their targets, with a target network beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqrl.agents import targets
from seqrl.agents.action_values import ActionValues
from seqrl.agents.episodes import Batch as Episodes
from seqrl.agents.items import Sequences, Steps
from seqrl.agents.torch_tools import (
    descend,
    load_optimizer_state,
    load_weights,
    optimizer_state,
    to_numpy,
)
from seqrl.agents.value_chain import Chain
from seqrl.agents.value_settings import Rule
from seqrl.agents.whole_episodes import sequence
from seqrl.core import forms, tree


class Outcome(NamedTuple):
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

    chain: Chain | None = None  # the values in NumPy, where that is how they are learned

    def __init__(
        self, values: ActionValues, optimizer: torch.optim.Optimizer, rule: Rule, *, slow: bool
    ):
        self.values, self.optimizer, self.rule = values, optimizer, rule
        self.target = values.frozen() if slow else values
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
        self, batch: Steps | Sequences, weight: Tensor | None, learning_rate: float, explored: float
    ) -> Outcome:
        """One gradient step; weights [B] of the items, the policy's rate for expected values."""
        if not self.values.training:
            self.values.train()
        mask = None
        if isinstance(batch, Steps):
            value, target = self._of_steps(batch, explored)
            seen = self._constant(batch.action)[1]
        else:
            value, target, mask = self._of_sequences(batch, explored)
            seen = batch.mask
        loss = self._loss(value, target, mask, weight)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.updates += 1
        most = self.rule.max_grad_norm
        norm = descend(self.values, self.optimizer, loss, most, "loss", self.updates)
        self.values.network.update(batch.obs, seen)  # last: until here the values are those of then
        return Outcome(loss.detach(), norm, target - value.detach(), mask)

    def _loss(
        self, value: Tensor, target: Tensor, mask: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        kind = self.rule.loss
        if mask is None and weight is None:
            return targets.penalty(kind, value, target, "mean")
        each = targets.penalty(kind, value, target)
        each = each if weight is None else each * weight
        return each.mean() if mask is None else targets.mean(each, mask)

    def _of_steps(self, batch: Steps, explored: float) -> tuple[Tensor, Tensor]:
        """Values and targets [1, B]."""
        start = self._constant(batch.action)[0]
        target = batch.total
        if self.rule.target != "monte-carlo":
            with torch.no_grad():
                following = self._following(batch, start, explored)
                target = target + batch.discount * self._plain(following)
        q, _ = self.values(batch.obs, start)
        return targets.chosen(q, self._action(batch.action)), self._squashed(target)

    def _following(self, batch: Steps, start: Tensor, explored: float) -> Tensor:
        q, _ = self.target(batch.after, start)
        other = q
        if self.rule.double:
            other, _ = self.values(batch.after, start)
        return self._value(q, other, batch.after_action, batch.after_final, explored)

    def _of_sequences(self, batch: Sequences, explored: float) -> tuple[Tensor, Tensor, Tensor]:
        """Values, targets and mask [L + 1 - burn_in, B]; the last row is none to learn from."""
        first = self.rule.burn_in
        q = self._unroll(self.values, batch, grad=True)
        with torch.no_grad():
            slow = q if self.target is self.values else self._unroll(self.target, batch)
            action, final = batch.action[first:], batch.final[first:]
            value = self._plain(self._value(slow, q, action, final, explored))
            target = targets.n_step(
                batch.reward[first:],
                batch.terminated[first:],
                final,
                value,
                self.rule.gamma,
                self.rule.n_step,
            )
        value = targets.chosen(q, self._action(action))
        return value, self._squashed(target), batch.mask[first:]

    def _unroll(self, values: ActionValues, batch: Sequences, grad: bool = False) -> Tensor:
        """Q of the rows behind the burn-in, which only brings the memory up to date."""
        first, state = self.rule.burn_in, batch.state
        rolled: Any = (batch.obs, batch.start)
        if first:
            with torch.no_grad():
                _, state = values(*cut(rolled, slice(first)), state)
            rolled = cut(rolled, slice(first, None))
        with torch.set_grad_enabled(grad):
            return values(*rolled, state)[0]

    def _value(
        self, q: Tensor, other: Tensor, action: Tensor, final: Tensor, explored: float
    ) -> Tensor:
        """What a row is worth [...] under the rule, by the target network's q [..., A]."""
        rule = self.rule
        if rule.target == "q-learning":
            return targets.double(q, other) if rule.double else q.amax(-1)
        mean = targets.expected(rule.kind, q, explored)
        if rule.expected or rule.target == "monte-carlo":
            return mean
        return torch.where(final, mean, targets.chosen(q, self._action(action)))

    def tail(self, batch: Episodes, memory: bool, explored: float) -> Tensor:
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
            worth = self._plain(targets.expected(self.rule.kind, q, explored))
        return torch.where(over, 0.0, worth)

    def _action(self, action: Tensor) -> Tensor:
        """Actions as indices."""
        return action - self.rule.first_action if self.rule.first_action else action

    def _plain(self, value: Tensor) -> Tensor:
        return targets.unsquash(value) if self.rule.rescale else value

    def _squashed(self, value: Tensor) -> Tensor:
        return targets.squash(value) if self.rule.rescale else value

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
        form = dict.fromkeys(("values", "target", "optimizer"), forms.anything)
        forms.check(NAME, state, form | {"updates": 0})
        forms.check(f"{NAME}/target", state["target"], own["target"])
        load_weights(self.values, state["values"], f"{NAME}/values")
        if self.target is not self.values:
            load_weights(self.target, state["target"], f"{NAME}/target")
        load_optimizer_state(self.optimizer, state["optimizer"], f"{NAME}/optimizer")
        self.updates = state["updates"]


NAME = "agent/learner"  # of an entry in a checkpoint


def cut(rolled: Any, part: slice) -> Any:
    """That part of the time of every leaf."""
    return tree.map(lambda leaf: leaf[part], rolled)
