"""Beginning from what another agent has learned, and keeping it where reward is learned next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqrl.agents.deep.outputs import Outputs
from seqrl.agents.schedules import Rate, schedule
from seqrl.core.checked import checked_part
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.moments import RunningMoments

BODY, LAYER = "network.", "layer."  # of the weights of an `Outputs`
ACTING = ("policy", "values")  # names of the part that acts
SOFT = "head.inward.weight"  # a weight of values of real actions
SHOWN = 4  # weights that a message names


@checked_part
@dataclass(frozen=True)
class WarmStart:
    """How a policy that comes from another run keeps what it has learned there.

    critic_warmup: env steps in which only the critic learns, at least 0; one update at least.
        Its first errors would else be the policy's advantages.
    kl_coef: weight of KL(policy || the policy it came from), at least 0, a number or a schedule.
        In nats a step, exact for each observation; a frozen copy is kept with the run. Without
        a run to come from, it is the policy that the agent was built with.
    """

    critic_warmup: int = 0
    kl_coef: Rate = 0.0

    def __post_init__(self) -> None:
        check_whole("critic_warmup", self.critic_warmup, 0)
        schedule("kl_coef", self.kl_coef, 0.0, float("inf"))

    @property
    def anchored(self) -> bool:
        """Whether the policy is held to the one it came from."""
        found = schedule("kl_coef", self.kl_coef, 0.0, float("inf"))
        return max(found.start, found.end) > 0

    def check(self, critic: bool, shares_network: bool) -> None:
        """Refuse a warm-up of a critic that is not there, or is the policy's own network."""
        if self.critic_warmup and not critic:
            reason = "there is no value network; take --baseline value, or leave it at 0"
            raise UsageError(f"critic_warmup {self.critic_warmup}: {reason}")
        if self.critic_warmup and shares_network:
            reason = "the values share the policy's network, which would learn too; leave it at 0"
            raise UsageError(f"critic_warmup {self.critic_warmup}: {reason}")


class Taken(NamedTuple):
    """The names of the weights that were taken from another network, and of those that were not."""

    taken: list[str]
    left: list[str]  # with their shapes, here and there

    def __str__(self) -> str:
        """As a run tells it, in a line."""
        count = f"{len(self.taken)} of {len(self.taken) + len(self.left)} weights taken"
        if not self.left:
            return count
        more = len(self.left) - SHOWN
        rest = f" and {more} more" if more > 0 else ""
        return f"{count}; begun anew: {', '.join(self.left[:SHOWN])}{rest}"


def acting_weights(parts: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the weights of the part that acts, of an agent's saved parts."""
    name = next((name for name in ACTING if isinstance(parts, dict) and name in parts), None)
    if name is None or not isinstance(weights_of(parts, name), dict):
        raise UsageError("it has learned no network; expected an agent on one")
    return name, weights_of(parts, name)


def form_of(parts: Mapping[str, Any]) -> str:
    """Return what the rows of the last layer say of actions, by the weights that parts hold.

    "choices": how each is preferred; "means" of real numbers; "spreads": means, then their spreads.
    """
    critic = weights_of(parts, "critic")
    if isinstance(critic, dict) and SOFT in critic:
        return "spreads"
    return "means" if "head.log_std" in acting_weights(parts)[1] else "choices"


def weights_of(parts: Mapping[str, Any], name: str) -> Any:
    """Return the saved weights of a part, None without any."""
    part = parts.get(name)
    return part.get("weights") if isinstance(part, dict) else None


@torch.no_grad()
def take_weights(module: Outputs, weights: Mapping[str, Any], rows: Any) -> Taken:
    """Fill a module with the weights of its names and shapes; nothing else changes.

    rows: from the last layer's weights, here or there, to those rows that prefer actions (a view).
    UsageError where nothing of the network itself fits, or a number is not finite.
    """
    pairs, left = [], []
    for name, own in module.state_dict().items():
        found, here = weights.get(name), own
        there = torch.as_tensor(found).to(own.device) if hasattr(found, "dtype") else None
        if there is not None and name.startswith(LAYER):
            here, there = rows(own, False), rows(there, True)
        if there is not None and (there.shape, there.dtype) == (here.shape, here.dtype):
            check_finite_weight(name, there)
            pairs.append((name, here, there))
        else:
            left.append(f"{name} {shape_of(own)} (there {shape_of(found)})")
    body = [name for name in module.state_dict() if name.startswith(BODY)]
    if not any(name.startswith(BODY) or not body for name, _, _ in pairs):
        rest = f", and {len(left) - 1} more" if len(left) > 1 else ""
        problem = f"{left[0]}{rest}" if left else "it has none"
        raise UsageError(f"no weight of its network fits: {problem}; take the same --network")
    for _, here, there in pairs:
        here.copy_(there)
    return Taken([name for name, _, _ in pairs], left)


def fits_whole(here: Any, there: Any) -> bool:
    """Return whether both are weights of one module, in names and shapes."""
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return False
    return {x: shape_of(w) for x, w in here.items()} == {x: shape_of(w) for x, w in there.items()}


def check_finite_weight(name: str, weight: Tensor) -> None:
    """Refuse weights that are not finite, by name."""
    if weight.is_floating_point() and not bool(weight.isfinite().all()):
        raise UsageError(f"its {name} is not finite: it has learned nothing to go on with")


def shape_of(weight: Any) -> str:
    """Return a weight's shape as text."""
    return "none" if not hasattr(weight, "shape") else str(list(weight.shape))


def units_of_rewards(saved: Mapping[str, Any]) -> RunningMoments:
    """Return the moments by whose spread another agent divided rewards: 1 where it did not."""
    moments = RunningMoments()
    moments.load_state_dict(saved["reward_scale"]["moments"], "agent/reward_scale/moments")
    return moments


def body_of(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of the network alone, without the layer behind it."""
    return {name: x for name, x in weights.items() if name.startswith(BODY)}
