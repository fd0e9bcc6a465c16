"""The environments of a data-parallel run: each process plays its share, and is told of all."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from seqrl.core import team, tree
from seqrl.core.types import Array
from seqrl.envs.adapter import Outcome, SeparateEnvs

LEAVES = Outcome._fields.index("real")  # of an outcome's fields so many have [N] in front


def side_by_side(*parts: Any) -> Any:
    """Return trees of arrays [n, ...] as one [N, ...], in their order."""
    return tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class Gathered:
    """The environments of all processes of a run as if all were here.

    own: those that this process plays, as many in each; they are given the seeds that they would
        have among all in one process, and `envs` and `seeds` are theirs. An error in one process is
        raised in all.
    """

    unkept: str | None = None  # why their state cannot be kept, where that was looked at
    asked = (False, False)  # whether any process had been, to pause and to stop, by the newest turn

    def __init__(self, own: SeparateEnvs):
        self.own, each = own, own.num_envs
        self.num_envs = own.of = each * team.size()
        own.first = each * team.rank()
        self.rows = slice(own.first, own.first + each)
        self.envs, self.seeds = own.envs, own.seeds
        self.asks: Callable[[], tuple[bool, bool]] = lambda: (False, False)  # the loop says it
        self.single_observation_space = own.single_observation_space
        self.single_action_space = own.single_action_space

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin new episodes everywhere; return the first observations [N, ...]."""
        obs = side_by_side(*team.all_of("a reset", lambda: self.own.reset(seed)))
        self.seeds = self.own.seeds
        return obs

    def step(self, action: Array) -> Outcome:
        """Take one action in every environment [N, ...]."""
        chosen = zlib.crc32(b"".join(map(np.ndarray.tobytes, tree.leaves(action))))
        mine = tree.map(lambda leaf: leaf[self.rows], action)
        return self._outcome(lambda: (self.own.step(mine), chosen, self.asks()))

    def take_asked(self) -> tuple[bool, bool]:
        """Return whether any process was asked to pause, and to stop, as the newest turn began.

        That goes with the turn, for an exchange of its own would cost as much again.
        """
        found, self.asked = self.asked, (False, False)
        return found

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Truncate the episodes where `mask` [N] holds and begin new ones there."""
        leaves: Any = tree.map(lambda leaf: leaf[self.rows], outcome[:LEAVES])
        mine = Outcome._make((*leaves, int(leaves[4].sum()), outcome.ended, ()))
        return self._outcome(lambda: (self.own.restart(mask[self.rows], mine), 0, self.asks()))

    def _outcome(self, action: Callable[[], tuple[Outcome, int, tuple[bool, bool]]]) -> Outcome:
        """Return the outcome [N, ...] of all processes, which have to have chosen alike."""
        outcomes, chosen, asked = zip(*team.all_of("a turn", action), strict=True)
        team.check_alike("the actions", chosen)
        pause, stop = zip(*asked, strict=True)
        self.asked = any(pause), any(stop)
        leaves: Any = side_by_side(*(outcome[:LEAVES] for outcome in outcomes))
        real, ended = zip(*((outcome.real, outcome.ended) for outcome in outcomes), strict=True)
        return Outcome._make((*leaves, sum(real), any(ended), ()))

    def answer(self) -> tuple[Array, Array]:
        """Return the right actions [N, ...] for the current `obs`, and where they are known [N]."""
        action, known = side_by_side(*team.all_of("answers", self.own.answer))
        return action, known

    def close(self) -> None:
        """Close those played here."""
        self.own.close()
