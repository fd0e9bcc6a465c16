"""What the loop asks of an agent."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from seqrl.core.types import Array, Decision, Metrics, State, Transition


class Agent(Protocol):
    """Decides and learns; it alone knows when it has enough to update."""

    gamma: float  # discount in [0, 1]
    horizon: int | None  # env steps that schedules run over, from where it was set; `train` does
    device: Any  # where the agent computes, "cpu" for tables
    learner: str  # what takes its gradient steps, as a run's path names it; "" for tables

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Actions for N observations [N, ...], in the kind of array they came in.

        `start` [N] says which observations open an episode, `state` is the memory the last call
        gave. With explore=False nothing is drawn: the first maximum, the mode.
        """

    def values(self, obs: Array, start: Array) -> Array | None:
        """Value estimates [N] of N observations that open episodes; None where there are none."""

    def learn(self, step: Transition) -> Metrics:
        """Take one turn of N rows and update when there is enough; rows not valid teach nothing."""

    def reseed(self, seed: np.random.SeedSequence) -> None:
        """Draw from a new stream from now on."""

    def state_dict(self) -> dict[str, Any]:
        """All that learning has changed, as arrays and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""


@runtime_checkable
class Taught(Protocol):
    """What the loop asks besides of an agent that asks a teacher while it learns."""

    teacher: Any  # as it was named, or given
    plays: bool  # whether all actions of training are its own, not a teacher's

    def meet(self, envs: Any) -> None:
        """Learn in these environments from now on; UsageError where they cannot teach it."""

    def form_of_turns(self, obs: Array, start: Array) -> Decision:
        """What `act` decides in training as far as kinds and shapes go; draws nothing."""


@runtime_checkable
class Foresees(Protocol):
    """What the loop asks besides of an agent that knows when it will learn.

    Turns on a device are then played one after the other without a look at the host.
    """

    turns_ahead: int  # turns, from 1, in which it acts alike whether it was told of those before
