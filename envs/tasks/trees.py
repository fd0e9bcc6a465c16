"""Trees: say what an expression is worth that is shown as a tree of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_choice, check_flag, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.tokens import PAD
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.grammar import GRAMMARS, Grammar
from seqrl.envs.tasks.vocabulary import SPECIAL, Vocabulary

MOST_DEPTH = 8  # 511 places of tokens


@dataclass(frozen=True)
class Trees:
    """An expression of `shallowest` to `depth` levels of operators is shown, its value asked for.

    grammar: "arithmetic", digits from 0 to 4 with +, - and * modulo 5; or "sentences", words from
        awful, 0, to great, 4, with not, very, but and and, as bracketed sentences are.
    bag: show the tokens in the order of their numbers, all below the first: all that is known
        without the tree.

    Of each depth as many; one path goes that deep, elsewhere an operator stands with a chance of
    1/2. Observation: "tokens" [L], operators before what they take, from the left, padded with 0
    behind, and "parent" [L], the place of the token that each hangs from, 0 for the first. One
    step, reward 1 for the right value. There are so many expressions of 3 levels or more that
    hardly one is seen twice.
    """

    grammar: str = "arithmetic"
    shallowest: int = 1
    depth: int = 5
    bag: bool = False

    def __post_init__(self) -> None:
        check_choice("grammar", self.grammar, GRAMMARS)
        check_whole("shallowest", self.shallowest)
        check_whole("depth", self.depth, self.shallowest)
        check_flag("bag", self.bag)
        if self.depth > MOST_DEPTH:
            raise UsageError(f"depth {self.depth}: expected at most {MOST_DEPTH}")

    @property
    def rules(self) -> Grammar:
        """Return the grammar."""
        return GRAMMARS[self.grammar]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return how tokens are written: operators, then leaves."""
        return Vocabulary((*self.rules.operators, *self.rules.leaves))

    @property
    def places(self) -> int:
        """Return how many tokens there are at most."""
        return int(2 ** (self.depth + 1) - 1)

    @property
    def observation_space(self) -> spaces.Dict:
        """Return the space of tokens and of what they hang from."""
        tokens = spaces.MultiDiscrete([len(self.vocabulary)] * self.places)
        return spaces.Dict(tokens=tokens, parent=spaces.MultiDiscrete([self.places] * self.places))

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of values."""
        return spaces.Discrete(self.rules.values)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return 1

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return N expressions and their values."""
        word, value = self._expressions(draws, n)
        xp, count, listed = draws.xp, self.places, draws.constant(preorder(self.depth))
        row = xp.arange(n, device=draws.device)[:, None]
        if self.bag:
            order = (-word).argsort(1)
            hangs = 0 * order
        else:  # the nodes that are there, before the others; of each its place, and its parent's
            gone = count * (word[:, listed] == PAD)
            order = listed[(gone + xp.arange(count, device=draws.device)).argsort(1)]
            hangs = order.argsort(1)[row, (order - 1).clip(min=0) // 2]
        tokens = word[row, order]
        return {"tokens": tokens, "parent": xp.where(tokens != PAD, hangs, 0), "value": value}

    def sentences(self, draws: Draws, n: int) -> list[Array]:
        """Return the expressions of N episodes (see `Spoken`)."""
        return [self.begin(draws, n)["tokens"]]

    def _expressions(self, draws: Draws, n: int) -> tuple[Array, Array]:
        """Return words [N, nodes], PAD where there is none, and the values [N].

        The nodes are those of a full tree by levels: below node k are 2k + 1 and 2k + 2.
        """
        xp, rules = draws.xp, self.rules
        takes, worth, makes = map(draws.constant, (rules.takes, rules.worth, rules.makes))
        operators = len(rules.operators)
        deep = self.shallowest + draws.integers(self.depth - self.shallowest + 1, n)
        on_path = xp.zeros((n, 1), dtype=xp.int64, device=draws.device) == 0
        there, levels = on_path, []
        for level in range(self.depth + 1):
            shape = n, 2**level
            operator, leaf, coin, turn = (
                draws.integers(high, n * 2**level).reshape(shape)
                for high in (operators, len(rules.leaves), 2, 2)
            )
            inner = there & (on_path | (coin == 1)) & (deep > level)[:, None]
            word = xp.where(inner, operator, operators + leaf) + len(SPECIAL)
            levels.append((inner, operator, worth[leaf], xp.where(there, word, PAD)))
            two = takes[operator] == 2
            right = two & (turn == 1)
            there, on_path = (
                xp.stack(both, -1).reshape(n, 2 * shape[1])
                for both in ((inner, inner & two), (on_path & ~right, on_path & right))
            )
        value = levels[-1][2]
        for inner, operator, own, _ in reversed(levels[:-1]):
            below = value.reshape(n, -1, 2)
            value = xp.where(inner, makes[operator, below[..., 0], below[..., 1]], own)
        return xp.concatenate([word for *_, word in levels], 1), value[:, 0]

    def observe(self, xp: Any, episodes: Episodes) -> dict[str, Array]:
        """Return tokens and what each hangs from, int64 [N, L]."""
        return {name: 1 * episodes[name] for name in ("tokens", "parent")}

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with the value."""
        right = xp.asarray(action == episodes["value"], dtype=xp.float32)
        return {}, right, episodes["time"] == 1

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the value."""
        return 1 * episodes["value"], episodes["time"] >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores; there is nothing to remember."""
        return {"optimum": 1.0, "memoryless": 1.0, "random": 1 / self.rules.values}


@lru_cache(MOST_DEPTH)
def preorder(depth: int) -> np.ndarray:
    """Return the nodes of a full tree, numbered by levels, each before those below it."""
    if depth == 0:
        return np.array([0])
    below = preorder(depth - 1)
    level = np.floor(np.log2(below + 1)).astype(np.int64)
    left = below + 2**level  # the same tree, below the node 1; beside it the one below the node 2
    return np.concatenate([[0], left, left + 2**level])
