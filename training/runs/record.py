"""Playing a run's agent to record its episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.experience.episodes import Episodes
from seqrl.agents.experience.recording import Recording
from seqrl.core import tree
from seqrl.core.arrays import host, joined
from seqrl.core.seeding import Streams
from seqrl.core.types import Array, Decision, Metrics, State, Transition
from seqrl.envs.batches import clipper
from seqrl.envs.recorded import fitted
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs import folder as runs
from seqrl.training.runs.parts import RunParts

KEPT = ("env", "env_args", "wrappers", "max_episode_steps", "agent", "network")  # of the config


class Player:
    """Stands in an agent's place: it plays as the agent, and keeps what happens.

    Each of N environments gives a fixed share of the episodes, so that short ones do not count
    more.
    """

    device, learner = "cpu", ""
    horizon: int | None = 1

    def __init__(self, agent: Any, action_space: Any, episodes: int, n: int, explore: bool):
        self.agent, self.gamma, self.explores = agent, 1.0, explore
        self.left = np.array([episodes // n + (i < episodes % n) for i in range(n)])
        self.clip, self.store = clipper(action_space), Episodes(1.0)

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return what the agent does."""
        return self.agent.act(obs, start, state, explore=explore and self.explores)

    def learn(self, step: Transition) -> Metrics:
        """Keep the turn where episodes are still missing."""
        values = tree.map(host, tuple(step[:-1])[:-1])
        turn = Transition(*values)._replace(action=self.clip(host(step.action)))
        turn = turn._replace(valid=turn.valid & (self.left > 0))
        self.store.add(turn)
        self.left -= (turn.terminated | turn.truncated) & turn.valid
        return {}

    def values(self, obs: Array, start: Array) -> None:
        """Return no values."""

    def reseed(self, seed: np.random.SeedSequence) -> None:
        """Let the agent draw from a new stream."""
        self.agent.reseed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: what is played is not saved on the way."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def record(
    parts: RunParts, episodes: int, *, seed: int, explore: bool, max_episode_steps: int = 10_000
) -> Recording:
    """Play a run's agent, greedily or as it explores, and return so many whole episodes."""
    agent, envs, streams = parts.agent, parts.envs, Streams.of(seed)
    kept = Player(agent, envs.single_action_space, episodes, envs.num_envs, explore)
    loop = Interaction(kept, envs, max_episode_steps=max_episode_steps, compile=False)
    kept.reseed(streams.agent)
    loop.reset(streams.envs)
    while kept.left.any():
        loop.run(envs.num_envs)
    told = {name: parts.config[name] for name in KEPT if parts.config.get(name)}
    told["env_args"] = {k: x for k, x in told.get("env_args", {}).items() if k != "device"}
    about = {**told, "seed": seed, "explore": explore, "versions": runs.versions()}
    spaces = envs.single_observation_space, envs.single_action_space
    parts_of = zip(Recording._fields, (*rows_of(kept.store), *spaces, about), strict=True)
    return fitted(Recording(**dict(parts_of)), "recording")


def rows_of(store: Episodes) -> tuple[Any, ...]:
    """Return obs, action, reward, length and terminated of all finished episodes."""
    found, length, terminated = [], [], []
    for ended in store.finished:
        for i, steps in enumerate(ended["length"].tolist()):
            found.append(closed(ended, i, steps))
            length.append(steps)
            terminated.append(bool(ended["terminated"][i]))
    rows = tree.map(lambda *parts: joined(parts, 0), *found)
    return *rows, np.array(length), np.array(terminated)


def closed(ended: dict[str, Any], i: int, steps: int) -> tuple[Any, ...]:
    """Return the rows of one episode, the one that closes it included."""
    last = tree.map(lambda leaf: leaf[i : i + 1], ended["last"])
    obs = tree.map(lambda leaf, end: joined([leaf[:steps, i], end], 0), ended["obs"], last)
    action, reward = (ended[name][:steps, i] for name in ("action", "reward"))
    # behind the end the last action stands once more: 0 is not of every space
    return obs, joined([action, action[-1:]], 0), joined([reward, np.zeros_like(reward[:1])], 0)
