"""The exact optimum of a finite model, and the exact value of any policy in it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from seqrl.core.checks import check_unit
from seqrl.core.errors import UsageError
from seqrl.envs.finite import Model, finite_model, time_limit

MAX_DENSE_STATES = 5_000  # states of a dense solve: its matrix takes 200 MB, the solver a copy
Task = gym.Env[Any, Any] | Model
Solution = tuple[np.ndarray, np.ndarray, np.ndarray]  # value, policy, Q


class Optimum(NamedTuple):
    """The optimal values and policy, from the first step of an episode on."""

    value: np.ndarray  # [S]
    policy: np.ndarray  # [S] int64; [H, S] by elapsed steps where there is a horizon
    q: np.ndarray  # [S, A]
    start_value: float  # the mean over the initial states


def optimum(task: Task, gamma: float, horizon: int | None = None) -> Optimum:
    """Return the optimum of an environment with a known model, or of a model.

    With a horizon (steps; at gamma = 1 the default is the environment's time limit): backward
    induction, no reward after the last step. Without, at gamma < 1: policy iteration for the
    infinite-horizon return, whatever the time limit. Of equally good actions (to 12 digits) the
    first is taken. Raises UsageError where there is no model, gamma = 1 has no horizon, or more
    than 5,000 states would be solved. Sources: Howard (1960); Puterman (1994), sections 4.5, 6.4.
    """
    model, horizon = _resolve(task, gamma, horizon)
    solve = partial(_backward_induction, horizon=horizon) if horizon else _policy_iteration
    value, policy, q = solve(model, gamma)
    return Optimum(value, policy, q, start_value(model, value))


def policy_value(task: Task, policy: Any, gamma: float, horizon: int | None = None) -> np.ndarray:
    """Return the exact value [S] of a policy from the first step on; arguments as in `optimum`.

    The policy is actions int [S], probabilities float [S, A], or non-stationary actions int [H, S]
    by elapsed steps, with horizon H. Raises UsageError for a policy that does not fit the model.
    """
    policy = np.asarray(policy)
    nonstationary = policy.ndim == 2 and np.issubdtype(policy.dtype, np.integer)
    if nonstationary and horizon is None:
        horizon = len(policy)
    model, horizon = _resolve(task, gamma, horizon)
    _check_policy(policy, model.outcomes.shape, horizon if nonstationary else None)
    if horizon is None:
        return _evaluate(model, policy, gamma)
    value = np.zeros(len(model.initial))
    for t in reversed(range(horizon)):
        chosen = _probabilities(policy[t] if nonstationary else policy, model)
        value = (chosen * action_values(model, value, gamma)).sum(-1)
    return value


def action_values(model: Model, value: np.ndarray, gamma: float) -> np.ndarray:
    """Return Q [S, A]: expected reward plus gamma times the next value [S] (0 if terminated)."""
    return (model.probability * (model.reward + gamma * _next_value(model, value))).sum(-1)


def _next_value(model: Model, value: np.ndarray) -> np.ndarray:
    """Return the value [S, A, K] of each next state, 0 if terminated."""
    return np.where(model.terminated, 0.0, value[model.next_state])


def _rounding(model: Model, value: np.ndarray, gamma: float) -> np.ndarray:
    """Return how far apart the Q of equally good actions may be in each state [S, 1].

    The 12th digit of what is summed up in that state, whatever the others are worth.
    """
    size = abs(model.reward) + gamma * abs(_next_value(model, value))
    return 1e-12 * (model.probability * size).sum(-1).max(-1, keepdims=True)


def start_value(model: Model, value: np.ndarray) -> float:
    """Return the mean of a value [S] over the initial states."""
    return float(model.initial @ value)


def reachable(model: Model) -> np.ndarray:
    """Return bool [S]: reachable states in which an action can be taken."""
    continues = (model.probability > 0) & ~model.terminated
    reached = model.initial > 0
    while True:
        expanded = reached.copy()
        expanded[model.next_state[reached][continues[reached]]] = True
        if np.array_equal(expanded, reached):
            return reached
        reached = expanded


def _resolve(task: Task, gamma: float, horizon: int | None) -> tuple[Model, int | None]:
    """Return the model and the horizon to solve it for (None: infinite)."""
    check_unit("gamma", gamma)
    model = task if isinstance(task, Model) else finite_model(task)
    if model is None:
        raise UsageError(f"{task}: no finite model is known; describe it as a FiniteMDP")
    if horizon is None and gamma == 1 and not isinstance(task, Model):
        horizon = time_limit(task)
    _check_horizon(horizon, gamma, states=len(model.initial))
    return model, horizon


def _check_horizon(horizon: int | None, gamma: float, states: int) -> None:
    if horizon is None:
        if gamma == 1:
            raise UsageError("gamma 1 without a time limit: give horizon=steps, or gamma < 1")
        if states > MAX_DENSE_STATES:
            limit = f"without a horizon a dense matrix of at most {MAX_DENSE_STATES:,} is solved"
            remedy = "give horizon=steps, which needs none"
            raise UsageError(f"a model of {states:,} states: {limit}; {remedy}")
    elif not (isinstance(horizon, int | np.integer) and horizon >= 1):
        raise UsageError(f"horizon {horizon!r}: expected a whole number of steps, at least 1")


def _check_policy(policy: np.ndarray, pairs: tuple[int, ...], horizon: int | None) -> None:
    """Raise UsageError for a policy that is not [S], [S, A] or, with a horizon, [H, S]."""
    states, actions = pairs
    if np.issubdtype(policy.dtype, np.integer):
        shape = (states,) if horizon is None else (horizon, states)
        valid = policy.shape == shape and policy.min() >= 0 and policy.max() < actions
        expected = f"actions 0 to {actions - 1} of shape {list(shape)}"
    else:
        sums = policy.sum(-1) if policy.shape == pairs else np.zeros(1)
        valid = bool((abs(sums - 1) <= 1e-8).all()) and bool((policy >= 0).all())
        expected = f"probabilities that sum to 1, of shape {list(pairs)}"
    if not valid:
        raise UsageError(f"policy {policy.dtype} {list(policy.shape)}: expected {expected}")


def _probabilities(policy: np.ndarray, model: Model) -> np.ndarray:
    """Return actions [S] as probabilities [S, A]; probabilities as they are."""
    return np.eye(model.outcomes.shape[1])[policy] if policy.ndim == 1 else policy


def _evaluate(model: Model, policy: np.ndarray, gamma: float) -> np.ndarray:
    """Solve v = r + gamma P v for a stationary policy, gamma < 1."""
    states = len(model.initial)
    chosen = _probabilities(policy, model)[..., None] * model.probability  # [S, A, K]
    flat_index = np.arange(states)[:, None, None] * states + model.next_state
    weight = np.where(model.terminated, 0.0, -gamma * chosen)
    system: np.ndarray = np.bincount(flat_index.ravel(), weight.ravel(), states * states)
    system[:: states + 1] += 1.0  # I - gamma P, in place: it is the one large array
    return np.linalg.solve(system.reshape(states, states), (chosen * model.reward).sum((1, 2)))


def _policy_iteration(model: Model, gamma: float) -> Solution:
    """Return value, policy and Q of the infinite horizon by exact policy iteration."""
    policy = action_values(model, np.zeros(len(model.initial)), gamma).argmax(-1)
    seen: set[bytes] = set()  # no policy twice, as rounding may make equally good ones alternate
    while policy.tobytes() not in seen:
        seen.add(policy.tobytes())
        value = _evaluate(model, policy, gamma)
        q, rounding = action_values(model, value, gamma), _rounding(model, value, gamma)
        kept = np.take_along_axis(q, policy[:, None], -1) >= q.max(-1, keepdims=True) - rounding
        policy = np.where(kept[:, 0], policy, q.argmax(-1))
    return q.max(-1), _first_best(q, rounding), q


def _backward_induction(model: Model, gamma: float, horizon: int) -> Solution:
    """Return value and Q of the first step and the policy [H, S] by backward induction."""
    policy = np.empty((horizon, len(model.initial)), dtype=np.int64)
    value = np.zeros(len(model.initial))
    for t in reversed(range(horizon)):
        q = action_values(model, value, gamma)
        policy[t], value = _first_best(q, _rounding(model, value, gamma)), q.max(-1)
    return value, policy, q


def _first_best(q: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Return the first action [S] within rounding of the best, so that ties are deterministic."""
    return (q >= q.max(-1, keepdims=True) - rounding).argmax(-1)
