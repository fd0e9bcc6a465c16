"""What word vectors say: who stands near whom, and what is to c as b is to a."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

MOST, NEAR = 10, 5  # words and questions shown, and neighbours of each


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [V, E] as directions."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def nearest(vectors: np.ndarray, aim: np.ndarray, without: Sequence[int], count: int) -> np.ndarray:
    """Return the `count` words whose vectors [V, E] are nearest to `aim` [E] by angle, but some."""
    likeness = of_length_one(vectors) @ aim
    likeness[list(without)] = -np.inf
    found: np.ndarray = np.argsort(-likeness, kind="stable")[:count]
    return found


def analogy(vectors: np.ndarray, a: int, b: int, c: int) -> int:
    """Return the word nearest to b - a + c, none of the three (Mikolov et al. 2013)."""
    unit = of_length_one(vectors)
    return int(nearest(vectors, unit[b] - unit[a] + unit[c], (a, b, c), 1)[0])


def show_words(
    words: Sequence[str],
    vectors: np.ndarray,
    order: Sequence[int],
    questions: Sequence[tuple[str, str, str, str]],
) -> Iterator[str]:
    """Yield lines that tell the neighbours of the first words of an order, and analogies.

    Words without a vector of their own (as padding) are left out of `words` and `vectors`.
    """
    unit, token = of_length_one(vectors), {word: i for i, word in enumerate(words)}
    yield "word: its neighbours, with the cosine of the angle"
    for i in order[:MOST]:
        found = nearest(vectors, unit[i], (i,), NEAR)
        yield f"  {words[i]}: " + ", ".join(f"{words[j]} {unit[i] @ unit[j]:.2f}" for j in found)
    yield ""
    if not questions:
        return
    asked = [q for q in questions if all(word in token for word in q)]
    said = [words[analogy(vectors, *(token[word] for word in q[:3]))] for q in asked]
    right = sum(word == q[3] for word, q in zip(said, asked, strict=True))
    left = len(questions) - len(asked)
    rest = f"; {left:,} more have words that are not known" if left else ""
    yield f"analogies: {right:,} of {len(asked):,} right{rest}"
    for (a, b, c, d), word in list(zip(asked, said, strict=True))[:MOST]:
        yield f"  {a} : {b} = {c} : {word}" + ("" if word == d else f"  (not {d})")
    yield ""
