"""Who tells an imitating agent what is right: the task itself, another agent, a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from seqrl.core import tree
from seqrl.core.arrays import as_float32, host, like
from seqrl.core.errors import RunError, UsageError, explain
from seqrl.core.named_code import named_object
from seqrl.core.types import Array, State

TASK, OBSERVATION = "task", "observation"
EXPECTED = "expected task, observation, a run's folder or module:function"


class Teacher(Protocol):
    """Tells what is right; it may have a memory, which the loop carries for it."""

    def answers(self, obs: Array, start: Array, state: State = None) -> tuple[Array, Array, State]:
        """Return the right actions [N, ...], bool [N] where they are known, and its memory.

        Arguments are those of an agent's `act`. An action that is not known is played all the
        same, but not learned from.
        """


class TaskTeacher:
    """The environments' own answers to the observations that they show."""

    def __init__(self, envs: Any):
        self.envs = envs

    def answers(self, obs: Array, start: Array, state: State = None) -> tuple[Array, Array, State]:
        """Return what the environments answer; UsageError where they tell no answers."""
        try:
            action, known = self.envs.answer()
        except UsageError as error:
            others = "or name another --teacher, a run's folder or module:function"
            raise UsageError(f"{error}; {others}") from error
        return action, known, None


class ObservationTeacher:
    """The observation itself, where actions are of its form (see envs.Reconstruction)."""

    def __init__(self, envs: Any):
        seen, done = envs.single_observation_space, envs.single_action_space
        if not isinstance(done, gym.spaces.Box) or done.shape != seen.shape:
            remedy = "wrap the environment in seqrl.envs.Reconstruction"
            raise UsageError(f"teacher observation: actions are {done}, shown is {seen}; {remedy}")

    def answers(self, obs: Array, start: Array, state: State = None) -> tuple[Array, Array, State]:
        """Return the observations as actions; all are known."""
        return as_float32(obs), start | True, None


class AgentTeacher:
    """What another agent does where it explores nothing.

    agent: any agent.
    observation_space, action_space: of its environments, where they are known.
    """

    def __init__(
        self,
        agent: Any,
        observation_space: gym.Space | None = None,
        action_space: gym.Space | None = None,
    ):
        self.agent = agent
        self.observation_space, self.action_space = observation_space, action_space

    def answers(self, obs: Array, start: Array, state: State = None) -> tuple[Array, Array, State]:
        """Return the agent's actions; all are known."""
        decision = self.agent.act(obs, start, state, explore=False)
        return decision.action, start | True, decision.state

    def check(self, envs: Any) -> None:
        """Refuse environments of other spaces than the agent's."""
        for name in ("observation_space", "action_space"):
            own, there = getattr(self, name), getattr(envs, f"single_{name}")
            if own is not None and own != there:
                remedy = "name a teacher that was trained on the same spaces"
                raise UsageError(f"teacher: its {name} is {own}, here it is {there}; {remedy}")


class FunctionTeacher:
    """A function from one observation to one action of a space."""

    def __init__(self, function: Callable[[Any], Any], action_space: gym.Space):
        self.function, self.action_space = function, action_space

    def answers(self, obs: Array, start: Array, state: State = None) -> tuple[Array, Array, State]:
        """Return the function's actions; all are known."""
        seen = tree.map(host, obs)
        found = [self._action(tree.take(seen, i)) for i in range(len(start))]
        return like(np.stack(found), start), start | True, None

    def _action(self, obs: Any) -> np.ndarray:
        """Return the action for one observation, of the space's dtype; refuse what is none."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            action = self.function(obs)
        except Exception as error:  # whatever a function of the user's may do
            raise RunError(f"teacher {name}: {explain(error)}") from error
        if not self.action_space.contains(action):
            expected = f"expected a member of {self.action_space}"
            raise UsageError(f"teacher {name}: it answers {action!r}; {expected}")
        return np.asarray(action, self.action_space.dtype)


def check_teacher(given: Any) -> Any:
    """Return what was given as a teacher, of a loaded run and of an agent its Teacher."""
    if isinstance(given, type) or (isinstance(given, str) and not given):
        given = None
    elif hasattr(given, "agent") and not hasattr(given, "answers"):  # what `load` returns
        given = AgentTeacher(given.agent, given.observation_space, given.action_space)
    elif hasattr(given, "act"):
        given = AgentTeacher(given, action_space=getattr(given, "action_space", None))
    if isinstance(given, str) or hasattr(given, "answers") or callable(given):
        return given
    more = "in Python also what seqrl.load returns, an agent, a function or a Teacher"
    raise UsageError(f"teacher: {EXPECTED}, {more}")


def teacher_in(envs: Any, given: Any) -> Teacher:
    """Return the Teacher in some environments of what `check_teacher` returned."""
    if given == TASK:
        return TaskTeacher(envs)
    if given == OBSERVATION:
        return ObservationTeacher(envs)
    if isinstance(given, str):
        given = named_function(given)
    if isinstance(given, AgentTeacher):
        given.check(envs)
    if hasattr(given, "answers"):
        return given
    return FunctionTeacher(given, envs.single_action_space)


def named_function(name: str) -> Any:
    """Return the user's function behind `module:function`; UsageError where there is none."""
    if ":" not in name:
        remedy = "no such folder; in Python pass teacher=seqrl.load(folder)"
        raise UsageError(f"--teacher {name}: {EXPECTED}; {remedy}")
    found = named_object(name, f"--teacher {name}", "module:function")
    if not callable(found) or isinstance(found, type):
        raise UsageError(f"--teacher {name}: expected a function, got {type(found).__name__}")
    return found
