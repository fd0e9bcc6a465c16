"""A token task for tests: words are to be said backwards, or the first word every time."""

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from seqrl.core.tokens import BEGIN, END
from seqrl.envs.batched import BatchedEnv


@dataclass(frozen=True)
class Words:
    """`turns` words of 1 to `longest` letters; `first`: the right reply is always the first one.

    A reward of 1 for every right token; a turn ends with END, or one token behind the longest.
    """

    letters: int = 4
    longest: int = 3
    turns: int = 1
    first: bool = False

    @property
    def observation_space(self):
        count = 3 + self.letters
        source = spaces.MultiDiscrete([count] * self.longest)
        return spaces.Dict(source=source, previous=spaces.Discrete(count))

    @property
    def action_space(self):
        return spaces.Discrete(3 + self.letters)

    @property
    def horizon(self):
        return self.turns * (self.longest + 1)

    def begin(self, draws, n):
        shape = n, self.turns, self.longest
        word = 3 + draws.integers(self.letters, int(np.prod(shape))).reshape(shape)
        length = 1 + draws.integers(self.longest, n * self.turns).reshape(n, self.turns, 1)
        word = np.where(np.arange(self.longest) < length, word, 0)
        counts = {name: np.zeros(n, np.int64) for name in ("turn", "place")}
        return {"word": word, "previous": np.full(n, BEGIN), **counts}

    def observe(self, xp, episodes):
        source = self._word(episodes, episodes["turn"].clip(max=self.turns - 1))
        return {"source": source, "previous": episodes["previous"].copy()}

    def answer(self, xp, episodes):
        turn = 0 * episodes["turn"] if self.first else episodes["turn"].clip(max=self.turns - 1)
        word = self._word(episodes, turn)
        left = (word > 0).sum(1) - 1 - episodes["place"]
        letter = np.take_along_axis(word, left.clip(min=0)[:, None], 1)[:, 0]
        return np.where(left >= 0, letter, END), left > -9

    def advance(self, xp, episodes, action):
        right = action == self.answer(xp, episodes)[0]
        over = (action == END) | (episodes["place"] == self.longest)
        turn = episodes["turn"] + over
        changes = {
            "turn": turn,
            "place": np.where(over, 0, episodes["place"] + 1),
            "previous": np.where(over, BEGIN, action),
        }
        return changes, right.astype(np.float32), turn == self.turns

    def scores(self):
        return {"optimum": 2.0 * self.turns}

    def _word(self, episodes, turn):
        return episodes["word"][np.arange(len(turn)), turn]


def words(envs, **options):
    """Return environments of the task."""
    return BatchedEnv(Words(**options), envs)
