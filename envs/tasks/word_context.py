"""WordContext: which words stand near a word of a text, as Word2Vec learns from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_amount, check_choice, check_flag, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.tokens import PAD
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.files import mark
from seqrl.envs.tasks.sentences import (
    Question,
    Sentences,
    generated_questions,
    generated_sentences,
    read_questions,
    read_sentences,
)
from seqrl.envs.tasks.vocabulary import Vocabulary

UNITS = ("word", "char")
SLOTS = 2**20  # at least, that are drawn from; each choice has its share of them
MANY = 2**62


@dataclass(frozen=True)
class WordContext:
    """1 + `negative` words are shown, and which of them stand near a word of a text is to be said.

    Each of them is, with a chance of 1 / (1 + negative), one that stands there, else one drawn
    from noise: what is learned is the objective of negative sampling (Mikolov et al. 2013,
    "Distributed Representations of Words and Phrases and their Compositionality").

    path: a text in UTF-8, a sentence a line; by default 20,000 generated sentences of 108 words.
    unit: what a token is: "word" (what stands between spaces) or "char".
    sg: True, skip-gram: a word is given, and words around it are asked for; False, CBOW: the words
        around are given, and the one in their midst is asked for.
    window: how far words may be apart; as far as is drawn from 1 to `window`, so near ones count
        more.
    negative: words from noise to one that is not, in the mean.
    ns_exponent: noise is drawn by a word's frequency to this power.
    sample: words of a larger share of the text are taken less often (0: none are), by the rule of
        word2vec.c.
    least: words that come fewer times are one word, "<unknown>".
    questions: a file of lines of four words, a b c d, which `evaluate --show` asks: a is to b as c
        is to what? By default those of the generated nouns.

    Observation: "given", tokens padded with 0 behind, and "words". One step; the reward is the
    share of right answers.
    """

    path: str | None = None
    unit: str = "word"
    sg: bool = True
    window: int = 5
    negative: int = 5
    ns_exponent: float = 0.75
    sample: float = 1e-3
    least: int = 1
    questions: str | None = None

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, UNITS)
        check_flag("sg", self.sg)
        for name in ("window", "negative", "least"):
            check_whole(name, getattr(self, name))
        check_amount("ns_exponent", self.ns_exponent, -np.inf)
        check_amount("sample", self.sample)
        if self.path is None:
            for name in ("unit", "least"):
                if getattr(self, name) != getattr(WordContext, name):
                    raise UsageError(f"{name}: the generated text has words; leave it out")
        _ = self.asked  # what is no question is told here
        if not (np.diff(self.text.line) == 0).any():
            raise UsageError(f"path {self.path!r}: no line of two {self.unit}s; expected sentences")

    def __repr__(self) -> str:
        """Return the options, of a text with a checksum: a run goes on with the same one only."""
        told = ", ".join(f"{x.name}={getattr(self, x.name)!r}" for x in fields(self))
        found = "" if self.path is None else f", checksum={mark(self.path)!r}"
        return f"WordContext({told}{found})"

    @property
    def text(self) -> Sentences:
        """Return the sentences."""
        if self.path is None:
            return generated_sentences()
        return read_sentences(self.path, self.unit, self.least, mark(self.path))

    @property
    def vocabulary(self) -> Vocabulary:
        """Return how tokens are written."""
        return self.text.vocabulary

    @property
    def asked(self) -> list[Question]:
        """Return the questions for analogies."""
        if self.questions is not None:
            return read_questions(self.questions)
        return generated_questions() if self.path is None else []

    @property
    def contexts(self) -> Contexts:
        """Return what is drawn from."""
        found = "" if self.path is None else mark(self.path)
        return contexts(self, found)

    @property
    def noise(self) -> np.ndarray:
        """Return how often words [V] are drawn from noise, up to a factor."""
        often: np.ndarray = self.counts.astype(float)
        return np.where(often > 0, np.maximum(often, 1) ** self.ns_exponent, 0)

    @property
    def counts(self) -> np.ndarray:
        """Return how often each token comes in the text, [V]."""
        return np.bincount(self.text.tokens, minlength=len(self.vocabulary))

    @property
    def share_taken(self) -> np.ndarray:
        """Return with what chance each token of the text is taken, [V]."""
        share = self.counts / max(1, len(self.text.tokens))
        if not self.sample:
            return np.ones(len(share))
        over = share / self.sample
        rule = (np.sqrt(over) + 1) / np.maximum(over, 1e-300)
        found: np.ndarray = np.minimum(1, rule)
        return found

    @property
    def observation_space(self) -> spaces.Dict:
        """Return the space of what is given and of the words shown."""
        size = len(self.vocabulary)
        given = spaces.MultiDiscrete([size] * (1 if self.sg else 2 * self.window))
        return spaces.Dict(given=given, words=spaces.MultiDiscrete([size] * (1 + self.negative)))

    @property
    def action_space(self) -> spaces.MultiBinary:
        """Return the space of answers: 1 for a word that stands there."""
        return spaces.MultiBinary(1 + self.negative)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return 1

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return N contexts with words, and which of these are from there."""
        xp, table, shown = draws.xp, self.contexts, 1 + self.negative
        slot, noise = draws.constant(table.slot), draws.constant(table.noise)
        row = draws.constant(table.row)[slot[draws.integers(len(table.slot), n)]]
        first, span = (draws.constant(x)[row][:, None] for x in (table.first, table.span))
        place = draws.integers(MANY, n * shown).reshape(n, shown) % span
        there = draws.constant(table.word)[slot[first + place]]
        other = noise[draws.integers(len(table.noise), n * shown)].reshape(n, shown)
        near = draws.integers(shown, n * shown).reshape(n, shown) == 0
        given = draws.constant(table.given)[row]
        return {"given": given, "words": xp.where(near, there, other), "near": 1 * near}

    def observe(self, xp: Any, episodes: Episodes) -> dict[str, Array]:
        """Return what is given [N, C] and the words shown [N, 1 + negative], int64."""
        return {name: 1 * episodes[name] for name in ("given", "words")}

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with what stands there."""
        right = xp.asarray(action == episodes["near"], dtype=xp.float32)
        return {}, right.mean(1), episodes["time"] == 1

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return which words stand there."""
        return 1 * episodes["near"], episodes["time"] >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores; there is nothing to remember.

        The optimum knows how often each word stands near what is given.
        """
        table, chance = self.contexts, 1 / (1 + self.negative)
        noise = np.bincount(table.noise) / len(table.noise)
        there = np.bincount(table.slot) / len(table.slot)
        given = (table.span / len(table.slot))[table.row] * noise[table.word]
        best = np.maximum(chance * there, (1 - chance) * given).sum()
        best += (1 - chance) * (1 - given.sum())  # words that never stand there
        return {"optimum": float(best), "memoryless": float(best), "random": 0.5}


class Contexts(NamedTuple):
    """R different contexts, and the words that stand in P of them; slots of each are drawn from.

    As the table of word2vec.c is, a draw is one look-up; a share is a number of slots.
    """

    given: np.ndarray  # int64 [R, C]
    first: np.ndarray  # int64 [R], the first slot of a context
    span: np.ndarray  # int64 [R], and how many it has
    row: np.ndarray  # int64 [P], sorted
    word: np.ndarray  # int64 [P]
    slot: np.ndarray  # int32, the one of the P that each slot belongs to
    noise: np.ndarray  # int64, the word from noise that each slot belongs to


@lru_cache(8)
def contexts(rules: WordContext, checksum: str) -> Contexts:
    """Return the contexts of a text; many environments share them."""
    given, row, word, weight = by_word(rules) if rules.sg else by_context(rules)
    size = len(rules.vocabulary)
    pair, place = np.unique(row * size + word, return_inverse=True)
    row, word = np.divmod(pair, size)
    slot = slots(np.bincount(place, weight, len(pair)))
    span = np.bincount(row[slot], minlength=len(given))
    return Contexts(
        *(given, np.cumsum(span) - span, span, row, word),
        *(slot.astype(np.int32), slots(rules.noise)),
    )


Weighted = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def by_word(rules: WordContext) -> Weighted:
    """Return words [R, 1], and pairs of one of them, a word near it, and how often that counts."""
    text, taken = rules.text, rules.share_taken
    pairs, weights = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for apart in range(1, rules.window + 1):
        near = text.line[apart:] == text.line[:-apart]
        one, other = text.tokens[:-apart][near], text.tokens[apart:][near]
        weight = taken[one] * taken[other] * (rules.window + 1 - apart) / rules.window
        pairs += [np.stack(both, 1) for both in ((one, other), (other, one))]
        weights += [weight, weight]
    both = np.concatenate(pairs)
    used, row = np.unique(both[:, 0], return_inverse=True)
    return used[:, None], row, both[:, 1], np.concatenate(weights)


def by_context(rules: WordContext) -> Weighted:
    """Return contexts [R, 2 * window], and pairs of one of them and the word in its midst."""
    text, window = rules.text, rules.window
    around = np.full((len(text.tokens), 2 * window), PAD, np.int64)
    for place, apart in enumerate([x for x in range(-window, window + 1) if x]):
        here = np.arange(len(text.tokens)) + apart
        inside = (here >= 0) & (here < len(text.tokens))
        inside[inside] = text.line[here[inside]] == text.line[inside]
        around[inside, place] = text.tokens[here[inside]]
    shown = []
    for reach in range(1, window + 1):
        far = np.abs(np.arange(2 * window) - window + 0.5) > reach
        shown.append(np.where(far, PAD, around))
    every = np.concatenate(shown)
    order = np.argsort(every == PAD, axis=1, kind="stable")
    every = np.take_along_axis(every, order, 1)  # padding stands behind
    word = np.tile(text.tokens, window)
    there = every[:, 0] != PAD
    given, row = different_rows(every[there], len(rules.vocabulary))
    return given, row, word[there], rules.share_taken[word[there]]


def different_rows(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different rows among [M, C] of numbers below `size`, and which each is, [M]."""
    number, most = np.zeros(len(rows), np.int64), 1
    for column in rows.T:  # many times as fast as unique along an axis
        if most * size > MANY:
            number, most = np.unique(number, return_inverse=True)[1], len(rows)
        number, most = number * size + column, most * size
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    return rows[first], number


def slots(weight: np.ndarray) -> np.ndarray:
    """Return the numbers 0 .. P-1, each as often as its weight [P] says, at least once if any."""
    share = weight / weight.sum() * max(SLOTS, 8 * len(weight))
    count = np.where(weight > 0, np.maximum(np.rint(share), 1), 0).astype(np.int64)
    return np.repeat(np.arange(len(weight)), count)
