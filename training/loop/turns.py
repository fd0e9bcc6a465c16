"""Turns that are stepped: the agent acts, the environments step, the agent learns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from seqrl.agents.protocol import Taught
from seqrl.core.arrays import flags_of, is_on_host, like
from seqrl.core.arrays import seen as seen_of
from seqrl.core.deferred import checked_leaves
from seqrl.core.errors import RunError
from seqrl.core.types import Decision, DeferredChecks, Seen, Transition
from seqrl.envs.adapter import Outcome

TOGETHER = 64  # turns at most: all of them are held until they are looked at
Played = tuple[Transition, int, bool]  # a turn, its number of valid rows, if an episode ended


class SteppedTurns:
    """Plays the turns of an Interaction one after the other, with any agent and environments.

    `surplus` holds the rows of a turn for which the end of a run had no room: they are not valid
    in it, and are learned from first when the run goes on.
    """

    def __init__(self, loop: Any):
        self.loop = loop
        self.surplus: Transition | None = None

    def advance(self, until: int, due: float = 0) -> None:
        """Play one turn, of which as many rows count as there are env steps left.

        On a device as many turns at once, below env step `due`, as the agent can act in before it
        learns: nobody looks at them until the last is played.
        """
        if self.loop.foresees and self.surplus is None:
            turns = self._ahead(until, due)
            if turns > 1:
                for each in self._looked([self._act(after) for after in range(turns)]):
                    self._take(*each)
                return
        step, count, ended = self.play() if self.surplus is None else self._left_over()
        most = until - self.loop.steps
        if count > most:
            step, self.surplus = split(step, most)
            count = most
        self._take(step, count, ended)

    def play(self) -> Played:
        """Act and step once; return the turn, its number of valid rows, and if an episode ended."""
        acted = step, outcome, _ = self._act()
        if isinstance(step.valid, np.ndarray):
            return self._known(step, outcome)
        return next(self._looked([acted]))

    def _ahead(self, until: int, due: float) -> int:
        """Return how many whole turns can be played before anything has to be known of them."""
        loop, n = self.loop, self.loop.envs.num_envs
        asked = loop.max_episode_steps is not None or loop.books.wanted is not None
        if asked or not loop.learning or is_on_host(loop.start):
            return 1
        below = math.ceil((min(due, until) - loop.steps) / n)
        return min(loop.agent.turns_ahead, below, (until - loop.steps) // n, TOGETHER)

    def _act(self, after: int = 0) -> tuple[Transition, Outcome, DeferredChecks]:
        """Act and step once, so many turns after the one that the loop is at."""
        loop = self.loop
        obs, start, state = loop.obs, loop.start, loop.state
        decision = self.decide()
        try:
            outcome = loop.envs.step(decision.action)
        except RunError as error:
            raise self._at(loop.steps + after * loop.envs.num_envs, error) from error
        loop.obs, loop.start, loop.state = outcome.obs, outcome.start, decision.state
        chosen = decision.state, decision.action, decision.log_prob
        next_obs, reward, terminated, truncated, valid = outcome[:5]
        came = reward, terminated, truncated, next_obs, valid
        told = decision.answer, decision.noise
        step = Transition(obs, start, state, *chosen, *came, *told)
        return step, outcome, (*decision.checks, *outcome.checks)

    def _looked(self, acted: list[tuple[Transition, Outcome, DeferredChecks]]) -> Iterator[Played]:
        """Yield turns of tensors with what the host has to know of them: all by one copy.

        What is wrong is refused where its turn comes.
        """
        found = checked_leaves([(checks, list(flags_of(step))) for step, _, checks in acted])
        for step, outcome, _ in acted:
            try:
                seen = Seen(*next(found))
            except RunError as error:
                raise self._at(self.loop.steps, error) from error
            known: Any = {"real": int(seen.valid.sum()), "ended": bool(seen.over.any())}
            yield self._known(step._replace(seen=seen), outcome._replace(**known))

    def _known(self, step: Transition, outcome: Outcome) -> Played:
        """Return a turn that the host has seen, cut where the loop's limit is reached."""
        loop = self.loop
        if outcome.ended and outcome.real < loop.envs.num_envs:
            # an episode may be lost with the process that played it
            seen = seen_of(step)
            loop.books.forget(seen.truncated & ~seen.valid)
        if loop.max_episode_steps is None:
            return step, outcome.real, outcome.ended
        return self._cut(step, outcome, seen_of(step))

    def _at(self, steps: int, error: RunError) -> RunError:
        return RunError(f"at env step {steps + 1}: {error}")

    def decide(self) -> Decision:
        """Return what is done now."""
        loop = self.loop
        return loop.agent.act(loop.obs, loop.start, loop.state, explore=loop.learning)

    def _cut(self, step: Transition, outcome: Outcome, seen: Seen) -> Played:
        """Truncate the episodes that have reached the loop's limit with a turn."""
        loop = self.loop
        over = (loop.books.lengths + seen.valid) >= loop.max_episode_steps
        over = over & seen.valid & ~(seen.terminated | seen.truncated)
        if not over.any():
            return step, outcome.real, outcome.ended
        cut = loop.envs.restart(like(over, outcome.valid), outcome)
        loop.obs, loop.start = cut.obs, cut.start
        known = step.seen and seen._replace(truncated=seen.truncated | over)
        return step._replace(truncated=cut.truncated, seen=known), outcome.real, True

    def _left_over(self) -> Played:
        assert self.surplus is not None
        step, self.surplus = self.surplus, None
        return step, int(seen_of(step).valid.sum()), True

    def _take(self, step: Transition, count: int, ended: bool) -> None:
        """Learn from a turn and keep the books."""
        loop = self.loop
        loop.books.add(step if isinstance(step.reward, np.ndarray) else seen_of(step), count)
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


def split(step: Transition, most: int) -> tuple[Transition, Transition]:
    """Return the turn with its first `most` valid rows, and the same turn with the others."""
    first = step.valid & (step.valid.cumsum(0) <= most)
    rest = step.valid & ~first
    whole = step._replace(seen=None)
    return whole._replace(valid=first, whole=False), whole._replace(valid=rest)
