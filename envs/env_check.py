"""Checks of an environment by random actions.

`play` records a rollout; every `check_...` returns a list of findings, empty where all is well.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from seqrl.core import tree
from seqrl.core.action_mask import sample
from seqrl.core.checks import NO_BOUND
from seqrl.core.errors import explain
from seqrl.envs.adapter import Environments
from seqrl.envs.batches import brief
from seqrl.envs.making import may_never_end
from seqrl.envs.observations import limits

STEPS = 2_000  # env steps of a rollout
REPLAY_STEPS = 500  # of them repeated to see whether a seed determines them
SECONDS = 1.0  # that a rollout may take
LONG = 1_000  # random steps of one episode
MIN_REWARDS = 100  # the fewest rewards to judge by
REWARD_RANGE = 1e-3, 1e3  # of the largest reward that suits a network


class Finding(NamedTuple):
    """A problem, and a flag or a line of code that fixes it."""

    what: str
    remedy: str


@dataclass
class Play:
    """The record of one environment under random actions."""

    observations: list[Any] = field(default_factory=list)  # copies, in order
    start: list[bool] = field(default_factory=list)  # which of them are the first of an episode
    rewards: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)  # of the episodes that ended
    lengths: list[int] = field(default_factory=list)
    truncated: int = 0  # episodes truncated
    seconds: float = 0.0  # spent in the environment
    reused: bool = False  # whether an observation changed after it was returned
    error: str = ""  # the exception that ended it early
    latest: Any = None  # the newest observation, not copied

    def timed(self, function: Callable[..., Any], **given: Any) -> Any:
        """Call a function of the environment and add its time to `seconds`."""
        begin = time.perf_counter()
        try:
            return function(**given)
        finally:
            self.seconds += time.perf_counter() - begin

    def record(self, obs: Any, start: bool) -> None:
        """Record an observation; notice where the one before has changed since."""
        if self.observations and not same_observation(self.latest, self.observations[-1]):
            self.reused = True
        self.latest = obs
        self.observations.append(copy.deepcopy(obs))
        self.start.append(start)

    def end_episode(self, truncated: bool) -> None:
        """Record the return and length of an episode."""
        length = len(self.rewards) - sum(self.lengths)
        self.returns.append(sum(self.rewards[-length:]))
        self.lengths.append(length)
        self.truncated += truncated


def play(env: gym.Env, seed: int, steps: int = STEPS, seconds: float = SECONDS) -> Play:
    """Take random actions, determined by the seed, for at most so many steps and seconds."""
    played, until = Play(), time.perf_counter() + seconds
    env.action_space.seed(seed)
    try:
        played.record(reset_observation(played.timed(env.reset, seed=seed)), True)
        while len(played.rewards) < steps and time.perf_counter() < until:
            action = sample(env.action_space, played.observations[-1])
            obs, reward, terminated, truncated, _ = played.timed(env.step, action=action)
            played.rewards.append(float(reward))
            played.record(obs, False)
            if terminated or truncated:
                played.end_episode(not terminated)
                played.record(reset_observation(played.timed(env.reset)), True)
    except Exception as error:  # the user's environment may raise anything
        played.error = explain(error)
    return played


def reset_observation(answer: Any) -> Any:
    """Return the observation of a reset's result; TypeError unless it is (obs, info)."""
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
        return answer[0]
    raise TypeError(f"reset returned {brief(answer)}")


def same_observation(one: Any, other: Any) -> bool:
    """Return whether two observations are equal bit for bit."""
    parts = [[np.asarray(leaf) for leaf in tree.leaves(each)] for each in (one, other)]
    pairs = zip(*parts, strict=False)
    equal = all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
    return equal and len(parts[0]) == len(parts[1])


def check_running(played: Play) -> list[Finding]:
    """Check that no step or reset raised an exception."""
    if not played.error:
        return []
    what = f"the environment fails after {len(played.rewards):,} random steps: {played.error}"
    usual = "reset returns (obs, info); step (obs, reward, terminated, truncated, info)"
    return [Finding(what, f"mend its reset or step; {usual}")]


def check_finite(played: Play) -> list[Finding]:
    """Check that no reward or observation is NaN or infinite."""
    found = []
    invalid = np.flatnonzero(~np.isfinite(played.rewards))
    if len(invalid):
        what = f"reward {played.rewards[invalid[0]]} at random step {invalid[0] + 1:,}"
        found.append(Finding(what, "look for 0/0, log(0) or an overflow in its step"))
    for i, obs in enumerate(played.observations):
        if not all(is_finite(leaf) for leaf in tree.leaves(obs)):
            what = f"observation {brief(obs)} (the {i + 1:,}th seen) is not finite"
            remedy = "look for what is divided by 0 where it is made, or np.nan_to_num(obs)"
            return [*found, Finding(what, remedy)]
    return found


def is_finite(leaf: Any) -> bool:
    """Return whether all numbers of a leaf are finite; True for leaves without numbers."""
    array = np.asarray(leaf)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def check_space(played: Play, space: gym.Space) -> list[Finding]:
    """Check that every observation is in its space."""
    for obs in played.observations:
        if not contains(space, obs):
            dtypes = {str(leaf.dtype) for leaf in tree.leaves(obs) if hasattr(leaf, "dtype")}
            kind = f" ({', '.join(sorted(dtypes))})" if dtypes else ""
            mend = "bring the observation into it with np.clip and .astype(observation_space.dtype)"
            remedy = f"widen observation_space to what is seen, or {mend}"
            shape = f" of shape {obs.shape}" if isinstance(obs, np.ndarray) else ""
            what = f"observation {brief(obs)}{shape} is not of {brief(space)}{kind}"
            return [Finding(what, remedy)]
    return []


