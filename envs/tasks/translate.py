"""Translate: say a sequence of letters once more by a rule, letter by letter."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from seqrl.core.checks import check_choice, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.tokens import END, PAD
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.guesses import SAMPLED, random_score, reactive
from seqrl.envs.tasks.replies import Replies
from seqrl.envs.tasks.rewards import BEST, REWARDS, check_reward
from seqrl.envs.tasks.vocabulary import Vocabulary

RULES = ("reverse", "sort", "caesar", "grammar")
LETTERS = string.ascii_lowercase
SHIFT = 3  # of Caesar's
FIRST = 3  # the token of the first letter
NOUN, VERB, ADJECTIVE = range(3)  # a letter's kind is its number modulo 3
MOST_PATTERNS = 8  # letters of which all patterns are gone through, 4,140


@dataclass(frozen=True)
class Translate(Replies):
    """A sequence of `shortest` to `longest` letters is shown, and its translation has to be said.

    rule: "reverse", the last letter first; "sort", by the alphabet; "caesar", three letters
        further; "grammar": sentences of phrases with a verb between each, a phrase being a noun
        behind any number of adjectives; in the translation nouns stand before their adjectives
        and all verbs behind, in their order.
    letters: how many there are, at most 26. In sentences they are nouns, verbs and adjectives in
        turn, as many of each.
    reward: "exact", "accuracy", "bleu", "edit", or module:function of a reply and the right one,
        lists of letters.

    One turn (see Replies). Source of rule "reverse": the sequence of Sutskever et al. 2014,
    "Sequence to Sequence Learning with Neural Networks", section 3.3, as a task of its own.
    """

    rule: str = "reverse"
    shortest: int = 3
    longest: int = 8
    letters: int = 26
    reward: str = "exact"

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES)
        check_whole("shortest", self.shortest)
        check_whole("longest", self.longest, self.shortest)
        check_whole("letters", self.letters, 3 if self.rule == "grammar" else 2)
        if self.letters > len(LETTERS):
            raise UsageError(f"letters {self.letters}: expected at most {len(LETTERS)}")
        check_reward(self.reward)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return the letters."""
        return Vocabulary(tuple(LETTERS[: self.letters]), "char")

    @property
    def heard(self) -> int:
        """Return the length of the longest source."""
        return self.longest

    @property
    def room(self) -> int:
        """Return the length of the longest reply, END included."""
        return self.longest + 1

    def drawn(self, draws: Draws, n: int) -> Episodes:
        """Return letters and their translations."""
        xp, most = draws.xp, self.longest
        length = self.shortest + draws.integers(most - self.shortest + 1, n)[:, None]
        place = xp.arange(most, device=draws.device)[None]
        there = place < length
        if self.rule == "grammar":
            coin = draws.integers(2, n * most).reshape(n, most)
            kind = kinds(xp, coin, place, length)
            number = draws.integers(self.letters // 3, n * most).reshape(n, most)
            letter = 3 * number + kind
        else:
            letter = draws.integers(self.letters, n * most).reshape(n, most)
        said = self.translation(xp, letter, length)
        source = xp.where(there, letter + FIRST, PAD)
        end = xp.where(place == length, END, PAD)
        right = xp.full((n, 1, most + 1), END, dtype=xp.int64, device=draws.device)
        right[:, 0, :most] = xp.where(there, said + FIRST, end)
        right[:, 0, most] = xp.where(length[:, 0] == most, END, PAD)
        return {"user": source[:, None], "right": right, "length": 0 * length[:, 0] + 1}

    def translation(self, xp: Any, letter: Array, length: Array) -> Array:
        """Return the translations [N, L] of letters from 0, of which `length` [N, 1] are there."""
        most = letter.shape[1]
        place = xp.arange(most, device=letter.device)[None]
        if self.rule == "caesar":
            return (letter + SHIFT) % self.letters
        if self.rule == "reverse":
            key = -place + 0 * letter
        elif self.rule == "sort":
            key = letter
        else:
            key = word_order(letter, most)
        behind = most * (2 * most + self.letters)  # above all keys, for what is not there
        key = xp.where(place < length, key * most + place, behind + place)
        row = xp.arange(len(letter), device=letter.device)[:, None]
        translated: Array = letter[row, key.argsort(1)]
        return translated

    def scores(self) -> dict[str, float]:
        """Return reference scores; of a function of the user's none are known.

        A policy without memory sees source and last letter. It is certain where no letter comes
        twice, and that chance is exact up to 8 letters but for the grammar; beyond, and for the
        random score of other rewards than "exact", it is of 10,000 sources of a fixed seed.
        """
        if self.reward not in REWARDS:
            return {}
        scores = {"optimum": BEST[self.reward]}
        if self.reward != "exact":
            return {**scores, "random": random_score(self)}
        lengths = np.arange(self.shortest, self.longest + 1)
        random = float((float(len(self.vocabulary)) ** -(lengths + 1.0)).mean())
        return {**scores, "memoryless": memoryless(self), "random": random}


def kinds(xp: Any, coin: Array, place: Array, length: Array) -> Array:
    """Return the kinds of the words [N, L] of random sentences, from coins 0 and 1.

    A verb is where a coin falls on 1 behind a 0, not first or last: no two stand side by side. A
    noun is before each verb and at the end.
    """
    verb = (coin[:, 1:] > coin[:, :-1]) & (place[:, 1:] < length - 1)
    no = coin[:, :1] < 0
    before_verb = xp.concatenate([verb, no], 1)
    verb = xp.concatenate([no, verb], 1)
    noun = before_verb | (place == length - 1)
    return xp.where(verb, VERB, xp.where(noun, NOUN, ADJECTIVE))


def word_order(letter: Array, most: int) -> Array:
    """Return keys [N, L] by whose order a sentence is translated: by phrase, its noun first."""
    verb = letter % 3 == VERB
    phrase = verb.cumsum(1)  # how many verbs came before
    adjective = letter % 3 == ADJECTIVE
    key: Array = (~verb) * (2 * phrase + adjective) + verb * (2 * most)
    return key


@lru_cache(32)
def memoryless(rules: Translate) -> float:
    """Return the best chance of exact replies without memory, see `Translate.scores`."""
    if rules.rule != "grammar" and rules.longest <= MOST_PATTERNS:
        lengths = range(rules.shortest, rules.longest + 1)
        return float(np.mean([by_pattern(rules, length) for length in lengths]))
    draws = Draws()
    draws.seed(np.random.default_rng(0))
    return float(reactive(rules.drawn(draws, SAMPLED)["right"][:, 0]).mean())


def by_pattern(rules: Translate, length: int) -> float:
    """Return the chance for one length, over all patterns in which letters can come again."""
    found = np.array(list(patterns(length)))  # letters in the order of their first coming
    distinct = found.max(1) + 1
    weight = np.array([falling(rules.letters, count) for count in range(length + 1)])[distinct]
    said = np.sort(found, 1) if rules.rule == "sort" else found
    right = np.concatenate([said + FIRST, np.full((len(said), 1), END)], 1)
    return float((reactive(right) * weight).sum() / float(rules.letters) ** length)


def patterns(length: int, used: int = 0) -> Iterator[list[int]]:
    """Yield the sequences whose new letters come in the order 0, 1, 2, ... (set partitions)."""
    if not length:
        yield []
        return
    for letter in range(used + 1):
        for rest in patterns(length - 1, max(used, letter + 1)):
            yield [letter, *rest]


def falling(letters: int, count: int) -> float:
    """Return in how many ways `count` different letters can be named, in order."""
    return float(np.prod([float(letters - i) for i in range(count)]))
