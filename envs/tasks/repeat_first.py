"""RepeatFirst: name the suit of the first card at every card that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from seqrl.core.checks import check_whole
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, pick


@dataclass(frozen=True)
class RepeatFirst:
    """`decks` decks of 52 cards are shuffled and dealt one card a step.

    Observation: the suit (0-3) of the card just dealt. Action: a suit. Reward +1/(cards - 1) where
    it is the suit of the episode's first card, else -1/(cards - 1). The episode terminates after
    cards - 1 steps, when the last card is dealt (POPGym truncates there; nothing can follow, so
    here it terminates). Source: POPGym (Morad et al. 2023), easy, medium, hard = 1, 8, 16 decks.
    """

    decks: int = 1

    def __post_init__(self) -> None:
        check_whole("decks", self.decks)

    @property
    def observation_space(self) -> spaces.Discrete:
        """Return the space of suits."""
        return spaces.Discrete(4)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of suits."""
        return spaces.Discrete(4)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return 52 * self.decks - 1

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return N shuffled decks, uint8 [N, cards]."""
        suits = draws.permutations(52 * self.decks, n) % 4
        return {"deck": draws.xp.asarray(suits, dtype=draws.xp.uint8)}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the suits of the cards just dealt, int64 [N]."""
        dealt = pick(xp, episodes["deck"], episodes["time"])
        return xp.asarray(dealt, dtype=xp.int64)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compute the rewards by comparison with the first card."""
        correct = xp.asarray(action == episodes["deck"][:, 0], dtype=xp.float32)
        return {}, (2 * correct - 1) / self.horizon, episodes["time"] == self.horizon

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the suit of the first card."""
        first = episodes["deck"][:, 0]
        return first, first >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores.

        Without memory the best is to name the suit just seen: certain at the first card, and at
        each later one right with probability (cards/4 - 1)/(cards - 1). Any other suit is as good
        as a match by 1/(cards - 1) more there, which does not outweigh the first card.
        """
        steps = self.horizon
        correct = 1 + (steps - 1) * (13 * self.decks - 1) / steps
        return {"optimum": 1.0, "memoryless": 2 * correct / steps - 1, "random": -0.5}
