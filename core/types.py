"""The types of a step and of an agent's decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Array = Any  # a NumPy array or a torch tensor; every leaf has N (or T, N) in front
State = Any  # memory: an array or nested tuples/dicts of arrays, None for the memoryless
Metrics = Mapping[str, Any]  # tag -> number, 0-d tensor or function that is called when logged


class Transition(NamedTuple):
    """One step of N environments, leaves [N, ...]; a rollout is the same with [T, N, ...]."""

    obs: Array  # observation before the action
    start: Array  # bool: obs is the first of an episode
    state: State  # memory before the step
    next_state: State  # memory after the step, before any reset
    action: Array
    log_prob: Array | None  # of the action under the policy that chose it; None where unused
    reward: Array
    terminated: Array  # bool: the episode ended, the value of next_obs is 0
    truncated: Array  # bool: the episode was cut off, next_obs has a value
    next_obs: Array  # true successor, never the next episode's first observation
    valid: Array  # bool: a step to learn from; False for padding and autoreset filler


class Decision(NamedTuple):
    """The action chosen by an agent, its memory after the step and its log-probability."""

    action: Array
    state: State = None
    log_prob: Array | None = None
