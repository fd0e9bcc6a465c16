"""Word vectors of a run: from and to files, as text, and for TensorBoard's projector."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.agents.word_vectors import EMBEDDING, place, vectors_of
from seqrl.core.errors import UsageError
from seqrl.envs.registry import TASKS, rules_named
from seqrl.envs.tasks.files import read_text
from seqrl.envs.tasks.vocabulary import SPECIAL, Vocabulary
from seqrl.envs.tasks.word_context import WordContext
from seqrl.training.pictures.word_vectors import show_words

LOG = logging.getLogger("seqrl")
PROJECTOR = """embeddings {
  tensor_name: "words"
  tensor_path: "vectors.tsv"
  metadata_path: "words.tsv"
}
"""


def words_of(config: Mapping[str, Any]) -> list[str]:
    """Return how the tokens of a run's task are written; UsageError where it names none."""
    rules: Any = rules_named(config["env"].rpartition(":")[2], config.get("env_args", {}))
    known = getattr(rules, "vocabulary", None)
    if known is None:
        raise UsageError(f"{config['env']} names no words; expected a task of ours with tokens")
    return [*SPECIAL, *known.words] if isinstance(known, Vocabulary) else list(known)


# files, in the text format of word2vec.c: how many words and numbers, then a word a line


def as_text(words: Sequence[str], vectors: np.ndarray) -> str:
    """Return words and their vectors [V, E] as a file has them."""
    lines = [f"{len(words)} {vectors.shape[1]}"]
    for word, vector in zip(words, vectors, strict=True):
        lines.append(" ".join([word, *(f"{x:.9g}" for x in vector.tolist())]))
    return "\n".join(lines) + "\n"


def read_vectors(path: str) -> dict[str, np.ndarray]:
    """Return the vectors of a file by word; UsageError, which names the line, for another file."""
    head, *lines = read_text(EMBEDDING, path).rstrip("\n").split("\n")
    expected = "expected the text format of word2vec: a line WORDS NUMBERS, then a word a line"
    numbers = head.split()
    if len(numbers) != 2 or not all(x.isdigit() for x in numbers) or int(numbers[1]) < 1:
        raise UsageError(f"{EMBEDDING} {path!r}, line 1: {head[:40]!r}; {expected}")
    count, size = map(int, numbers)
    if len(lines) != count:
        raise UsageError(f"{EMBEDDING} {path!r}: {len(lines):,} words, line 1 says {count:,}")
    found = {}
    for number, line in enumerate(lines, 2):
        where = f"{EMBEDDING} {path!r}, line {number}"
        word, *values = line.rstrip(" ").rsplit(" ", size)
        try:
            vector = np.array(values, np.float32)
        except ValueError:
            vector = np.zeros(0, np.float32)
        if vector.shape != (size,) or not np.isfinite(vector).all():
            raise UsageError(f"{where}: {line[:40]!r}; expected a word and {size} numbers")
        if word in found:
            raise UsageError(f"{where}: {word!r} is there twice; expected each word once")
        found[word] = vector
    return found


def give_vectors(agent: Agent, config: Mapping[str, Any]) -> None:
    """Let a new agent begin with the word vectors that its config names, if any.

    UsageError where a word of the task has none there; padding, BEGIN and END need none.
    """
    path = config.get("network_args", {}).get(EMBEDDING)
    if path is None or ":" in config["network"]:
        return
    words, found = words_of(config), read_vectors(path)
    missing = [word for word in words if word not in found and word not in SPECIAL]
    if missing:
        named = ", ".join(map(repr, missing[:3])) + ", ..." * (len(missing) > 3)
        what = (
            f"{len(missing):,} of {len(words):,} words of {config['env']} have no vector: {named}"
        )
        raise UsageError(f"{EMBEDDING} {path!r}: {what}; expected one of the same vocabulary")
    known = np.array([word in found for word in words])
    place(agent, np.stack([found[word] for word in words if word in found]), known)


# what a run learned


def rules_with_vectors(config: Mapping[str, Any]) -> WordContext | None:
    """Return the task of a run that learns word vectors; None for others."""
    env_id = config["env"].rpartition(":")[2]
    if TASKS.get(env_id) is not WordContext or not config.get("network"):
        return None
    rules = rules_named(env_id, config["env_args"])
    return rules if isinstance(rules, WordContext) else None


def learned(agent: Agent, rules: WordContext) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the words of a task and their vectors [V, E], without padding, BEGIN and END."""
    vectors = vectors_of(agent, len(rules.vocabulary))
    return rules.vocabulary.words, vectors[len(SPECIAL) :]


def show_vectors(agent: Agent, rules: WordContext) -> str:
    """Return the neighbours of the commonest words, and analogies, as text."""
    order = np.argsort(-rules.counts[len(SPECIAL) :], kind="stable")
    return "\n".join(show_words(*learned(agent, rules), order.tolist(), rules.asked))


def fill_projector(folder: Path, agent: Agent, config: Mapping[str, Any]) -> None:
    """Write the word vectors of a run for TensorBoard's PROJECTOR, where it learns some."""
    rules = rules_with_vectors(config)
    if rules is None:
        return
    try:
        words, vectors = learned(agent, rules)
        rows = ["\t".join(f"{x:.6g}" for x in vector) for vector in vectors.tolist()]
        for name, lines in (("words.tsv", words), ("vectors.tsv", rows)):
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "projector_config.pbtxt").write_text(PROJECTOR, encoding="utf-8")
    except (OSError, UsageError) as error:
        LOG.warning("seqrl: nothing for the projector: %s", error)
