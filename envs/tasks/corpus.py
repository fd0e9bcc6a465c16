"""Corpus: say what a user's file has for a source: pairs of texts, or dialogues."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from seqrl.core.checks import check_choice, check_whole, is_real
from seqrl.core.errors import UsageError
from seqrl.core.tokens import END, PAD
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.files import mark, read_text
from seqrl.envs.tasks.guesses import random_score, reactive
from seqrl.envs.tasks.replies import Replies
from seqrl.envs.tasks.rewards import BEST, REWARDS, check_reward
from seqrl.envs.tasks.turns import FORMS, Row, Turn, read_turns
from seqrl.envs.tasks.vocabulary import BYTES, SPECIAL, UNITS, UNKNOWN, Vocabulary, split

SHIPPED = {"pairs": "pairs.tsv", "dialogues": "dialogues.txt"}  # beside this file
SIZES = ("longest_source", "longest_target")
PARTS = ("train", "test", "all")


@dataclass(frozen=True)
class Corpus(Replies):
    """A source of a user's file is shown, and its target has to be said.

    path: a text in UTF-8; by default a small one that is shipped, English sentences in German, or
        dialogues in which names and colours are told and asked for.
    form: "pairs", lines SOURCE<TAB>TARGET; "dialogues", a line a turn, the user and the reply in
        turn, with an empty line between two. A dialogue is an episode; its source is the own last
        reply and what the user says, an END behind each. The user says what the file has, whatever
        was replied.
    unit: what a token is: "word" (what stands between spaces), "char", or "byte" (of UTF-8).
    part: rows to "train" on, the share `held_out` to "test", or "all". A row draws its part by
        `data_seed` and what it says, wherever it stands: in another order of the file the parts are
        the same, in a longer file nearly so, and what is there twice is in one part.
    reward: "exact", "accuracy", "bleu", "edit", or module:function of a reply and the right one,
        lists of words; in dialogues the mean over turns.
    least: words that come fewer times in the rows to train on are one word, "<unknown>".
    vocabulary: the words, or a file of them, a line each; by default those of all rows, with
        `least` above 1 those of the rows to train on.
    longest_source, longest_target: in tokens; by default as long as the longest of the file.

    See Replies for what is observed. A run keeps the last three in its settings, so that its tokens
    stay what they are whatever file is read; words that are not known then are named and refused.
    """

    path: str | None = None
    form: str = "pairs"
    unit: str = "word"
    part: str = "train"
    held_out: float = 0.1
    data_seed: int = 0
    reward: str = "exact"
    least: int = 1
    words: Any = field(default=None, metadata={"option": "vocabulary"})
    longest_source: int | None = None
    longest_target: int | None = None

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        check_choice("unit", self.unit, UNITS)
        check_choice("part", self.part, PARTS)
        check_whole("data_seed", self.data_seed, 0)
        check_whole("least", self.least)
        check_reward(self.reward)
        if not (is_real(self.held_out) and 0 < self.held_out < 1):
            raise UsageError(f"held_out {self.held_out!r}: expected a share between 0 and 1")
        if self.unit == "byte" and (self.words is not None or self.least > 1):
            raise UsageError("unit 'byte': there are 256, known ones; leave out vocabulary, least")
        if isinstance(self.words, list):
            object.__setattr__(self, "words", tuple(self.words))  # which can be hashed
        for name, most in zip(SIZES, self.longest, strict=True):
            check_whole(name, most)
        if not set(self.vocabulary.words) - {UNKNOWN}:
            raise UsageError(f"vocabulary: no words with least={self.least}; expected some")
        if (
            Path(self.file).expanduser().exists()
        ):  # without it there are the spaces, if all is given
            _ = self.data  # what does not fit is told here

    def __repr__(self) -> str:
        """Return the options, with a checksum of the file: a run goes on with the same one only."""
        told = {x.metadata.get("option", x.name): getattr(self, x.name) for x in fields(self)}
        if not isinstance(self.words, str | None):
            told["vocabulary"] = f"{len(self.words)} words, {crc32(repr(self.words).encode()):08x}"
        options = ", ".join(f"{name}={value!r}" for name, value in told.items())
        return f"Corpus({options}, checksum={mark(self.file)!r})"

    def kept(self) -> dict[str, Any]:
        """Return the options by which other files are read as this one is."""
        sizes = dict(zip(SIZES, self.longest, strict=True))
        return sizes if self.unit == "byte" else {"vocabulary": [*self.vocabulary.words], **sizes}

    # the file

    @property
    def file(self) -> str:
        """Return the path of the file."""
        return self.path or str(Path(__file__).with_name(SHIPPED[self.form]))

    @property
    def rows(self) -> list[Row]:
        """Return all rows, of every part."""
        return read_turns(self.file, self.form, mark(self.file))

    def rows_of(self, part: str) -> list[Row]:
        """Return the rows of a part."""
        order = sorted(set(map(texts, self.rows)), key=partial(lot, self.data_seed))
        test = min(max(1, round(self.held_out * len(order))), len(order) - 1)
        wanted = set({"all": order, "test": order[:test], "train": order[test:]}[part])
        return [row for row in self.rows if texts(row) in wanted]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return the words that are known."""
        if self.unit == "byte":
            return BYTES
        if isinstance(self.words, str):
            lines = read_text("vocabulary", self.words).split("\n")
            return Vocabulary(tuple(line.rstrip("\r") for line in lines if line), self.unit)
        if self.words is not None:
            return Vocabulary(self.words, self.unit)
        rows = self.rows if self.least == 1 else self.rows_of("train")
        said = (split(x, self.unit) for row in rows for turn in row for x in turn.texts)
        counts = Counter(word for words in said for word in words)
        known = sorted(word for word in counts.keys() - SPECIAL if counts[word] >= self.least)
        return Vocabulary((*[UNKNOWN] * (self.least > 1), *known), self.unit)

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Return how many tokens a source and a target have at most."""
        given = self.longest_source, self.longest_target
        if given[0] is not None and given[1] is not None:
            return given[0], given[1]
        both = zip(*(turn.texts for row in self.rows for turn in row), strict=True)
        there = (max(len(split(text, self.unit)) for text in texts) for texts in both)
        found = [there if own is None else own for own, there in zip(given, there, strict=True)]
        return found[0], found[1]

    @cached_property
    def data(self) -> Data:
        """Return the rows of this part."""
        return encoded(self, mark(self.file))

    # the task

    @property
    def hears_itself(self) -> bool:
        """Return whether the own last reply stands in the source."""
        return self.form == "dialogues"

    @property
    def heard(self) -> int:
        """Return the length of the longest source, in dialogues with its END."""
        return self.longest[0] + self.hears_itself

    @property
    def room(self) -> int:
        """Return the length of the longest target with its END."""
        return self.longest[1] + 1

    @cached_property
    def turns(self) -> int:
        """Return the turns of the longest dialogue."""
        return max(map(len, self.rows))

    def drawn(self, draws: Draws, n: int) -> Episodes:
        """Return N rows, drawn with replacement."""
        row = draws.integers(len(self.data.length), n)
        return {name: draws.constant(x)[row] for name, x in self.data._asdict().items()}

    def scores(self) -> dict[str, float]:
        """Return reference scores of this part's rows; of a function of the user's none.

        The optimum knows the rows by heart, and says what is right most often where the same was
        said to it; with other rewards than "exact" it is known where that is one reply, and the
        random score is of 10,000 episodes of a fixed seed. The policy without memory, which sees
        source and last token, is known for pairs with one target a source.
        """
        if self.reward not in REWARDS:
            return {}
        shares, weight = by_heart(self.data), (1 / self.data.length)[:, None]
        one_each = bool(np.isclose(shares.sum(), len(shares)))
        if self.reward != "exact":
            best = {"optimum": BEST[self.reward]} if one_each else {}
            return {**best, "random": random_score(self)}
        length = (self.data.right != PAD).sum(2)
        chance = np.where(length > 0, float(len(self.vocabulary)) ** -length, 0.0)
        scores = {"optimum": float(shares.mean()), "random": float((chance * weight).sum(1).mean())}
        if one_each and self.turns == 1:
            scores["memoryless"] = float(reactive(self.data.right[:, 0]).mean())
        return scores


def texts(row: Row) -> tuple[tuple[str, str], ...]:
    """Return what is said in a row, wherever it stands."""
    return tuple(turn.texts for turn in row)


def lot(data_seed: int, said: tuple[tuple[str, str], ...]) -> bytes:
    """Return the lot that a row draws, by what is said in it and nothing else."""
    return blake2b(repr((data_seed, said)).encode(), digest_size=8).digest()


class Data(NamedTuple):
    """M rows as tokens, padded behind."""

    user: np.ndarray  # [M, turns, heard]
    right: np.ndarray  # [M, turns, room]
    length: np.ndarray  # [M] turns


@lru_cache(4)
def encoded(rules: Corpus, checksum: str) -> Data:
    """Return the rows of a corpus as tokens; many environments share them."""
    rows = rules.rows_of(rules.part)
    shape = len(rows), rules.turns
    user = np.zeros((*shape, rules.heard), np.int64)
    right = np.zeros((*shape, rules.room), np.int64)
    for i, row in enumerate(rows):
        for k, turn in enumerate(row):
            source, target = (tokens(rules, turn, which) for which in range(2))
            source += [END] * rules.hears_itself
            user[i, k, : len(source)] = source
            right[i, k, : len(target) + 1] = [*target, END]
    return Data(user, right, np.array([len(row) for row in rows]))


def tokens(rules: Corpus, turn: Turn, which: int) -> list[int]:
    """Return the tokens of a source (0) or target (1); UsageError where they do not fit."""
    where = f"path {rules.file!r}, line {turn.lines[which]}"
    found, most = rules.vocabulary.encode(turn.texts[which], where), rules.longest[which]
    if len(found) > most:
        what = f"{len(found):,} {rules.unit}s"
        raise UsageError(f"{where}: {what}; expected at most {most:,} ({SIZES[which]})")
    return found


def by_heart(data: Data) -> np.ndarray:
    """Return the expected exact reward [M] of each row, by the likeliest reply to what was said."""
    weights: dict[bytes, Counter[bytes]] = defaultdict(Counter)
    for user, right, length in zip(*data, strict=True):
        for k in range(length):
            weights[user[: k + 1].tobytes()][right[k].tobytes()] += 1 / length
    best = {said: max(found, key=lambda x: found[x]) for said, found in weights.items()}
    shares = [
        np.mean([best[user[: k + 1].tobytes()] == right[k].tobytes() for k in range(length)])
        for user, right, length in zip(*data, strict=True)
    ]
    return np.array(shares)