def contains(space: gym.Space, obs: Any) -> bool:
    """Return whether an observation is of its space, where a rounding error is no fault."""
    if isinstance(space, gym.spaces.Dict) and isinstance(obs, dict):
        return obs.keys() == space.keys() and all(contains(space[k], obs[k]) for k in obs)
    if isinstance(space, gym.spaces.Tuple) and isinstance(obs, tuple):
        return len(obs) == len(space) and all(map(contains, space, obs))
    if (
        isinstance(space, gym.spaces.Box)
        and space.dtype.kind == "f"
        and isinstance(obs, np.ndarray)
    ):
        low, high = limits(space)
        if obs.shape == space.shape and ((low <= obs) & (obs <= high)).all():
            obs = np.clip(obs, space.low, space.high)
    return bool(space.contains(obs))


def check_buffer(played: Play) -> list[Finding]:
    """Check that a returned observation does not change later."""
    what = "the environment fills one observation buffer again and again"
    return [Finding(what, "return obs.copy() from its reset and step")] if played.reused else []


def check_seeds(fresh: gym.Env, env: gym.Env, played: Play, seed: int) -> list[Finding]:
    """Check that a seed determines the rollout, in a fresh and in the used environment."""
    steps = min(REPLAY_STEPS, len(played.rewards))
    before = global_generators()
    new, again = play(fresh, seed, steps), play(env, seed, steps)
    name = next((n for n, state in global_generators().items() if state != before[n]), None)
    if name:
        what = f"the environment draws from {name}, which everything else draws from as well"
        return [Finding(what, "draw from self.np_random, which super().reset(seed=seed) seeds")]
    at = first_difference(played, new)
    if at is not None:
        what = f"the same seed in two environments gives another rollout from step {at:,} on"
        remedy = "call super().reset(seed=seed), draw from self.np_random only, read no clock"
        return [Finding(what, remedy)]
    at = first_difference(played, again)
    what = f"reset(seed={seed}) once more gives another rollout from step {at} on"
    remedy = "set every field anew in reset and draw from self.np_random: something is kept"
    return [] if at is None else [Finding(what, remedy)]


def global_generators() -> dict[str, Any]:
    """Return the states of the global random generators."""
    state: Any = np.random.get_state(legacy=False)
    numpy = bytes(state["state"]["key"]), state["state"]["pos"]
    return {"np.random": numpy, "Python's random": random.getstate()}


def first_difference(one: Play, other: Play) -> int | None:
    """Return the first env step at which two rollouts differ; None where they do not."""
    step = 0
    for i, (a, b) in enumerate(zip(one.observations, other.observations, strict=False)):
        if one.start[i] != other.start[i] or not same_observation(a, b):
            return step
        step += not one.start[i]
        if not one.start[i] and one.rewards[step - 1] != other.rewards[step - 1]:
            return step
    return None


def check_limit(envs: Environments, played: Play) -> list[Finding]:
    """Check that no episode has grown long where nothing is known to end it."""
    lengths = [*played.lengths, len(played.rewards) - sum(played.lengths)]
    if max(lengths) < LONG or not may_never_end(envs):
        return []
    what = f"no step limit, and an episode of {max(lengths):,} random steps: one may never end"
    return [Finding(what, "--max-episode-steps 1000")]


def check_rewards(played: Play) -> list[Finding]:
    """Check that rewards or returns differ, so that there is something to learn."""
    rewards, returns = played.rewards, played.returns
    if len(rewards) < MIN_REWARDS or len({*rewards}) > 1 or len({*returns}) > 1:
        return []
    ended = f" and every episode's return {returns[0]:g}" if returns else ""
    what = f"every reward was {rewards[0]:g}{ended} in {len(rewards):,} random steps"
    mend = "reward what leads there (gymnasium.wrappers.TransformReward) or explore longer"
    remedy = f"see that step returns the reward; where good ones are rare, {mend}"
    return [Finding(what, remedy)]


def check_scale(played: Play) -> list[Finding]:
    """Check that rewards are of a size that suits a network."""
    largest = max(map(abs, played.rewards), default=0.0)
    if largest == 0 or REWARD_RANGE[0] <= largest <= REWARD_RANGE[1]:
        return []
    what = f"rewards reach {largest:.3g}, while a network learns best from numbers around 1"
    remedy = f"gymnasium.wrappers.TransformReward(env, lambda reward: reward / {largest:.0e})"
    return [Finding(what, remedy)]


def check_actions(space: gym.Space) -> list[Finding]:
    """Check that every dimension of an action is bounded."""
    parts = space.spaces if isinstance(space, gym.spaces.Tuple) else [space]
    boxes = [part for part in parts if isinstance(part, gym.spaces.Box)]
    if all((np.maximum(abs(box.low), abs(box.high)) < NO_BOUND).all() for box in boxes):
        return []
    what = f"action space {brief(space)} has no bounds: nothing says how large an action is"
    remedy = "Box(-1, 1, shape) in the environment, which scales the action to its own units"
    return [Finding(what, remedy)]
