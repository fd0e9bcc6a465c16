"""Sentences: the lines of a text as tokens, of a file or generated with a known structure."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.envs.tasks.files import read_text
from seqrl.envs.tasks.vocabulary import SPECIAL, UNKNOWN, Vocabulary, split

KINDS, GENDERS, WORDS = 12, "mf", "abc"  # of generated sentences; words of a kind or gender
GENERATED = 20_000  # sentences

Question = tuple[str, str, str, str]  # the first is to the second as the third is to the fourth


class Sentences(NamedTuple):
    """A text as tokens, one behind the other."""

    vocabulary: Vocabulary
    tokens: np.ndarray  # int64 [M]
    line: np.ndarray  # int64 [M], the sentence that each is in


@lru_cache(8)
def read_sentences(path: str, unit: str, least: int, checksum: str) -> Sentences:
    """Return the lines of a text, whose words that come fewer than `least` times are one word."""
    lines = [split(line, unit) for line in read_text("path", path).splitlines()]
    return as_tokens(lines, unit, least)


@lru_cache(1)
def generated_sentences() -> Sentences:
    """Return sentences of five words: article, adjective, noun, verb, pronoun.

    Adjective, noun and verb are of one of 12 kinds, article, noun and pronoun of one of 2 genders:
    kind and gender fix the noun alone, of the others any of three words comes.
    """
    rng = np.random.default_rng(0)
    kind, gender = rng.integers(KINDS, size=GENERATED), rng.integers(2, size=GENERATED)
    chosen = rng.integers(len(WORDS), size=(4, GENERATED))
    lines = []
    for i, g, *words in zip(kind.tolist(), gender.tolist(), *chosen.tolist(), strict=True):
        article, adjective, verb, pronoun = (WORDS[word] for word in words)
        sex = GENDERS[g]
        of_kind = f"adjective{i}{adjective} noun{i}{sex} verb{i}{verb}"
        lines.append(f"article-{sex}{article} {of_kind} pronoun-{sex}{pronoun}".split())
    return as_tokens(lines, "word", 1)


def generated_questions() -> list[Question]:
    """Return what is known of the generated nouns: a is to b as c is to d."""
    names = [tuple(f"noun{kind}{gender}" for gender in GENDERS) for kind in range(KINDS)]
    return [(*one, *other) for one, other in permutations(names, 2)]  # type: ignore[misc]


def read_questions(path: str) -> list[Question]:
    """Return the lines of four words of a file; those that begin with ":" are headings."""
    found = []
    for number, line in enumerate(read_text("questions", path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith(":"):
            continue
        if len(words) != 4:
            where = f"questions {path!r}, line {number}"
            raise UsageError(f"{where}: {len(words)} words; expected four, a b c d: a : b = c : d")
        found.append((words[0], words[1], words[2], words[3]))
    return found


def as_tokens(lines: list[list[str]], unit: str, least: int) -> Sentences:
    """Return lines of words as tokens; without a word `<unknown>` where all come often enough."""
    counts = Counter(word for line in lines for word in line)
    if reserved := [word for word in SPECIAL if word in counts]:
        raise UsageError(f"path: {reserved[0]!r} is a token of its own; leave it out")
    known = sorted(word for word, count in counts.items() if count >= least)
    some = len(known) < len(counts)
    vocabulary = Vocabulary((*[UNKNOWN] * (some and UNKNOWN not in known), *known), unit)
    tokens = [
        vocabulary.encode(" ".join(line)) if unit == "word" else vocabulary.encode("".join(line))
        for line in lines
    ]
    line = np.repeat(np.arange(len(lines)), [len(row) for row in tokens])
    return Sentences(vocabulary, np.array([x for row in tokens for x in row], np.int64), line)
