"""Turns that are stepped: the agent acts, the environments step, the agent learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.protocol import Taught
from seqrl.core.arrays import like
from seqrl.core.arrays import seen as seen_of
from seqrl.core.doubts import look
from seqrl.core.errors import RunError
from seqrl.core.types import Array, Decision, Doubts, Seen, Transition
from seqrl.envs.adapter import Outcome


class SteppedTurns:
    """Plays the turns of an Interaction one after the other, with any agent and environments.

    `surplus` holds the rows of a turn for which the end of a run had no room: they are not valid
    in it, and are learned from first when the run goes on.
    """

    def __init__(self, loop: Any):
        self.loop = loop
        self.surplus: Transition | None = None

    def advance(self, until: int) -> None:
        """Play one turn, of which as many rows count as there are env steps left."""
        step, count, ended = self.play() if self.surplus is None else self._left_over()
        most = until - self.loop.steps
        if count > most:
            step, self.surplus = split(step, most)
            count = most
        self._take(step, count, ended)

    def play(self) -> tuple[Transition, int, bool]:
        """Act and step once; return the turn, its number of valid rows, and if an episode ended."""
        loop = self.loop
        obs, start, state = loop.obs, loop.start, loop.state
        decision = self.decide()
        try:
            outcome = loop.envs.step(decision.action)
            outcome, seen = looked_at(outcome, start, decision.doubts)
        except RunError as error:
            raise RunError(f"at env step {loop.steps + 1}: {error}") from error
        if outcome.ended and outcome.real < loop.envs.num_envs:
            # an episode may be lost with the process that played it
            loop.books.forget(seen.truncated & ~seen.valid)
        if loop.max_episode_steps is not None:
            outcome, seen = self._cut(outcome, seen, loop.max_episode_steps)
        loop.obs, loop.start, loop.state = outcome.obs, outcome.start, decision.state
        chosen = decision.state, decision.action, decision.log_prob
        next_obs, reward, terminated, truncated, valid = outcome[:5]
        came = reward, terminated, truncated, next_obs, valid
        told = decision.answer, decision.noise
        brought = None if isinstance(valid, np.ndarray) else seen
        step = Transition(obs, start, state, *chosen, *came, *told, brought)
        return step, outcome.real, outcome.ended

    def decide(self) -> Decision:
        """Return what is done now."""
        loop = self.loop
        return loop.agent.act(loop.obs, loop.start, loop.state, explore=loop.learning)

    def _cut(self, outcome: Outcome, seen: Seen, limit: int) -> tuple[Outcome, Seen]:
        over = (self.loop.books.lengths + seen.valid) >= limit
        over = over & seen.valid & ~(seen.terminated | seen.truncated)
        if not over.any():
            return outcome, seen
        cut = self.loop.envs.restart(like(over, outcome.valid), outcome)
        return cut, seen._replace(truncated=seen.truncated | over)

    def _left_over(self) -> tuple[Transition, int, bool]:
        assert self.surplus is not None
        step, self.surplus = self.surplus, None
        return step, int(seen_of(step).valid.sum()), True

    def _take(self, step: Transition, count: int, ended: bool) -> None:
        """Learn from a turn and keep the books."""
        loop = self.loop
        loop.books.add(seen_of(step), count)
        if loop.learning:
            self._learn(step)
        before = loop.steps
        loop.steps += count
        if ended:
            loop.record(seen_of(step), before, count)

    def _learn(self, step: Transition) -> None:
        loop = self.loop
        try:
            metrics = loop.agent.learn(step)
        except RunError as error:
            raise RunError(f"at env step {loop.steps + 1}: {error}") from error
        loop.told(metrics)


class RecordedTurns(SteppedTurns):
    """Goes through recorded episodes: what is done, and the episodes that end, are theirs."""

    def decide(self) -> Decision:
        """Return what was done; an agent that is not taught looks on, for its memory's sake."""
        loop, state = self.loop, None
        if not isinstance(loop.agent, Taught):
            state = loop.agent.act(loop.obs, loop.start, loop.state, explore=False).state
        action, known = loop.envs.answer()
        return Decision(action, state, answer=(action, known))

    def _take(self, step: Transition, count: int, ended: bool) -> None:
        """Learn from a turn, and count the episodes whose last step was in it."""
        loop, envs, before = self.loop, self.loop.envs, self.loop.steps
        self._learn(step)
        loop.steps += count
        if ended and len(over := np.flatnonzero(step.valid & (envs.ended >= 0))):
            episode, made = envs.ended[over], envs.data.recording
            at = before + step.valid.cumsum()[over]
            totals, cut = envs.data.returns[episode], ~made.terminated[episode]
            loop.record_all(at, over, totals, made.length[episode], cut)


def looked_at(outcome: Outcome, start: Array, doubts: Doubts) -> tuple[Outcome, Seen]:
    """Return an outcome with what the host has seen of it: of a device's, by the turn's one look.

    What was doubted of the decision or the outcome, and is wrong, is refused.
    """
    leaves = start, outcome.reward, outcome.terminated, outcome.truncated, outcome.valid
    if isinstance(start, np.ndarray):
        return outcome, Seen(*leaves)
    seen = Seen(*look((*doubts, *outcome.doubts), *leaves))
    return outcome._replace(real=int(seen.valid.sum()), ended=bool(seen.over.any())), seen


def split(step: Transition, most: int) -> tuple[Transition, Transition]:
    """Return the turn with its first `most` valid rows, and the same turn with the others."""
    first = step.valid & (step.valid.cumsum(0) <= most)
    rest = step.valid & ~first
    whole = step._replace(seen=None)
    return whole._replace(valid=first, whole=False), whole._replace(valid=rest)
