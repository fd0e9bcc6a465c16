"""WordContext: which words stand near a word of a text, as Word2Vec learns from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_amount, check_choice, check_flag, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.contexts import MANY, Contexts, as_slots, by_context, by_word
from seqrl.envs.tasks.files import mark
from seqrl.envs.tasks.sentences import (
    Question,
    Sentences,
    generated_questions,
    generated_sentences,
    read_questions,
    read_sentences,
)
from seqrl.envs.tasks.spoken import drawn_sentences, spoken
from seqrl.envs.tasks.vocabulary import Vocabulary

UNITS = ("word", "char")


@dataclass(frozen=True)
class WordContext:
    """1 + `negative` words are shown, and which of them stand near a word of a text is to be said.

    Each of them is, with a chance of 1 / (1 + negative), one that stands there, else one drawn
    from noise: what is learned is the objective of negative sampling (Mikolov et al. 2013,
    "Distributed Representations of Words and Phrases and their Compositionality").

    path: a text in UTF-8, a sentence a line; by default 20,000 generated sentences of 108 words.
    task: the id of a task of tokens whose sentences are drawn instead, 100,000 tokens of what is
        shown there and of right replies, as "seqrl/Translate-v0"; the words are all of its own.
    task_args: a dict of that task's options.
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
    task: str | None = None
    task_args: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, UNITS)
        check_flag("sg", self.sg)
        for name in ("window", "negative", "least"):
            check_whole(name, getattr(self, name))
        check_amount("ns_exponent", self.ns_exponent, -np.inf)
        check_amount("sample", self.sample)
        self._check_text()
        _ = self.asked  # what is no question is told here
        if not (np.diff(self.text.line) == 0).any():
            what = f"path {self.path!r}" if self.path else f"task {self.task!r}"
            raise UsageError(f"{what}: no line of two {self.unit}s; expected sentences")

    def _check_text(self) -> None:
        """Refuse what does not go with the text."""
        if self.task is not None and self.path is not None:
            raise UsageError("path and task: the sentences are of one of the two; leave one out")
        args = {} if self.task_args is None else self.task_args
        if not (isinstance(args, dict) and all(isinstance(name, str) for name in args)):
            raise UsageError(f"task_args {args!r}: expected a dict of a task's options by name")
        if self.task is None and args:
            raise UsageError("task_args: no effect without task, the id that takes them")
        for name in ("unit", "least") if self.path is None else ():
            if getattr(self, name) != getattr(WordContext, name):
                whose = "the generated text" if self.task is None else self.task
                raise UsageError(f"{name}: {whose} has words; leave it out")

    def __repr__(self) -> str:
        """Return the options, of a text with a checksum: a run goes on with the same one only."""
        names = [x.name for x in fields(self) if x.name not in ("task", "task_args")]
        told = [f"{name}={getattr(self, name)!r}" for name in names]
        return f"WordContext({', '.join([*told, self._mark] if self._mark else told)})"

    @cached_property
    def _mark(self) -> str:
        """Return what tells the text from others of the same options; "" of the generated one."""
        if self.task is not None:
            return f"text={self._spoken!r}"
        return "" if self.path is None else f"checksum={mark(self.path)!r}"

    @cached_property
    def _spoken(self) -> Any:
        """Return the task whose sentences are drawn."""
        return spoken(self.task or "", self.task_args or {})

    @property
    def text(self) -> Sentences:
        """Return the sentences."""
        if self.task is not None:
            return drawn_sentences(self._spoken, self._mark)
        if self.path is None:
            return generated_sentences()
        return read_sentences(self.path, self.unit, self.least, self._mark)

    @property
    def vocabulary(self) -> Vocabulary:
        """Return how tokens are written."""
        return self.text.vocabulary

    @property
    def asked(self) -> list[Question]:
        """Return the questions for analogies."""
        if self.questions is not None:
            return read_questions(self.questions)
        return generated_questions() if self.path is None and self.task is None else []

    @property
    def contexts(self) -> Contexts:
        """Return what is drawn from."""
        return contexts(self, self._mark)

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


@lru_cache(8)
def contexts(rules: WordContext, text: str) -> Contexts:
    """Return the contexts of a text; many environments share them."""
    of_text = by_word if rules.sg else by_context
    found = of_text(rules.text, rules.share_taken, rules.window)
    return as_slots(found, len(rules.vocabulary), rules.noise)
