"""How good is an agent: episodes played greedily, in environments of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.core import team
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Streams, check_seed
from seqrl.envs.adapter import adapt
from seqrl.training.loop.books import Episode
from seqrl.training.loop.detect import CompiledTurns, compiled_turns, greedy_player
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.interrupt import Stopped
from seqrl.training.loop.oracle import Oracle
from seqrl.training.statistics import Estimate, bootstrap, mean


class Evaluation(NamedTuple):
    """What the episodes brought, in the order they ended."""

    returns: np.ndarray  # [episodes] undiscounted
    lengths: np.ndarray  # [episodes] env steps
    truncated: np.ndarray  # [episodes] bool: cut by a limit

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> Estimate:
        """Mean return with its 95 % bootstrap interval."""
        return bootstrap(self.returns, mean)


CUT = 10_000  # env steps after which an episode is cut
FEWEST = 5  # episodes that are played whatever room there is, each cut after a fifth of it
SHORTEST_CUT = 1_000  # but not before as many env steps


class Share:
    """Gives each environment a fixed share of the episodes: short ones do not count more.

    After `room` env steps in all no episode begins, but for the first FEWEST; those under way are
    played to their ends, since to drop them would count long ones less.
    """

    def __init__(self, episodes: int, n: int, room: float = math.inf):
        self.left, self.owed = parted(episodes, n), parted(min(FEWEST, episodes), n)
        self.room = room
        self.episodes: list[Episode] = []

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """Keep it unless its environment has played its share; the last one stops the loop."""
        i = episode.env
        if self.left[i] > 0:
            self.left[i] -= 1
            self.owed[i] -= 1
            self.episodes.append(episode)
        if episode.step >= self.room:
            self.left[i] = max(0, min(self.left[i], self.owed[i]))
        loop.stopped = not any(self.left)

    @property
    def evaluation(self) -> Evaluation:
        """What was played."""
        found = [(played.total, played.length, played.truncated) for played in self.episodes]
        return Evaluation(*map(np.array, zip(*found, strict=True)))


def parted(episodes: int, n: int) -> list[int]:
    """Return each environment's part of the episodes [N]."""
    return [episodes // n + (i < episodes % n) for i in range(n)]


def evaluate(
    agent: Agent,
    envs: Any,
    episodes: int,
    *,
    seed: int | np.random.SeedSequence | None = None,
    max_episode_steps: int = CUT,
) -> Evaluation:
    """Play `episodes` greedily; nothing is drawn from the agent and nothing in it changes.

    Each of N environments plays its share, and an episode is cut at `max_episode_steps`.
    The environments are reset, so give others than those being trained in.
    """
    for name, number in (("episodes", episodes), ("max_episode_steps", max_episode_steps)):
        if number < 1:
            raise UsageError(f"{name} {number}: expected at least 1")
    player = Player(envs, max_episode_steps)
    share = Share(episodes, player.envs.num_envs)
    if not isinstance(seed, np.random.SeedSequence | None):
        seed = np.random.SeedSequence(check_seed(seed))
    player.play(agent, share, seed)
    return share.evaluation


class Player:
    """Lets agents play greedily in environments of its own; episodes are cut after `cut` steps."""

    def __init__(self, envs: Any, cut: int = CUT):
        self.envs, self.cut = adapt(envs), cut
        self.turns: CompiledTurns | None = None  # of any agent that is compiled here

    def play(
        self,
        agent: Agent,
        share: Share,
        seed: np.random.SeedSequence | None,
        *,
        most: float = math.inf,
        stop: Event | None = None,
        compile: bool = False,
    ) -> int:
        """Play a share, for `most` env steps at most; return the env steps played.

        What is left of the share says whether it came to its end. `compile`: compiled turns, to
        the same bits, where they are possible. Raises Stopped where `stop` is set on the way.
        """
        playing: Any = greedy_player(agent) if compile else agent
        cut = self.cut
        loop = Interaction(playing, self.envs, learn=False, max_episode_steps=cut, recorder=share)
        loop.stop = stop or loop.stop
        loop.reset(seed)
        if compile and self.turns is None:
            self.turns = compiled_turns(loop)[0]
        while not loop.stopped and loop.steps < most:
            if loop.stop.is_set():
                raise Stopped
            steps = int(min(cut, most - loop.steps))
            if compile and self.turns is not None:
                self._advance_compiled(loop, share, loop.steps + steps)
            else:
                loop.run(steps)
        return loop.steps

    def _advance_compiled(self, loop: Interaction, share: Share, until: int) -> None:
        """Play until as many episodes are over as the share has left, or until an env step."""
        assert self.turns is not None
        loop.books.wanted = loop.episodes + sum(share.left)
        next(self.turns.play([self.turns.begin(loop)], until))
        loop.stopped = not any(share.left)


class Evaluator:
    """A callback that evaluates every so many env steps, always on the same episodes.

    Where the environments publish their model, what was reached is logged beside the optimum;
    `reference` scores are logged beside it as they are. `logger`: what has TensorBoard's `scalars`.
    """

    def __init__(
        self,
        envs: Any,
        episodes: int,
        *,
        every: int,
        seed: np.random.SeedSequence | None = None,
        logger: Any = None,
        reference: Mapping[str, float] | None = None,
        pictures: Callable[[int, Agent, Evaluation], None] | None = None,
        room: float = math.inf,
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):
        self.room = room  # env steps an evaluation, see `Share`
        self.apart = apart  # keeps what is global, from which environments may draw
        longest = max(SHORTEST_CUT, room // FEWEST)
        self.player = Player(envs, int(min(CUT, longest)))
        self.envs, self.episodes, self.every = self.player.envs, episodes, every
        self.seed, self.logger = seed, logger
        self.reference = dict(reference or {})  # what known policies earn
        self.pictures = pictures  # draws what was found at an env step
        self.oracle = None if logger is None else Oracle.of(self.envs)
        self.last: tuple[int, Evaluation] | None = None  # env step and what it brought
        self.playing = False  # under way: nothing would be lost by ending it here

    def __call__(self, loop: Interaction) -> None:
        """Evaluate the loop's agent and log `eval/`."""
        self._evaluate(loop, self.seed)

    def again(self, loop: Interaction) -> Evaluation:
        """Evaluate on other episodes, which had no part in what was decided by the last ones."""
        return self._evaluate(loop, None if self.seed is None else Streams.of(self.seed).evaluation)

    def _evaluate(self, loop: Interaction, seed: np.random.SeedSequence | None) -> Evaluation:
        share = Share(self.episodes, self.envs.num_envs, self.room)
        self.play(loop, self.player, share, seed)
        found = share.evaluation
        self.last = loop.steps, found
        team.in_first("the log of an evaluation", lambda: self.tell(loop, found))
        return found

    def tell(self, loop: Interaction, found: Evaluation) -> None:
        """Log what an evaluation brought, and draw it."""
        self.log(loop, found)
        if self.pictures is not None:
            with self.apart():
                self.pictures(loop.steps, loop.agent, found)

    def play(
        self,
        loop: Interaction,
        player: Player,
        share: Share,
        seed: np.random.SeedSequence | None,
        most: float = math.inf,
    ) -> int:
        """Let a loop's agent play, as the player does, unless the loop is to stop.

        Of a run's processes the first one plays, and all are told what that brought.
        """

        def played() -> tuple[int, dict[str, Any]]:
            self.playing = True
            try:
                compiled, stop = loop.compiled, loop.stop
                with self.apart():
                    spent = player.play(
                        loop.agent, share, seed, most=most, stop=stop, compile=compiled
                    )
                return spent, vars(share)
            finally:
                self.playing = False

        spent, found = team.of_first("an evaluation", played)
        vars(share).update(found)
        return spent

    def log(self, loop: Interaction, found: Evaluation) -> None:
        """Write a point of `eval/`."""
        if self.logger is not None:
            values = {"mean_reward": found.mean, "mean_ep_length": float(found.lengths.mean())}
            if self.oracle is not None:
                values |= self.oracle.metrics(loop.agent, found.mean)
            shown = {f"eval/{tag}": x for tag, x in values.items()}
            known = {f"reference/{name}": x for name, x in self.reference.items()}
            self.logger.scalars(loop.steps, shown | known)

    def final(self, loop: Interaction) -> Evaluation:
        """The evaluation after the last env step, done now if it was not due there."""
        if self.last is None or self.last[0] != loop.steps:
            self(loop)
        assert self.last is not None
        return self.last[1]

    def state_dict(self) -> dict[str, Any]:
        """The last evaluation; its env step is -1 where there was none."""
        step, found = self.last or (-1, Evaluation(*(np.zeros(0) for _ in Evaluation._fields)))
        return {"step": step, **found._asdict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        found = Evaluation(*(state[name] for name in Evaluation._fields))
        self.last = (state["step"], found) if state["step"] >= 0 else None
