"""Gates: what a logic gate says to two bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from seqrl.core.checks import check_choice
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws

TRUE_FROM = {"or": 1, "and": 2}  # ones among the bits


@dataclass(frozen=True)
class Gates:
    """Two bits are shown, and their `gate` ("and", "or" or "xor") has to be said; one step.

    Observation: MultiBinary(2). Action: 0 or 1. Reward 1 where it is right, else 0. A network
    without a hidden layer is right at 3 of the 4 rows of XOR at most (Minsky and Papert 1969); its
    likelihood is highest at 1/2 for every row.
    """

    gate: str = "xor"

    def __post_init__(self) -> None:
        check_choice("gate", self.gate, ("and", "or", "xor"))

    @property
    def observation_space(self) -> spaces.MultiBinary:
        """Return the space of two bits."""
        return spaces.MultiBinary(2)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of a bit."""
        return spaces.Discrete(2)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return 1

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the bits of N new episodes, equally likely, int8 [N, 2]."""
        bits = draws.integers(2, 2 * n).reshape(n, 2)
        return {"bits": draws.xp.asarray(bits, dtype=draws.xp.int8)}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the bits, int8 [N, 2]."""
        return 1 * episodes["bits"]

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with what the gate says."""
        right = action == self.answer(xp, episodes)[0]
        return {}, xp.asarray(right, dtype=xp.float32), episodes["time"] == 1

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return what the gate says."""
        ones = xp.asarray(episodes["bits"], dtype=xp.int64).sum(1)
        said = ones % 2 == 1 if self.gate == "xor" else ones >= TRUE_FROM[self.gate]
        return xp.asarray(said, dtype=xp.int64), ones >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores; there is nothing to remember."""
        return {"optimum": 1.0, "memoryless": 1.0, "random": 0.5}
