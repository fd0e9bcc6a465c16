"""Right answers: the action that would be right now, told by an environment or by a wrapper of it.

An environment that can tell has a method `answer()`: of a single one it returns the right action
for what is shown now, or None where it is not known; of a VectorEnv the actions [N, ...] and
`known`, bool [N]. It draws nothing and changes nothing.
"""

from __future__ import annotations

from typing import Any, NoReturn

import gymnasium as gym
import numpy as np

from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batches import brief, flags
from seqrl.envs.layers import layers
from seqrl.envs.observations import SIMPLE, Leaf, limits


def told(env: gym.Env) -> Any:
    """Return the right action of a single environment now, None where it is not known."""
    return asked(env).answer()


def asked(env: Any) -> Any:
    """Return the outermost layer of an environment that tells; UsageError where none does."""
    layer = teller(env)
    if layer is None:
        refuse(env)
    check_actions(env, layer)
    return layer


def teller(env: Any) -> Any:
    """Return the outermost layer with a method `answer()`; None where there is none."""
    found = (layer for layer in layers(env) if callable(getattr(layer, "answer", None)))
    return next(found, None)


def check_actions(outer: Any, inner: Any) -> None:
    """Raise UsageError where a wrapper takes other actions than the layer that tells of them."""
    takes, tells = action_space(outer), action_space(inner)
    if takes is not tells and takes != tells:
        what = f"a wrapper takes actions of {brief(takes)}, the answers are of {brief(tells)}"
        raise UsageError(f"environment {name_of(outer)}: {what}; give the wrapper an answer() too")


def refuse(env: Any) -> NoReturn:
    """Raise the UsageError of an environment that tells no right answers."""
    remedy = "give it a method answer() that returns the right action now, or None"
    raise UsageError(f"environment {name_of(env)} tells no right answers; {remedy}")


def name_of(env: Any) -> str:
    """Return the id of an environment, else the name of its class."""
    return getattr(getattr(env, "spec", None), "id", None) or type(env.unwrapped).__name__


def action_space(env: Any) -> gym.Space:
    """Return the action space of an environment, or of one in a VectorEnv."""
    space: gym.Space = getattr(env, "single_action_space", None) or env.action_space
    return space


class Answers:
    """Right answers of N environments as a batch: actions [N, ...] of their space, known [N].

    `owner` is who is named in errors. Where no answer is known some action of the space stands.
    """

    def __init__(self, space: Any, owner: str):
        if not isinstance(space, SIMPLE):
            known = "answers are of Discrete, MultiDiscrete, MultiBinary or Box actions"
            raise UsageError(f"{owner}: {known}, not of {brief(space)}")
        low, high = limits(space)
        unknown = np.clip(np.zeros_like(low), low, high)[0]
        self.unknown = unknown if unknown.ndim else unknown.item()
        self._leaf = Leaf(space, "answer", owner)

    def stack(self, told: list[Any]) -> tuple[Array, Array]:
        """Return what each environment told; Misfit where that is no action."""
        known = np.array([action is not None for action in told], bool)
        actions = [self.unknown if action is None else action for action in told]
        return self._leaf.stack(actions), known

    def check(self, told: Any, n: int) -> tuple[Array, Array]:
        """Return what a VectorEnv told; Misfit or RunError where that is none."""
        action, known = told
        action = self._leaf.check(action, n)
        return action, flags("known", known, action)
