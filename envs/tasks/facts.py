"""Facts: a story of who went where and took what, and a question about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_choice, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.vocabulary import SPECIAL, Vocabulary

PEOPLE = "Anna Ben Clara David Emma Frank Greta Henry".split()
THINGS = "apple ball cup drum egg flute glove hat".split()
PLACES = "attic bathroom cellar dining-room entrance flat garden hall".split()
WENT, TOOK, WHERE = "went-to", "took", "where-is"
QUESTIONS = ("person", "thing")


@dataclass(frozen=True)
class Facts:
    """A story is shown, all of it at once, and it has to be said where somebody or something is.

    asked: "thing", whose place takes two facts: who took it last, and where that one went last; or
        "person", which takes one.
    people, things, places: how many there are of each, at most 8.
    more: facts beside the first of each person and thing.

    Everybody goes somewhere and everything is taken, at least once, in any order; who takes a
    thing has it from then on, wherever he goes. Observation: "facts" [F, 3], in the order told,
    and "question" [2], tokens. One step, reward 1 for the right place. After the tasks of Weston
    et al. 2015, "Towards AI-Complete Question Answering".
    """

    asked: str = "thing"
    people: int = 4
    things: int = 4
    places: int = 6
    more: int = 4

    def __post_init__(self) -> None:
        check_choice("asked", self.asked, QUESTIONS)
        for name, known in (("people", PEOPLE), ("things", THINGS), ("places", PLACES)):
            least = 2 if name == "places" else 1
            if check_whole(name, getattr(self, name), least) > len(known):
                raise UsageError(f"{name} {getattr(self, name)}: expected at most {len(known)}")
        check_whole("more", self.more, 0)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return how tokens are written: people, things, places, and what is done."""
        known = PEOPLE[: self.people], THINGS[: self.things], PLACES[: self.places]
        return Vocabulary((*known[0], *known[1], *known[2], WENT, TOOK, WHERE))

    @property
    def count(self) -> int:
        """Return how many facts are told."""
        return self.people + self.things + self.more

    @property
    def observation_space(self) -> spaces.Dict:
        """Return the space of facts and question."""
        size = len(self.vocabulary)
        facts = spaces.MultiDiscrete(np.full((self.count, 3), size))
        return spaces.Dict(facts=facts, question=spaces.MultiDiscrete([size] * 2))

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of places."""
        return spaces.Discrete(self.places)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return 1

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return N stories, questions and answers."""
        xp, count = draws.xp, self.count
        row = xp.arange(n, device=draws.device)
        here = xp.arange(count, device=draws.device)[None] + 0 * row[:, None]
        person, thing, place, coin = (
            draws.integers(high, n * count).reshape(n, count)
            for high in (self.people, self.things, self.places, 2)
        )
        first, last = here < self.people, here >= self.people + self.things
        person = xp.where(first, here, person)  # everybody goes, and everything is taken
        thing = xp.where(first | last, thing, here - self.people)
        moves = first | (last & (coin == 1))
        order = draws.permutations(count, n)
        person, thing, place, moves = (
            x[row[:, None], order] for x in (person, thing, place, moves)
        )
        who, what = draws.integers(self.people, n), draws.integers(self.things, n)
        asked = self._first[0] + who
        if self.asked == "thing":
            taken = (~moves & (thing == what[:, None])) * (here + 1)
            asked, who = self._first[1] + what, person[row, taken.argmax(1)]
        went = (moves & (person == who[:, None])) * (here + 1)
        words = self._words(xp, person, thing, place, moves)
        question = xp.stack([0 * asked + self._first[3] + 2, asked], -1)
        return {"facts": words, "question": question, "place": place[row, went.argmax(1)]}

    def sentences(self, draws: Draws, n: int) -> list[Array]:
        """Return the facts and questions of N episodes (see `Spoken`)."""
        stories = self.begin(draws, n)
        return [
            stories[name].reshape(-1, stories[name].shape[-1]) for name in ("facts", "question")
        ]

    @property
    def _first(self) -> tuple[int, int, int, int]:
        """Return the first token of people, things, places and of what is done."""
        ends = np.cumsum([len(SPECIAL), self.people, self.things, self.places]).tolist()
        return ends[0], ends[1], ends[2], ends[3]

    def _words(self, xp: Any, person: Array, thing: Array, place: Array, moves: Array) -> Array:
        """Return facts as tokens [N, F, 3]."""
        people, things, places, done = self._first
        verb = xp.where(moves, done, done + 1)
        return xp.stack(
            [people + person, verb, xp.where(moves, places + place, things + thing)], -1
        )

    def observe(self, xp: Any, episodes: Episodes) -> dict[str, Array]:
        """Return facts [N, F, 3] and question [N, 2], int64."""
        return {name: 1 * episodes[name] for name in ("facts", "question")}

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with the place."""
        right = xp.asarray(action == episodes["place"], dtype=xp.float32)
        return {}, right, episodes["time"] == 1

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the place."""
        return 1 * episodes["place"], episodes["time"] >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores; there is nothing to remember."""
        return {"optimum": 1.0, "memoryless": 1.0, "random": 1 / self.places}
