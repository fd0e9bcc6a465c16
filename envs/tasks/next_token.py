"""NextToken: predict the next token of a corpus, drawn from a Markov chain or read from a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_choice, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, pick
from seqrl.envs.tasks.files import mark, read_text
from seqrl.envs.tasks.vocabulary import SPECIAL

CONCENTRATION = 0.3  # of the Dirichlet distribution that each row of a chain is drawn from
MOST_CONTEXTS = 1024  # of a chain, whose stationary distribution is solved for


@dataclass(frozen=True)
class NextToken:
    """`length` tokens are shown one by one, and at each the next has to be named.

    The chain: `tokens` tokens, of which each depends on the `order` before it; its probabilities
    are drawn from a Dirichlet distribution with the seed `corpus`, and episodes begin anywhere in
    the stationary chain. Or a text in UTF-8, the file `path`, by `unit`, "char" or "word" (what
    stands between spaces); an episode begins at any place of it.
    Observation and action: a token. Reward 1/`length` where it is right. What is right is drawn
    beforehand: no policy knows it, and the answers alone get a return of 1.
    """

    length: int = 64
    tokens: int = 8
    order: int = 2
    corpus: int = 7
    path: str | None = None
    unit: str = "char"

    def __post_init__(self) -> None:
        check_whole("length", self.length)
        check_choice("unit", self.unit, ("char", "word"))
        check_whole("tokens", self.tokens, 2)
        check_whole("order", self.order)
        check_whole("corpus", self.corpus, 0)
        if self.path is not None:
            self._check_text()
        elif self.unit != "char":
            raise UsageError(f"unit {self.unit!r}: a chain has no text; give a file, path=FILE")
        elif self.tokens**self.order > MOST_CONTEXTS:
            many = f"{self.tokens} tokens in an order of {self.order}"
            raise UsageError(f"{many}: expected at most {MOST_CONTEXTS:,} contexts")

    def __repr__(self) -> str:
        """Return the options, of a text with a checksum: a run goes on with the same one only."""
        if self.path is None:
            chain = f"tokens={self.tokens}, order={self.order}, corpus={self.corpus}"
            return f"NextToken(length={self.length}, {chain})"
        text = f"path={self.path!r} ({mark(self.path)}), unit={self.unit!r}"
        return f"NextToken(length={self.length}, {text})"

    def _check_text(self) -> None:
        for name in ("tokens", "order", "corpus"):
            if getattr(self, name) != getattr(NextToken, name):
                raise UsageError(f"{name} is of a chain, a text has none; leave out it or path")
        found, kinds = len(self.text), len(self.vocabulary)
        if found <= self.length or kinds < 2:
            what = f"{found:,} {self.unit}s, {kinds:,} kinds"
            expected = f"more than {self.length:,} (length), and two kinds"
            raise UsageError(f"path {self.path!r}: {what}; expected {expected}")

    @cached_property
    def _text(self) -> tuple[list[str], np.ndarray]:
        path = self.path or ""
        return tokenised(path, self.unit, mark(path))

    @property
    def vocabulary(self) -> list[str]:
        """Return how each token is written, in the order of their numbers."""
        return self._text[0] if self.path else [str(i) for i in range(self.tokens)]

    @property
    def text(self) -> np.ndarray:
        """Return the tokens of the text, int64 [M]."""
        return self._text[1]

    @property
    def joint(self) -> np.ndarray:
        """Return the chain's probability of `order` tokens and the next, [tokens] * (order + 1)."""
        return chain(self.tokens, self.order, self.corpus)

    @property
    def observation_space(self) -> spaces.Discrete:
        """Return the space of tokens."""
        return spaces.Discrete(len(self.vocabulary))

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of tokens."""
        return self.observation_space

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return self.length

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the tokens of N new episodes, int64 [N, length + 1]."""
        if self.path is None:
            return {"tokens": self._drawn(draws, n)}
        start = draws.integers(len(self.text) - self.length, n)
        place = draws.xp.arange(self.length + 1, device=start.device)
        return {"tokens": draws.constant(self.text)[start[:, None] + place]}

    def sentences(self, draws: Draws, n: int) -> list[Array]:
        """Return the tokens of N episodes (see `Spoken`)."""
        return [self.begin(draws, n)["tokens"] + len(SPECIAL)]

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the tokens shown, int64 [N]."""
        return pick(xp, episodes["tokens"], episodes["time"])

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with the token that comes next."""
        right = action == pick(xp, episodes["tokens"], episodes["time"])
        return {}, xp.asarray(right, dtype=xp.float32) / self.length, self._over(episodes)

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the token that comes next."""
        return pick(xp, episodes["tokens"], episodes["time"] + 1), ~self._over(episodes)

    def scores(self) -> dict[str, float]:
        """Return exact reference scores, of a chain: the chance of the likeliest next token.

        The optimum knows all tokens so far, of which the last `order` matter. That of a text is not
        known; its memoryless policy names what follows most often.
        """
        random = 1 / len(self.vocabulary)
        if self.path is not None:
            return {"memoryless": float(self.pairs.max(1).sum()), "random": random}
        by_seen = [float(self._joint(seen).max(-1).sum()) for seen in self._seen]
        return {"optimum": sum(by_seen) / self.length, "memoryless": by_seen[0], "random": random}

    def entropies(self) -> dict[str, float]:
        """Return cross entropies a token, in nats, as a loss of imitation has them.

        `rate`: the entropy rate of the chain, which no loss stays below in the long run; `optimum`:
        the smallest in episodes of this length, whose first token is seen alone; `memoryless`: from
        the token that is seen; `random`: of equal chances. Of a text the latter two.
        """
        random = math.log(len(self.vocabulary))
        if self.path is not None:
            return {"memoryless": entropy(self.pairs), "random": random}
        by_seen = [entropy(self._joint(seen)) for seen in self._seen]
        rate, optimum = entropy(self.joint), sum(by_seen) / self.length
        return {"rate": rate, "optimum": optimum, "memoryless": by_seen[0], "random": random}

    @property
    def pairs(self) -> np.ndarray:
        """Return how often each token of a text is followed by each in the episodes, as shares."""
        last = len(self.text) - 1  # pairs, of which pair i is in the episodes that begin so near
        first = np.arange(last)
        often = np.minimum(first, last - self.length) - np.maximum(0, first - self.length + 1) + 1
        pairs = np.zeros([len(self.vocabulary)] * 2)
        np.add.at(pairs, (self.text[:-1], self.text[1:]), often)
        return pairs / pairs.sum()

    @property
    def _seen(self) -> list[int]:
        """Return how many tokens are seen, that matter, at each step."""
        return [min(time + 1, self.order) for time in range(self.length)]

    def _joint(self, seen: int) -> np.ndarray:
        """Return the probability of `seen` tokens and the next."""
        joint: np.ndarray = self.joint.sum(tuple(range(self.order - seen)))
        return joint

    def _over(self, episodes: Episodes) -> Array:
        return episodes["time"] >= self.length

    def _drawn(self, draws: Draws, n: int) -> Array:
        """Return N stretches of the chain."""
        xp, size, cumulated = draws.xp, self.tokens, self._cumulated
        context = draw(draws.constant(cumulated[0])[None], draws.uniform(n))
        found = [(context // size**i) % size for i in reversed(range(self.order))]
        rows = draws.constant(cumulated[1])
        while len(found) <= self.length:
            found.append(draw(rows[context], draws.uniform(n)))
            context = (context * size + found[-1]) % size**self.order
        return xp.stack(found[: self.length + 1], -1)

    @cached_property
    def _cumulated(self) -> tuple[np.ndarray, np.ndarray]:
        """Return cumulative probabilities of contexts, and of the next token in each, float32."""
        joint = self.joint.reshape(-1, self.tokens)
        stationary = joint.sum(1)
        rows = joint / np.maximum(stationary, 1e-300)[:, None]
        return stationary.cumsum().astype(np.float32), rows.cumsum(1).astype(np.float32)


@lru_cache(8)
def tokenised(path: str, unit: str, checksum: str) -> tuple[list[str], np.ndarray]:
    """Return the vocabulary of a text and its tokens, int64 [M]; read once."""
    text = read_text("path", path)
    words, number = np.unique(list(text) if unit == "char" else text.split(), return_inverse=True)
    return words.tolist(), number.astype(np.int64)


@lru_cache(8)
def chain(size: int, order: int, corpus: int) -> np.ndarray:
    """Return the probability of `order` tokens and the next in a stationary chain of a seed."""
    contexts, rng = size**order, np.random.default_rng(corpus)
    rows = rng.dirichlet(np.full(size, CONCENTRATION), contexts)  # [contexts, size]
    move = np.zeros((contexts, contexts))
    context, token = np.indices(rows.shape)
    move[context, (context * size + token) % contexts] = rows
    equations = np.vstack([move.T - np.eye(contexts), np.ones(contexts)])
    solved = np.linalg.lstsq(equations, np.eye(contexts + 1)[-1], rcond=None)[0]
    stationary = np.maximum(solved, 0) / np.maximum(solved, 0).sum()
    joint: np.ndarray = (stationary[:, None] * rows).reshape([size] * (order + 1))
    return joint


def draw(cumulated: Array, uniform: Array) -> Array:
    """Return the index drawn from each row of cumulative probabilities [N or 1, K], int64 [N]."""
    return (cumulated[:, :-1] <= uniform[:, None]).sum(1)


def entropy(joint: np.ndarray) -> float:
    """Return the entropy of the last axis, given the others, in nats."""
    total = joint.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(joint > 0, np.log(joint / total), 0.0)
    return float(-(joint * logs).sum())
