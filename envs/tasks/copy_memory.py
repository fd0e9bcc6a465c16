"""CopyMemory: some symbols are shown, then a long blank, and then they have to be said again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from seqrl.core.checks import check_whole
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, pick


@dataclass(frozen=True)
class CopyMemory:
    """`items` symbols are shown, then `blanks` - 1 blanks, a signal, and `items` blanks.

    Observation: one of `symbols` symbols, the blank (`symbols`) or the signal (`symbols` + 1).
    Action: a symbol or the blank. Right is the blank, and behind the signal the symbols in their
    order, each with a reward of 1/`items`; there is no other reward. Saying the blank until the
    signal and guessing behind it has a cross entropy of items ln(symbols) / (blanks + 2 items) a
    step. Source: Arjovsky et al. 2016, "Unitary Evolution Recurrent Neural Networks", after
    Hochreiter and Schmidhuber 1997.
    """

    blanks: int = 50
    items: int = 10
    symbols: int = 8

    def __post_init__(self) -> None:
        check_whole("blanks", self.blanks)
        check_whole("items", self.items)
        check_whole("symbols", self.symbols, 2)

    @property
    def observation_space(self) -> spaces.Discrete:
        """Return the space of symbols, blank and signal."""
        return spaces.Discrete(self.symbols + 2)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of symbols and blank."""
        return spaces.Discrete(self.symbols + 1)

    @property
    def recall(self) -> int:
        """Return the step at which the first symbol has to be said."""
        return self.items + self.blanks

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return self.recall + self.items

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the symbols of N new episodes, int64 [N, items]."""
        return {"word": draws.integers(self.symbols, n * self.items).reshape(n, self.items)}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return what is shown, int64 [N]."""
        time = episodes["time"]
        blank = xp.full_like(time, self.symbols) + (time == self.recall - 1)
        return xp.where(time < self.items, pick(xp, episodes["word"], time), blank)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with the symbol, behind the signal."""
        said = (action == self._right(xp, episodes, episodes["time"] - 1)) & (action < self.symbols)
        over = episodes["time"] == self.horizon
        return {}, xp.asarray(said, dtype=xp.float32) / self.items, over

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the blank, behind the signal the symbols."""
        return self._right(xp, episodes, episodes["time"]), episodes["time"] >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores; without memory every symbol has to be guessed."""
        guess, chance = 1 / self.symbols, 1 / (self.symbols + 1)
        return {"optimum": 1.0, "memoryless": guess, "random": chance}

    def _right(self, xp: Any, episodes: Episodes, time: Array) -> Array:
        item = time - self.recall
        symbol = pick(xp, episodes["word"], item.clip(min=0))
        return xp.where(item >= 0, symbol, self.symbols)
