"""How good is an agent: episodes played greedily, in environments of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Streams, check_seed
from seqrl.envs.adapter import adapt
from seqrl.training.loop.books import Episode
from seqrl.training.loop.interaction import Interaction
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


class Share:
    """Gives each environment a fixed share of the episodes: short ones do not count more."""

    def __init__(self, episodes: int, n: int):
        self.left = [episodes // n + (i < episodes % n) for i in range(n)]
        self.episodes: list[Episode] = []

    def episode(self, loop: Interaction, episode: Episode) -> None:
        """Keep it unless its environment has played its share; the last one stops the loop."""
        if self.left[episode.env] > 0:
            self.left[episode.env] -= 1
            self.episodes.append(episode)
            loop.stopped = not any(self.left)


def evaluate(
    agent: Agent,
    envs: Any,
    episodes: int,
    *,
    seed: int | np.random.SeedSequence | None = None,
    max_episode_steps: int = 10_000,
) -> Evaluation:
    """Play `episodes` greedily; nothing is drawn from the agent and nothing in it changes.

    Each of N environments plays its share, and an episode is cut at `max_episode_steps`.
    The environments are reset, so give others than those being trained in.
    """
    for name, number in (("episodes", episodes), ("max_episode_steps", max_episode_steps)):
        if number < 1:
            raise UsageError(f"{name} {number}: expected at least 1")
    envs = adapt(envs)
    share = Share(episodes, envs.num_envs)
    cut = max_episode_steps
    loop = Interaction(agent, envs, learn=False, max_episode_steps=cut, recorder=share)
    if not isinstance(seed, np.random.SeedSequence | None):
        seed = np.random.SeedSequence(check_seed(seed))
    loop.reset(seed)
    while not loop.stopped:
        loop.run(cut)
    found = [(played.total, played.length, played.truncated) for played in share.episodes]
    return Evaluation(*map(np.array, zip(*found, strict=True)))


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
    ):
        self.envs, self.episodes, self.every = adapt(envs), episodes, every
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
        self.playing = True
        try:
            found = evaluate(loop.agent, self.envs, self.episodes, seed=seed)
        finally:
            self.playing = False
        self.last = loop.steps, found
        if self.logger is not None:
            values = {"mean_reward": found.mean, "mean_ep_length": float(found.lengths.mean())}
            if self.oracle is not None:
                values |= self.oracle.metrics(loop.agent, found.mean)
            shown = {f"eval/{tag}": x for tag, x in values.items()}
            known = {f"reference/{name}": x for name, x in self.reference.items()}
            self.logger.scalars(loop.steps, shown | known)
        if self.pictures is not None:
            self.pictures(loop.steps, loop.agent, found)
        return found

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
