"""RepeatPrevious: name the suit of the card that was dealt some cards ago."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import pick
from seqrl.envs.tasks.repeat_first import RepeatFirst


@dataclass(frozen=True)
class RepeatPrevious(RepeatFirst):
    """The cards of RepeatFirst: `decks` decks of 52 cards are shuffled and dealt one card a step.

    Observation: the suit (0-3) of the card just dealt. Action: a suit. At each card with `lag`
    others before it, the reward is 1/(judged cards) where the action is the suit of the card `lag`
    before, else as much less than 0; at the first ones it is 0. The episode terminates when the
    last card is dealt. Source: POPGym (Morad et al. 2023), whose easy form this is by default.
    """

    lag: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("lag", self.lag)
        if self.lag >= self.horizon:
            raise UsageError(f"lag {self.lag}: expected fewer than the {self.horizon} cards")

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compute the rewards by comparison with the card `lag` before the one that was seen."""
        time = episodes["time"]
        suit, asked = self._asked(xp, episodes, time - 1)
        correct = xp.asarray(action == suit, dtype=xp.float32)
        judged = xp.asarray(asked, dtype=xp.float32)
        reward = judged * (2 * correct - 1) / (self.horizon - self.lag)
        return {}, reward, time == self.horizon

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the suit of the card `lag` before; unknown at the first ones."""
        return self._asked(xp, episodes, episodes["time"])

    def _asked(self, xp: Any, episodes: Episodes, time: Array) -> tuple[Array, Array]:
        """Return the suits [N] to name at times [N], and where one is asked for, bool [N]."""
        dealt = time - self.lag  # negative, so a card from behind, where nothing is asked yet
        return pick(xp, episodes["deck"], dealt), dealt >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores.

        Without memory the best is to name a suit that is not the one just seen: the card before is
        of it with probability 13 decks / (52 decks - 1).
        """
        memoryless = 2 * 13 * self.decks / self.horizon - 1
        return {"optimum": 1.0, "memoryless": memoryless, "random": -0.5}
