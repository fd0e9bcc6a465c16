"""Finite models: the outcomes of a tabular environment, as arrays to solve and to draw from.

An outcome is Gymnasium's toy-text tuple (probability, next state, reward, terminated), listed as
`P[state][action]`; the same lists as arrays are a `Model`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text import CliffWalkingEnv, FrozenLakeEnv, TaxiEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from seqrl.core.errors import RunError, UsageError
from seqrl.core.seeding import Seed, generator

Successor = tuple[float, int, float, bool]
Successors = dict[int, dict[int, list[Successor]]]  # P[state][action], as Gymnasium keeps it


class Model(NamedTuple):
    """A finite Markov decision process as arrays; shorter lists are padded with probability 0.

    A draw with u from [0, 1) takes the first k with `cumulative[s, a, k] > u`, else k = 0, exactly
    as Gymnasium. Padding repeats the cumulative sum before it, so it is never drawn.
    """

    probability: np.ndarray  # [S, A, K] float64
    next_state: np.ndarray  # [S, A, K] int64
    reward: np.ndarray  # [S, A, K] float64
    terminated: np.ndarray  # [S, A, K] bool: the episode ends, the value of next_state is unused
    initial: np.ndarray  # [S] float64
    cumulative: np.ndarray  # [S, A, K] float64: cumulative sums in the listed order, with rounding
    outcomes: np.ndarray  # [S, A] int64: how many of the K are listed


def tabulate(P: Any, initial: Any) -> Model:
    """Return `P[state][action] = [(probability, next state, reward, terminated), ...]` as a Model.

    P consists of dicts or sequences numbered from 0, or is an array [S, A, K, 4]; initial is [S].
    Raises UsageError naming the first wrong entry; probabilities must sum to 1 within 1e-8.
    """
    rows, outcomes = _flatten(P)
    listed = np.arange(outcomes.max()) < outcomes[..., None]  # [S, A, K]
    table = np.zeros((4, *listed.shape))
    table[:, listed] = rows.T
    _check_table(table)
    probability, next_state, reward, terminated = table
    initial, cumulative = _check_initial(initial, len(listed)), np.cumsum(probability, axis=-1)
    next_state, terminated = next_state.astype(np.int64), terminated.astype(bool)
    return Model(probability, next_state, reward, terminated, initial, cumulative, outcomes)


def listed_outcomes(model: Model) -> Successors:
    """Return the lists `P[state][action]` of a model in plain Python: the inverse of `tabulate`."""
    listed = np.arange(model.probability.shape[2]) < model.outcomes[..., None]  # [S, A, K]
    rows = zip(*(column[listed].tolist() for column in model[:4]), strict=True)
    return {
        s: {a: [next(rows) for _ in range(count)] for a, count in enumerate(counts)}
        for s, counts in enumerate(model.outcomes.tolist())
    }


def matrices(transition: Any, reward: Any, terminal: Any = None) -> Successors:
    """Return the lists of probabilities [S, A, S] and rewards [S, A] or [S, A, S].

    Entering a state marked in `terminal` (bool [S], default none) ends the episode.
    """
    probability = np.asarray(transition, dtype=float)
    states = len(probability) if probability.ndim else 0
    if probability.ndim != 3 or probability.shape[2] != states:
        raise UsageError(f"transition {list(probability.shape)}: expected the shape [S, A, S]")
    given = np.asarray(reward, dtype=float)
    if given.shape not in (probability.shape, probability.shape[:2]):
        raise UsageError(f"reward {list(given.shape)}: expected the shape [S, A] or [S, A, S]")
    ends = np.zeros(states, dtype=bool) if terminal is None else np.asarray(terminal, dtype=bool)
    if ends.shape != (states,):
        raise UsageError(f"terminal {list(ends.shape)}: expected a bool a state, [{states}]")
    rewards = np.broadcast_to(given if given.ndim == 3 else given[..., None], probability.shape)
    P: Successors = {s: {a: [] for a in range(probability.shape[1])} for s in range(states)}
    for s, a, n in np.argwhere(probability != 0).tolist():
        P[s][a].append((float(probability[s, a, n]), n, float(rewards[s, a, n]), bool(ends[n])))
    return P


def _flatten(P: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return all outcomes in order [M, 4] and their number for each pair [S, A]."""
    outcomes: list[Any] = []
    counts: list[list[int]] = []
    for s in range(_count(P, "P", "states")):
        actions = _count(P[s], f"P[{s}]", "actions")
        if counts and actions != len(counts[0]):
            raise UsageError(f"P[{s}] has {actions} actions: expected {len(counts[0])}, as P[0]")
        pairs = [P[s][a] for a in range(actions)]
        counts.append([_count(pair, f"P[{s}][{a}]", "outcomes") for a, pair in enumerate(pairs)])
        for pair in pairs:
            outcomes.extend(pair)
    return _rows(outcomes, counts), np.array(counts, dtype=np.int64)


