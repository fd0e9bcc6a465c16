"""A run's agent as a policy: one observation in, one action out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.agents.factory import Config
from seqrl.agents.protocol import Agent
from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.types import State
from seqrl.envs.adapter import Environments
from seqrl.envs.batches import unbatcher
from seqrl.envs.observations import Misfit, observations
from seqrl.envs.registry import replies_of
from seqrl.envs.tasks.replies import Replies
from seqrl.training.runs.global_state import restored
from seqrl.training.runs.load import load_parts
from seqrl.training.runs.parts import RunParts, build_single, cpu_envs


def load(
    folder: str | os.PathLike[str],
    *,
    best: bool = False,
    agent: str | None = None,
    env: str | None = None,
    network: str | None = None,
    wrappers: Sequence[str] = (),
    target_return: float | None = None,
    env_args: Mapping[str, Any] | None = None,
) -> Policy:
    """Return the policy that a run has learned.

    folder: of the run, as training printed it.
    best: the agent of the best evaluation (--eval-every keeps it), not the last one.
    agent, env, network, wrappers: module:Name once more of what the run has of your code, because
        a folder may be anybody's and its code is not imported unasked.
    target_return: that is wanted in `make_envs`, of a run with --condition-on return.
    env_args: arguments of the environment in the place of the run's.
    Raises UsageError for what is no run.
    """
    allowed: dict[str, Any] = {
        "agent": agent,
        "env": env,
        "network": network,
        "wrappers": tuple(wrappers),
        "env_args": env_args,
    }
    chosen: dict[str, Any] = {"best": best, "target_return": target_return}
    parts = load_parts(Path(folder), allowed, build=build_unnoticed, **chosen)
    parts.envs.close()
    return Policy(parts)


def build_unnoticed(config: Config) -> RunParts:
    """Build a run's agent and one environment; what is global stays as it was."""
    with restored(config):
        return build_single(config)


class Policy:
    """What a run has learned, for one episode at a time.

    `agent` is the run's, for batches; `config` holds the run's settings; `observation_space` and
    `action_space` are those of its environments inside the run's wrappers; `replies` is the task
    of Translate, Dialogue and Corpus, None of others.
    """

    def __init__(self, parts: RunParts):
        self.agent, self.config = parts.agent, parts.config
        self.replies = replies_of(parts.envs)
        self.observation_space = parts.envs.single_observation_space
        self.action_space = parts.envs.single_action_space
        self._observations = observations(self.observation_space, "policy")
        self._unbatch = unbatcher(self.action_space)
        self.reset()

    def reset(self) -> None:
        """Forget the episode: the next observation opens another one."""
        self._start, self._state = np.ones(1, bool), None

    _state: State

    def predict(self, obs: Any, *, explore: bool = False) -> Any:
        """Return the action for one observation, as `env.step` of the run's environment takes it.

        The greedy one, as `evaluate` plays; `explore` draws as training did at its end. What the
        agent remembers is carried from call to call until `reset`.
        Raises UsageError for an observation that is not of `observation_space`.
        """
        try:
            batch = self._observations.stack([obs])
        except Misfit as error:
            raise UsageError(self._refusal(obs, error)) from error
        decision = self.agent.act(batch, self._start, self._state, explore=explore)
        self._start, self._state = np.zeros(1, bool), decision.state
        return self._unbatch(decision.action)[0]

    def decode(self, **how: Any) -> Policy:
        """Decode tokens from here on, and return this policy.

        how: beam=5 and length_penalty, or temperature, top_k and top_p, as `evaluate` takes them;
            seed of what is drawn. The agent inside is `agent.agent` then.
        """
        self.agent = decoded(self.agent, self.replies, how)
        self.reset()
        return self

    def _refusal(self, obs: Any, error: Misfit) -> str:
        """Return what is wrong with an observation: there are several, or it is of another kind."""
        try:
            n = len(next(tree.leaves(obs)))
            self._observations.check(obs, n)
        except (ValueError, TypeError, LookupError, AttributeError, StopIteration):
            return f"{error}; expected one of policy.observation_space"
        several = f"a batch of {n} observations: predict takes one"
        return f"{several}; policy.agent.act(obs, start, state) takes N at once"

    def make_envs(self, n: int = 1, **env_args: Any) -> Environments:
        """Return N environments of the run in its wrappers, on the CPU and in this process.

        `env_args` add to the run's own, such as render_mode="human". Of one, the Gymnasium
        environment itself is `policy.make_envs().envs[0]`.
        """
        return cpu_envs(self.config, n, **env_args)


def decoded(agent: Agent, rules: Replies | None, how: Mapping[str, Any]) -> Agent:
    """Return an agent as it is to be decoded, see `decoder`; a plan is as long as rules allow."""
    from seqrl.agents.decoding.decoder import decoder  # here, as it imports torch

    found: Agent = decoder(agent, **how, **({} if rules is None else {"longest": rules.room}))
    return found
