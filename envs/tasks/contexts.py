"""Contexts of the words of a text, as tables that are drawn from: for skip-gram and CBOW."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from seqrl.core.tokens import PAD
from seqrl.envs.tasks.sentences import Sentences

SLOTS = 2**20  # at least, that are drawn from; each choice has its share of them
MANY = 2**62
# contexts [R, C], and pairs of one of them, a word there, and how often that counts, each [M]
Weighted = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


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


def as_slots(found: Weighted, size: int, noise: np.ndarray) -> Contexts:
    """Return weighted pairs, of words below `size`, as slots; and words from noise [size]."""
    given, row, word, weight = found
    pair, place = np.unique(row * size + word, return_inverse=True)
    row, word = np.divmod(pair, size)
    slot = slots(np.bincount(place, weight, len(pair)))
    span = np.bincount(row[slot], minlength=len(given))
    return Contexts(
        *(given, np.cumsum(span) - span, span, row, word), *(slot.astype(np.int32), slots(noise))
    )


def by_word(text: Sentences, taken: np.ndarray, window: int) -> Weighted:
    """Return words as contexts of those near them, each taken with its chance, `taken` [V]."""
    pairs, weights = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for apart in range(1, window + 1):
        near = text.line[apart:] == text.line[:-apart]
        one, other = text.tokens[:-apart][near], text.tokens[apart:][near]
        weight = taken[one] * taken[other] * (window + 1 - apart) / window
        pairs += [np.stack(both, 1) for both in ((one, other), (other, one))]
        weights += [weight, weight]
    both = np.concatenate(pairs)
    used, row = np.unique(both[:, 0], return_inverse=True)
    return used[:, None], row, both[:, 1], np.concatenate(weights)


def by_context(text: Sentences, taken: np.ndarray, window: int) -> Weighted:
    """Return the words around as contexts of the one in their midst, taken with its chance."""
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
    given, row = different_rows(every[there], len(taken))
    return given, row, word[there], taken[word[there]]


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
