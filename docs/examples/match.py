"""Match: name the symbol that is shown, the shortest task there can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from seqrl.core.checks import check_whole
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws


@dataclass(frozen=True)
class Match:
    """One of `symbols` symbols is shown a step, each once an episode, in random order.

    Observation: Discrete(symbols). Reward 1 where the action is the symbol shown, else 0. The
    episode terminates when all have been shown.
    """

    symbols: int = 4

    def __post_init__(self) -> None:
        check_whole("symbols", self.symbols, 2)

    @property
    def observation_space(self) -> spaces.Discrete:
        """Return the space of symbols."""
        return spaces.Discrete(self.symbols)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of symbols."""
        return spaces.Discrete(self.symbols)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return self.symbols

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the order of the symbols in N new episodes, and what is shown at the end."""
        order = draws.permutations(self.symbols, n)
        return {"shown": draws.xp.concatenate([order, order[:, :1]], 1)}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the symbols, int64 [N]."""
        return shown(xp, episodes, episodes["time"])

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with what was shown before this step."""
        right = action == shown(xp, episodes, episodes["time"] - 1)
        return {}, xp.asarray(right, dtype=xp.float32), episodes["time"] == self.horizon

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the symbol that is shown, known at every step."""
        return shown(xp, episodes, episodes["time"]), episodes["time"] >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores; there is nothing to remember."""
        return {"optimum": self.symbols, "memoryless": self.symbols, "random": 1.0}


def shown(xp: Any, episodes: Episodes, time: Array) -> Array:
    """Return the symbol [N] of a time [N]."""
    return episodes["shown"][xp.arange(len(time), device=time.device), time]
