"""Is an environment sound? Random actions are played for a moment, and what is odd is named.

`play` looks, every `check_...` judges what was seen: a list of findings, empty where all is well.
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

from seqrl.core import explain, tree
from seqrl.envs import Environments, may_never_end
from seqrl.envs.batches import brief, not_of

STEPS = 2_000  # env steps of a look
REPEATED = 500  # of them played again to see whether a seed fixes them
SECONDS = 1.0  # a look takes at most
FEW = 100  # env steps from which rewards say something
SCALE = 1e-3, 1e3  # of the largest reward, for a network


class Finding(NamedTuple):
    """Something wrong, and a flag or a line of code that mends it."""

    what: str
    remedy: str


@dataclass
class Play:
    """What one environment showed, step after step."""

    views: list[Any] = field(default_factory=list)  # observations in order, copies
    start: list[bool] = field(default_factory=list)  # which of them open an episode
    rewards: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)  # of the episodes that ended
    lengths: list[int] = field(default_factory=list)
    cut: int = 0  # episodes truncated
    seconds: float = 0.0  # spent in the environment
    reused: bool = False  # whether an observation changed after it was handed out
    error: str = ""  # what ended it early
    held: Any = None  # the newest observation as it was handed out

    def call(self, function: Callable[..., Any], **given: Any) -> Any:
        """Ask the environment, on the clock."""
        begin = time.perf_counter()
        try:
            return function(**given)
        finally:
            self.seconds += time.perf_counter() - begin

    def look(self, obs: Any, start: bool) -> None:
        """Keep an observation; notice if the one before is not what it was."""
        self.reused = self.reused or (len(self.views) > 0 and not same(self.held, self.views[-1]))
        self.held = obs
        self.views.append(copy.deepcopy(obs))
        self.start.append(start)

    def end(self, truncated: bool) -> None:
        """An episode is over."""
        length = len(self.rewards) - sum(self.lengths)
        self.returns.append(sum(self.rewards[-length:]))
        self.lengths.append(length)
        self.cut += truncated


def play(env: gym.Env, seed: int, steps: int = STEPS, seconds: float = SECONDS) -> Play:
    """Random actions, the same for the same seed, for as many steps or seconds."""
    seen, until = Play(), time.perf_counter() + seconds
    env.action_space.seed(seed)
    try:
        seen.look(opened(seen.call(env.reset, seed=seed)), True)
        while len(seen.rewards) < steps and time.perf_counter() < until:
            action = env.action_space.sample()
            obs, reward, terminated, truncated, _ = seen.call(env.step, action=action)
            seen.rewards.append(float(reward))
            seen.look(obs, False)
            if terminated or truncated:
                seen.end(not terminated)
                seen.look(opened(seen.call(env.reset)), True)
    except Exception as error:  # whatever an environment of the user's may do
        seen.error = explain(error)
    return seen


def opened(answer: Any) -> Any:
    """The observation that a reset answered."""
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
        return answer[0]
    raise TypeError(f"reset returned {brief(answer)}")


def same(one: Any, other: Any) -> bool:
    """Whether two observations are equal to the bit."""
    parts = [[np.asarray(leaf) for leaf in tree.leaves(each)] for each in (one, other)]
    pairs = zip(*parts, strict=False)
    equal = all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
    return equal and len(parts[0]) == len(parts[1])


def check_running(seen: Play) -> list[Finding]:
    """It plays on."""
    if not seen.error:
        return []
    what = f"the environment fails after {len(seen.rewards):,} random steps: {seen.error}"
    usual = "reset returns (obs, info); step (obs, reward, terminated, truncated, info)"
    return [Finding(what, f"mend its reset or step; {usual}")]


def check_finite(seen: Play) -> list[Finding]:
    """No reward or observation is NaN or infinite."""
    found = []
    bad = np.flatnonzero(~np.isfinite(seen.rewards))
    if len(bad):
        what = f"reward {seen.rewards[bad[0]]} at random step {bad[0] + 1:,}"
        found.append(Finding(what, "look for 0/0, log(0) or an overflow in its step"))
    for i, view in enumerate(seen.views):
        if not all(finite(leaf) for leaf in tree.leaves(view)):
            what = f"observation {brief(view)} (the {i + 1:,}th seen) is not finite"
            remedy = "look for what is divided by 0 where it is made, or np.nan_to_num(obs)"
            return [*found, Finding(what, remedy)]
    return found


def finite(leaf: Any) -> bool:
    """Whether all numbers of a leaf are; what is no number is."""
    array = np.asarray(leaf)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def check_space(seen: Play, space: gym.Space) -> list[Finding]:
    """Every observation is of its space."""
    for view in seen.views:
        if not space.contains(view):
            dtypes = {str(leaf.dtype) for leaf in tree.leaves(view) if hasattr(leaf, "dtype")}
            kind = f" ({', '.join(sorted(dtypes))})" if dtypes else ""
            remedy = (
                "widen observation_space to what is seen, or bring the observation into it with "
                "np.clip and .astype(observation_space.dtype)"
            )
            return [Finding(not_of(space, view) + kind, remedy)]
    return []


def check_buffer(seen: Play) -> list[Finding]:
    """An observation stays what it was."""
    if not seen.reused:
        return []
    what = "the environment fills one observation buffer again and again"
    return [Finding(what, "return obs.copy() from its reset and step")]


def check_seeds(fresh: gym.Env, env: gym.Env, seen: Play, seed: int) -> list[Finding]:
    """A seed fixes all that follows: in a fresh environment and in the one that was played."""
    steps = min(REPEATED, len(seen.rewards))
    before = global_generators()
    new, again = play(fresh, seed, steps), play(env, seed, steps)
    name = next((n for n, state in global_generators().items() if state != before[n]), None)
    if name:
        what = f"the environment draws from {name}, which everything else draws from as well"
        return [Finding(what, "draw from self.np_random, which super().reset(seed=seed) seeds")]
    at = first_difference(seen, new)
    if at is not None:
        what = f"the same seed in two environments gives another rollout from step {at:,} on"
        remedy = "call super().reset(seed=seed), draw from self.np_random only, read no clock"
        return [Finding(what, remedy)]
    at = first_difference(seen, again)
    if at is not None:
        what = f"reset(seed={seed}) once more gives another rollout from step {at:,} on"
        remedy = "set every field anew in reset and draw from self.np_random: something is kept"
        return [Finding(what, remedy)]
    return []


def global_generators() -> dict[str, Any]:
    """The states of the generators that belong to nobody."""
    state: Any = np.random.get_state(legacy=False)
    numpy = bytes(state["state"]["key"]), state["state"]["pos"]
    return {"np.random": numpy, "Python's random": random.getstate()}


def first_difference(one: Play, other: Play) -> int | None:
    """The env step at which two plays part, as far as both go; None where they do not."""
    step = 0
    for i, (a, b) in enumerate(zip(one.views, other.views, strict=False)):
        if one.start[i] != other.start[i] or not same(a, b):
            return step
        step += not one.start[i]
        if not one.start[i] and one.rewards[step - 1] != other.rewards[step - 1]:
            return step
    return None


def check_limit(envs: Environments) -> list[Finding]:
    """Something ends every episode."""
    if not may_never_end(envs):
        return []
    return [Finding("no step limit: an episode may never end", "--max-episode-steps 1000")]


def check_rewards(seen: Play) -> list[Finding]:
    """Rewards or returns differ, so that there is something to learn."""
    if len(seen.rewards) < FEW or len({*seen.rewards}) > 1 or len({*seen.returns}) > 1:
        return []
    ended = f" and every episode's return {seen.returns[0]:g}" if seen.returns else ""
    what = f"every reward was {seen.rewards[0]:g}{ended} in {len(seen.rewards):,} random steps"
    remedy = (
        "see that step returns the reward; where good ones are rare, reward what leads there "
        "(gymnasium.wrappers.TransformReward) or explore longer"
    )
    return [Finding(what, remedy)]


def check_scale(seen: Play) -> list[Finding]:
    """Rewards are of a size that suits a network."""
    largest = max(map(abs, seen.rewards), default=0.0)
    if largest == 0 or SCALE[0] <= largest <= SCALE[1]:
        return []
    what = f"rewards reach {largest:.3g}, while a network learns best from numbers around 1"
    remedy = f"gymnasium.wrappers.TransformReward(env, lambda reward: reward / {largest:.0e})"
    return [Finding(what, remedy)]


def check_actions(space: gym.Space) -> list[Finding]:
    """Every dimension of an action has two ends."""
    parts = space.spaces if isinstance(space, gym.spaces.Tuple) else [space]
    boxes = [part for part in parts if isinstance(part, gym.spaces.Box)]
    if all(np.isfinite(box.low).all() and np.isfinite(box.high).all() for box in boxes):
        return []
    what = f"action space {brief(space)} has no bounds: nothing says how large an action is"
    remedy = "Box(-1, 1, shape) in the environment, which scales the action to its own units"
    return [Finding(what, remedy)]
