"""Any Gymnasium environment behind one face: N rows, true successors, whatever the autoreset mode.

Gymnasium tells the end of an episode in three ways (`AutoresetMode`): NEXT_STEP answers one more
call with a filler row, SAME_STEP hides the last observation in `info`, DISABLED waits for a reset.
Here every turn brings what really followed (`next_obs`) and what to look at next (`obs`, `start`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from seqrl.core import Array, RunError, UsageError, explain, tree
from seqrl.core.seeding import ints
from seqrl.envs.batches import (
    batcher,
    brief,
    check_observation,
    choose,
    clipper,
    frozen,
    is_float,
    not_of,
    owned,
    total,
    unbatcher,
)
from seqrl.envs.blame import culprit

REAL = np.dtype(np.float64)
MISFITS = (KeyError, IndexError, TypeError, ValueError)  # of an observation and its space


class Outcome(NamedTuple):
    """What one turn of N environments brought; leaves [N, ...]."""

    next_obs: Array  # what followed the action, also at an episode's end
    reward: Array
    terminated: Array
    truncated: Array
    valid: Array  # bool: False on autoreset filler, which no action caused
    obs: Array  # what to look at next: next_obs, or the next episode's first view
    start: Array  # bool: obs opens an episode
    real: int  # valid rows
    ended: bool  # whether an episode ended on any valid row


class Environments(Protocol):
    """What the loop needs of its environments."""

    num_envs: int
    seeds: list[int | None]
    single_observation_space: gym.Space
    single_action_space: gym.Space

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin new episodes everywhere; the first observations [N, ...]."""

    def step(self, action: Array) -> Outcome:
        """One action in every environment [N, ...]."""

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Cut the episodes of the rows in `mask` [N] and begin new ones there."""

    def close(self) -> None:
        """Release what the environments hold."""


def adapt(envs: Any) -> Environments:
    """An Environments from a Gymnasium `Env`, a `VectorEnv`, or what is one already."""
    if isinstance(envs, gym.Env):
        return Serial([envs])
    if isinstance(envs, gym.vector.VectorEnv):
        return Vector(envs)
    if isinstance(envs, Rows | Vector):
        return envs
    raise UsageError(
        f"environments of type {type(envs).__name__}: expected a Gymnasium Env or VectorEnv, "
        "or what seqrl.envs.make returns"
    )


class Rows:
    """N single environments, each with a seed of its own."""

    def __init__(self, envs: list[Any]):
        self.envs = envs
        self.num_envs = len(envs)
        self.single_observation_space = envs[0].observation_space
        self.single_action_space = envs[0].action_space
        self.seeds: list[int | None] = [None] * self.num_envs
        self._stack = batcher(self.single_observation_space)
        self._unbatch = unbatcher(self.single_action_space)
        self._all = frozen(np.ones(self.num_envs, bool))
        self._none = frozen(np.zeros(self.num_envs, bool))
        self._unchecked = True

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin new episodes everywhere; the first observations [N, ...]."""
        if seed is not None:
            self.seeds = list(ints(seed, self.num_envs))
        self._unchecked = True
        return self._batch(self._open(self.seeds if seed else [None] * self.num_envs))

    def step(self, action: Array) -> Outcome:
        """One action in every environment [N, ...]."""
        seen, rewards, terminations, truncations, over = [], [], [], [], []
        actions = self._unbatch(action)
        for i, env in enumerate(self.envs):
            try:
                obs, reward, terminated, truncated, _ = env.step(actions[i])
                reward = float(reward)
            except Exception as error:
                problem = f"{explain(error)} at action {actions[i]}"
                raise RunError(f"{self._name(i)}: {problem}") from error
            if not math.isfinite(reward):
                raise RunError(f"{self._name(i)}: reward {reward} at action {actions[i]}")
            seen.append(obs)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            if terminated or truncated:
                over.append(i)
        next_obs = self._batch(seen, actions)
        self._unchecked = False
        got, n, none = np.array(rewards, REAL), self.num_envs, self._none
        if not over:
            return Outcome(next_obs, got, none, none, self._all, next_obs, none, n, False)
        obs, start = self._begin(over, seen)
        ends, cuts = np.array(terminations, bool), np.array(truncations, bool)
        return Outcome(next_obs, got, ends, cuts, self._all, obs, start, n, True)

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Cut the episodes of the rows in `mask` [N] and begin new ones there."""
        seen = [tree.row(outcome.obs, i) for i in range(self.num_envs)]
        obs, start = self._begin(np.flatnonzero(mask).tolist(), seen)
        truncated = outcome.truncated | mask
        return outcome._replace(
            obs=obs, start=start | outcome.start, truncated=truncated, ended=True
        )

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _open(self, seeds: list[int | None]) -> list[Any]:
        """Reset every environment; its first observation."""
        return [self._first(i, seed) for i, seed in enumerate(seeds)]

    def _begin(self, rows: list[int], seen: list[Any]) -> tuple[Array, np.ndarray]:
        """Reset `rows`; the observations to look at next and where they open an episode."""
        start = np.zeros(self.num_envs, bool)
        seen = list(seen)
        for i in rows:
            seen[i], start[i] = self._first(i, None), True
        return self._batch(seen), start

    def _first(self, i: int, seed: int | None) -> Any:
        try:
            obs, _ = self.envs[i].reset(seed=seed)
        except Exception as error:
            raise RunError(f"{self._name(i)}: {explain(error)} at its reset") from error
        return obs

    def _batch(self, seen: list[Any], actions: Any = None) -> Array:
        try:
            batch = self._stack(seen)
        except (*MISFITS, RunError) as error:
            raise RunError(self._odd_one(seen, actions)) from error
        if self._unchecked:
            for i in range(self.num_envs):
                check_observation(self._name(i), self.single_observation_space, tree.row(batch, i))
        return batch

    def _odd_one(self, seen: list[Any], actions: Any) -> str:
        """What is said of the first observation that is none of its space."""
        for i, obs in enumerate(seen):
            when = "at its reset" if actions is None else f"at action {actions[i]}"
            try:
                self._stack([obs])
            except RunError as error:
                problem = str(error).removeprefix("environment 0: ")
                return f"{self._name(i)}: {problem} {when}"
            except MISFITS:
                return f"{self._name(i)}: {not_of(self.single_observation_space, obs)} {when}"
        return f"{self._name(0)}: observations of different kinds {when}"

    def _name(self, i: int) -> str:
        spec = self.envs[i].spec
        name = f"{spec.id} " if spec else ""
        return f"environment {name}{i} (seed {self.seeds[i]})"


class Serial(Rows):
    """N single environments stepped one after the other; with N = 1 the shortest way there is."""


class Vector:
    """A Gymnasium VectorEnv in any autoreset mode.

    In SAME_STEP Gymnasium's own vectors keep the last observation by reference until after the
    reset: it is lost where an environment fills the same buffer again and again; take another mode.
    A process of an AsyncVectorEnv that dies is named, one that hangs is waited for; `Workers` name
    that, too.
    """

    def __init__(self, envs: gym.vector.VectorEnv):
        self.envs = envs
        self.num_envs = envs.num_envs
        self.single_observation_space = envs.single_observation_space
        self.single_action_space = envs.single_action_space
        self.seeds: list[int | None] = [None] * self.num_envs
        self._stack = batcher(self.single_observation_space)
        self._within = clipper(self.single_action_space)
        try:
            self.mode = AutoresetMode(envs.metadata.get("autoreset_mode"))
        except ValueError as error:
            raise UsageError(
                f"{type(envs).__name__}: metadata['autoreset_mode'] is "
                f"{envs.metadata.get('autoreset_mode')!r}, expected one of "
                f"{', '.join(mode.name for mode in AutoresetMode)}"
            ) from error
        self._filler: Array | None = None  # rows whose next turn only resets (NEXT_STEP)

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin new episodes everywhere; the first observations [N, ...]."""
        self._filler = None
        given: int | list[int] | None = None
        if seed is not None and owns_its_seeds(self.envs):
            given = list(ints(seed, self.num_envs))
            self.seeds = list(given)
        elif seed is not None:
            given = ints(seed, 1)[0]
            self.seeds = [given] * self.num_envs
        obs = self._reset(seed=given)
        check_observation(self._name(), self.envs.observation_space, obs)
        return obs

    def step(self, action: Array) -> Outcome:
        """One action in every environment [N, ...]."""
        try:
            obs, reward, terminated, truncated, info = self.envs.step(self._within(action))
        except Exception as error:
            raise RunError(self._blame(error, action)) from error
        obs = tree.map(owned, obs)
        over = terminated | truncated
        ended = self._look(over, reward, obs)
        valid, count = self._valid(over)
        if self.mode is AutoresetMode.NEXT_STEP:
            start = ~valid
            self._filler = over if ended else None
            return Outcome(obs, reward, terminated, truncated, valid, obs, start, count, ended)
        next_obs = obs
        if ended and self.mode is AutoresetMode.SAME_STEP:
            next_obs = final_observations(self._stack, obs, info["final_obs"], over)
        elif ended:
            obs = self._reset(options={"reset_mask": over})
        return Outcome(next_obs, reward, terminated, truncated, valid, obs, over, count, ended)

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Cut the episodes of the rows in `mask` [N] and begin new ones there."""
        if not owns_its_seeds(self.envs) and not getattr(self.envs, "resets_rows", False):
            raise UsageError(
                f"{self._name()}: an episode outlasts the step limit and its rows cannot be reset "
                "one by one; give the environment a time limit of its own"
            )
        obs = self._reset(options={"reset_mask": mask})
        if self._filler is not None:
            self._filler = self._filler & ~mask
        return outcome._replace(
            obs=obs,
            start=outcome.start | mask,
            truncated=outcome.truncated | mask,
            ended=True,
        )

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def _reset(self, **given: Any) -> Array:
        try:
            obs, _ = self.envs.reset(**given)
        except Exception as error:
            i, problem = culprit(self.envs.unwrapped, error)
            raise RunError(f"{self._name(i)}: {problem} at its reset") from error
        obs = tree.map(owned, obs)
        self._refuse("observation", obs)
        return obs

    def _valid(self, over: Array) -> tuple[Array, int]:
        if self._filler is None:
            return over | True, self.num_envs
        return ~self._filler, self.num_envs - int(self._filler.sum())

    def _look(self, over: Array, reward: Array, obs: Array) -> bool:
        """Whether any episode ended; refuses what is not finite. One copy from a device."""
        size = total(reward)
        for leaf in filter(is_float, tree.leaves(obs)):
            size = size + total(leaf)
        if not bool(over.any() | ~(abs(size) < math.inf)):
            return False
        self._refuse("reward", reward)
        self._refuse("observation", obs)
        return bool(over.any())

    def _refuse(self, what: str, values: Array) -> None:
        """Refuse numbers that are not finite."""
        for leaf in filter(is_float, tree.leaves(values)):
            bad = (~(abs(leaf) < math.inf)).reshape(len(leaf), -1).any(1)
            if bool(bad.any()):
                i = bad.tolist().index(True)
                raise RunError(f"{self._name(i)}: {what} {brief(leaf[i].tolist())} is not finite")

    def _blame(self, error: Exception, action: Array) -> str:
        i, problem = culprit(self.envs.unwrapped, error)
        if i is None:
            return f"{self._name()}: {problem} at actions {brief(action)}"
        return f"{self._name(i)}: {problem} at action {brief(tree.row(action, i))}"

    def _name(self, i: int | None = None) -> str:
        spec = getattr(self.envs, "spec", None)
        name = spec.id if spec else type(self.envs).__name__
        if i is None:
            return f"environments {name}"
        return f"environment {name} {i} (seed {self.seeds[i]})"


def owns_its_seeds(envs: gym.vector.VectorEnv) -> bool:
    """Whether each row is an environment of its own, seeded and reset by itself."""
    return isinstance(envs.unwrapped, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv)


def final_observations(
    stack: Callable[[list[Any]], Array], obs: Array, final: Any, over: np.ndarray
) -> Array:
    """`obs` with the last observations of finished episodes put in their rows.

    Gymnasium's own vectors give an object array with one observation a finished row, a batched
    environment one tree of arrays.
    """
    if not (isinstance(final, np.ndarray) and final.dtype == object):
        return tree.map(lambda old, new: choose(over, new, old), obs, final)
    return stack([final[i] if ended else tree.row(obs, i) for i, ended in enumerate(over)])