def _rows(outcomes: list[Any], counts: list[list[int]]) -> np.ndarray:
    """Return outcomes as floats [M, 4]; raise UsageError for the first that is none."""
    try:
        rows = np.array(outcomes, dtype=np.float64)  # all at once, which is five times as fast
        if rows.shape == (len(outcomes), 4):
            return rows
    except (TypeError, ValueError):
        pass
    at = ((s, a, k) for s, row in enumerate(counts) for a, n in enumerate(row) for k in range(n))
    return np.array([_outcome(x, *index) for x, index in zip(outcomes, at, strict=True)])


def _count(items: Any, name: str, what: str) -> int:
    """Return the number of items; UsageError unless they are numbered 0, 1, ... without a gap."""
    try:
        count = len(items)
    except TypeError:
        raise UsageError(f"{name} is {items!r}: expected its {what}, a dict or a list") from None
    if count == 0:
        raise UsageError(f"{name} has no {what}: expected at least one")
    if isinstance(items, Mapping):
        for i in range(count):
            if i not in items:
                raise UsageError(f"{name}[{i}] is missing: {what} are numbered 0 to {count - 1}")
    return count


def _outcome(outcome: Any, s: int, a: int, k: int) -> tuple[float, ...]:
    try:
        probability, next_state, reward, terminated = outcome
        return float(probability), float(next_state), float(reward), float(terminated)
    except (TypeError, ValueError):
        expected = "(probability, next state, reward, terminated); for matrices see `matrices`"
        raise UsageError(f"P[{s}][{a}][{k}] is {outcome!r}: expected {expected}") from None


def _check_table(table: np.ndarray) -> None:
    """Raise UsageError for the first wrong number of [4, S, A, K]; NaN fails any comparison."""
    probability, next_state, reward, terminated = table
    states = table.shape[1]
    valid_state = (next_state >= 0) & (next_state < states) & (next_state == np.floor(next_state))
    checks = {
        "probability": (probability, probability >= 0, "a number from 0 to 1"),
        "next state": (next_state, valid_state, f"a whole number from 0 to {states - 1}"),
        "reward": (reward, np.isfinite(reward), "a finite number"),
        "terminated": (terminated, np.isin(terminated, (0, 1)), "True or False"),
    }
    for name, (values, valid, expected) in checks.items():
        for s, a, k in np.argwhere(~valid)[:1]:
            value = values[s, a, k]
            raise UsageError(f"P[{s}][{a}][{k}]: {name} {value:g}, expected {expected}")
    total = probability.sum(-1)
    for s, a in np.argwhere(~(abs(total - 1) <= 1e-8))[:1]:
        raise UsageError(f"P[{s}][{a}]: probabilities sum to {total[s, a]:.10g}, expected 1")


