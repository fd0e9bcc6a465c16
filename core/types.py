"""The one data type of a step: what was seen, done, received, and what followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Array = Any  # a NumPy array or a torch tensor; every leaf has N (or T, N) in front
State = Any  # memory: an array or nested tuples/dicts of arrays, None for the memoryless
Metrics = Mapping[
    str, Any
]  # tag -> number, 0-d tensor or a function that gives it; read only when logged


class Transition(NamedTuple):
    """One step of N environments, leaves [N, ...]; a rollout is the same with [T, N, ...]."""

    obs: Array  # what was seen
    start: Array  # bool: obs opens an episode
    state: State  # memory that entered the step
    next_state: State  # memory that left it, before any reset
    action: Array
    log_prob: Array | None  # of the action under the policy that chose it; None where unused
    reward: Array
    terminated: Array  # bool: over, nothing follows
    truncated: Array  # bool: cut off, next_obs still has a value
    next_obs: Array  # what really followed, never the next episode's first view
    valid: Array  # bool: a real step to learn from; padding and autoreset filler are False


class Decision(NamedTuple):
    """What an agent does now, and the memory it leaves with."""

    action: Array
    state: State = None
    log_prob: Array | None = None
