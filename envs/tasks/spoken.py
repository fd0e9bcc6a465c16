"""Sentences of tasks of tokens: what is shown in their episodes, and what is right to say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from seqrl.core.errors import UsageError, closest
from seqrl.core.tokens import END
from seqrl.core.types import Array
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.corpus import Corpus
from seqrl.envs.tasks.dialogue import Dialogue
from seqrl.envs.tasks.facts import Facts
from seqrl.envs.tasks.next_token import NextToken
from seqrl.envs.tasks.options import with_options
from seqrl.envs.tasks.sentences import Sentences
from seqrl.envs.tasks.translate import Translate
from seqrl.envs.tasks.trees import Trees
from seqrl.envs.tasks.vocabulary import Vocabulary

EPISODES, TOKENS = 256, 100_000  # drawn at a time, until there are so many tokens
SPOKEN: dict[str, type[Any]] = {
    "seqrl/Corpus-v0": Corpus,
    "seqrl/Dialogue-v0": Dialogue,
    "seqrl/Facts-v0": Facts,
    "seqrl/NextToken-v0": NextToken,
    "seqrl/Translate-v0": Translate,
    "seqrl/Trees-v0": Trees,
}


class Spoken(Protocol):
    """A task in whose episodes there are sentences."""

    @property
    def vocabulary(self) -> Vocabulary | list[str]:
        """Return the words."""

    def sentences(self, draws: Draws, n: int) -> list[Array]:
        """Return the sentences of N new episodes, tokens [M, L], words from 3 on, padded behind."""


def spoken(env_id: str, options: Mapping[str, Any]) -> Spoken:
    """Return the task of tokens of an id and its options; UsageError for other ids."""
    if str(env_id) not in SPOKEN:
        hint = closest(str(env_id), SPOKEN)
        raise UsageError(f"task {env_id!r}: expected one of {', '.join(SPOKEN)}.{hint}")
    rules: Spoken = with_options(SPOKEN[env_id], env_id, options)
    return rules


@lru_cache(8)
def drawn_sentences(rules: Any, told: str) -> Sentences:
    """Return sentences of 100,000 tokens or a few more, the same ones each time.

    told: the options as the task writes them, with the checksum of its file.
    """
    draws, count = Draws(), 0
    tokens, lines = np.zeros(0, np.int64), np.zeros(0, np.int64)
    draws.seed(np.random.default_rng(0))
    while len(tokens) < TOKENS:
        for rows in rules.sentences(draws, EPISODES):
            there = rows > END
            tokens = np.concatenate([tokens, rows[there]])
            lines = np.concatenate([lines, count + there.nonzero()[0]])
            count += len(rows)
    known = rules.vocabulary
    vocabulary = known if isinstance(known, Vocabulary) else Vocabulary(tuple(known))
    return Sentences(vocabulary, tokens, lines)
