"""BinaryAddition: say the sum of two numbers bit by bit, the lowest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws

MOST_BITS = 62  # of an int64


@dataclass(frozen=True)
class BinaryAddition:
    """Two numbers below 2^(bits-1) are shown bit by bit; what has to be kept is the carry.

    Observation: MultiBinary(2), a bit of each number, the lowest first. Action: the bit of their
    sum, 0 or 1. Reward 1 at the last of `bits` steps where every bit was right, else 0. With 8
    bits there are 16,384 sums.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, 2)
        if self.bits > MOST_BITS:
            raise UsageError(f"bits {self.bits}: expected at most {MOST_BITS}")

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
        return self.bits

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the numbers of N new episodes, and that nothing was wrong so far."""
        first, second = (draws.integers(2 ** (self.bits - 1), n) for _ in range(2))
        return {"first": first, "second": second, "exact": first >= 0}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return a bit of each number, int8 [N, 2]."""
        numbers, time = xp.stack([episodes["first"], episodes["second"]], -1), episodes["time"]
        return xp.asarray((numbers >> time[:, None]) & 1, dtype=xp.int8)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with the bit of the sum; one that is wrong spoils it."""
        exact = episodes["exact"] & (action == self._bit(episodes, episodes["time"] - 1))
        over = episodes["time"] == self.bits
        return {"exact": exact}, xp.asarray(exact & over, dtype=xp.float32), over

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the bit of the sum."""
        return self._bit(episodes, episodes["time"]), episodes["time"] >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores.

        Without the carry the best is to say 1 where the bits differ, which is right as long as
        nothing is carried: never 1 and 1, in all bits but the last, which is of zeros.
        """
        memoryless = 0.75 ** (self.bits - 1)
        return {"optimum": 1.0, "memoryless": memoryless, "random": 0.5**self.bits}

    def _bit(self, episodes: Episodes, time: Array) -> Array:
        return ((episodes["first"] + episodes["second"]) >> time) & 1