def _check_initial(initial: Any, states: int) -> np.ndarray:
    try:
        found = np.array(initial, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (states,):
        raise UsageError(f"initial: expected a probability for each of the {states} states")
    if not (found >= 0).all():
        s = int(np.argmin(found >= 0))
        raise UsageError(f"initial[{s}]: probability {found[s]:g}, expected a number from 0 to 1")
    if not abs(found.sum() - 1) <= 1e-8:
        raise UsageError(f"initial: probabilities sum to {found.sum():.10g}, expected 1")
    return found


def garnet(
    states: int, actions: int, branching: int, *, seed: Seed, terminal: float = 0.1
) -> tuple[Successors, np.ndarray]:
    """Return a random model (P, initial), determined by the seed, for `FiniteMDP(*garnet(...))`.

    Every pair leads to `branching` different states with probabilities by random cuts of [0, 1],
    and ends the episode with probability `terminal`, so under any policy episodes last 1 / terminal
    steps in the mean; rewards are standard normal, starts uniform. Raises UsageError out of range.
    Source: Archibald, McKinnon & Thomas (1995), with `terminal=0`.
    """
    if not (states >= 1 and actions >= 1 and 1 <= branching <= states and 0 <= terminal <= 1):
        found = f"{states} states, {actions} actions, branching {branching}, terminal {terminal}"
        expected = "1 <= branching <= states, actions >= 1, 0 <= terminal <= 1"
        raise UsageError(f"garnet of {found}: expected {expected}")
    rng = generator(seed)
    P: Successors = {s: {a: [] for a in range(actions)} for s in range(states)}
    for pair in (P[s][a] for s in range(states) for a in range(actions)):
        probability = np.diff(np.sort(rng.random(branching - 1)), prepend=0.0, append=1.0)
        successors = rng.choice(states, branching, replace=False)
        for p, n in zip(probability * (1 - terminal), successors, strict=True):
            pair.append((float(p), int(n), float(rng.normal()), False))
        if terminal:
            pair.append((float(terminal), int(rng.integers(states)), float(rng.normal()), True))
    return P, np.full(states, 1 / states)


def garnet_mdp(
    states: int = 20, actions: int = 4, branching: int = 3, *, seed: int = 0, terminal: float = 0.1
) -> FiniteMDP:
    """Return the environment `seqrl/Garnet-v0`: see `garnet`; `seed` determines the model."""
    return FiniteMDP(*garnet(states, actions, branching, seed=seed, terminal=terminal))


class FiniteMDP(gym.Env[Any, Any]):
    """Any finite Markov decision process as a Gymnasium environment, from its outcomes.

    P and initial as `tabulate` takes and checks them (UsageError); spaces Discrete(S), Discrete(A).
    Draws as Gymnasium's toy text: one `np_random.random()` a reset and one a step, from `model`;
    Changes of `P` have no effect. `s` and `lastaction` are its state besides the generator. No time
    limit; `gym.make("seqrl/FiniteMDP-v0", P=P, initial=initial, max_episode_steps=100)` sets one.
    """

    def __init__(self, P: Any, initial: Any) -> None:
        self.model = tabulate(P, initial)
        self.P = listed_outcomes(self.model)  # a copy
        self.initial_state_distrib = self.model.initial.copy()
        self.observation_space = gym.spaces.Discrete(len(self.P))
        self.action_space = gym.spaces.Discrete(len(self.P[0]))
        self.s = -1  # before the first reset
        self.lastaction: int | None = None
        self._cumulative_initial = np.cumsum(self.model.initial).tolist()
        self._cumulative = self.model.cumulative.tolist()  # faster to search than short arrays

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw a state from `initial`; options are not used."""
        super().reset(seed=seed)
        cumulative = self._cumulative_initial
        self.s = bisect_right(cumulative, self.np_random.random()) % len(cumulative)
        self.lastaction = None
        return self.s, {"prob": 1}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Draw an outcome of (s, action); info holds its probability as "prob"."""
        if action not in self.action_space:
            raise UsageError(f"action {action!r}: expected 0 to {len(self.P[0]) - 1}")
        if self.s < 0:
            raise gym.error.ResetNeeded("call reset before the first step")
        cumulative = self._cumulative[self.s][action]
        # The first cumulative sum above the draw; where rounding leaves none, the first of all.
        k = bisect_right(cumulative, self.np_random.random()) % len(cumulative)
        drawn = (column.item(self.s, action, k) for column in self.model[:4])
        probability, next_state, reward, terminated = drawn
        self.s, self.lastaction = next_state, int(action)
        return next_state, reward, terminated, False, {"prob": probability}


def finite_model(env: gym.Env[Any, Any]) -> Model | None:
    """Return the model that an environment draws from, or None where it is not known exactly.

    Known: FrozenLakeEnv, CliffWalkingEnv, TaxiEnv without fickle passengers and FiniteMDP, by exact
    type, bare or inside Gymnasium's order, checker and time-limit wrappers. Raises UsageError where
    the environment's own P is wrong.
    """
    *wrappers, bare = list[Any](_layers(env))
    plain = all(type(w) in (OrderEnforcing, PassiveEnvChecker, TimeLimit) for w in wrappers)
    known = type(bare) in (FrozenLakeEnv, CliffWalkingEnv, TaxiEnv, FiniteMDP)
    if not (plain and known) or getattr(bare, "fickle_passenger", False):
        return None
    return bare.model if type(bare) is FiniteMDP else tabulate(bare.P, bare.initial_state_distrib)


def check_unchanged(env: gym.Env[Any, Any], model: Model) -> None:
    """Raise RunError where the P of a known environment is not the model taken from it earlier."""
    bare: Any = env.unwrapped
    listed = np.arange(model.probability.shape[2]) < model.outcomes[..., None]  # [S, A, K]
    try:
        rows, outcomes = _flatten(bare.P)
        initial = _check_initial(bare.initial_state_distrib, len(outcomes))
        same = np.array_equal(outcomes, model.outcomes) and np.array_equal(initial, model.initial)
        if same and np.array_equal(rows.T, [column[listed] for column in model[:4]]):
            return
        tabulate(bare.P, initial)
    except UsageError as error:
        raise RunError(f"P was changed after the start, and is wrong now: {error}") from None
    raise RunError("P was changed after the start: make a new environment for a new model")


def counts_success(model: Model) -> bool:
    """Return whether a return is 1 for success, else 0: no reward but 1 where an episode ends."""
    listed = np.arange(model.probability.shape[2]) < model.outcomes[..., None]  # [S, A, K]
    success = (model.reward == 1) & model.terminated
    return bool(((model.reward == 0) | success)[listed].all() and success[listed].any())


def time_limits(env: gym.Env[Any, Any]) -> list[TimeLimit[Any, Any]]:
    """Return the TimeLimit wrappers, outermost first."""
    return [layer for layer in _layers(env) if isinstance(layer, TimeLimit)]


def time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return the steps after which TimeLimit wrappers truncate an episode; None without any."""
    return min((layer._max_episode_steps for layer in time_limits(env)), default=None)


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Yield the wrappers from outside in, then the bare environment."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env
