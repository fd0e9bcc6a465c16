"""Our own environments: a task is written once, for N episodes, in NumPy and on a device."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from seqrl.core import schema, tree
from seqrl.core.arrays import host_copy
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError, closest
from seqrl.core.seeding import check_seed
from seqrl.core.types import Array
from seqrl.envs.batches import dtype_name
from seqrl.envs.draws import Draws, TorchDraws

Episodes = dict[str, Array]  # the state of N running episodes by name; leaves [N, ...]


class Task(Protocol):
    """The rules of one task, for N episodes at once, without data; options are dataclass fields.

    `xp` is numpy or torch, and `episodes` holds the arrays of `begin` and `time`: int64 [N], the
    steps since the episode began, the one being taken included. A task changes nothing in place,
    and no two of its arrays share memory.
    """

    actions: ClassVar[int]  # a Discrete action space

    @property
    def observation_space(self) -> gym.Space:
        """Return the observation space of one environment."""

    @property
    def horizon(self) -> int:
        """Return the number of steps after which the rules have ended every episode."""

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes."""

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the current observations [N, ...], as new arrays."""

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Take int64 [N] actions; return changes, reward float32 [N], terminated bool [N]."""

    def scores(self) -> dict[str, float]:
        """Return expected undiscounted returns: `optimum`, best `memoryless`, `random` policy."""


class BatchedEnv(gym.vector.VectorEnv):
    """N episodes of a task side by side.

    Arrays are NumPy's, or with a torch `device` tensors on it; a step syncs the device once.
    Rewards are float32. Autoreset modes are Gymnasium's; in SAME_STEP `info["final_obs"]` is one
    batch with the true successor in EVERY environment, and `_final_obs` marks the episodes that
    ended. `max_episode_steps` truncates episodes. One seed, any whole number >= 0, determines
    all N; `reset(options={"reset_mask": bool [N]})` begins new episodes there only.
    Raises UsageError for invalid options, actions or order of calls.
    """

    takes_reset_mask = True  # in the options of `reset`

    def __init__(
        self,
        task: Task,
        num_envs: int = 1,
        *,
        device: Any = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
    ):
        if max_episode_steps is not None:
            check_whole("max_episode_steps", max_episode_steps)
        self.task = task
        self.num_envs = check_whole("num_envs", num_envs)
        self.max_episode_steps = max_episode_steps
        self.single_observation_space = task.observation_space
        self.single_action_space = gym.spaces.Discrete(task.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._mode = autoreset(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self._draws = Draws() if device is None else TorchDraws(device)
        self._xp = self._draws.xp
        self._episodes: Episodes | None = None
        self._num_done = 0  # episodes that wait for their reset, where `_done` holds
        self._done: Array = self._falses()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes everywhere, or where `options["reset_mask"]` (bool [N]) holds."""
        self._seed_once()
        super().reset(seed=check_seed(seed))
        if seed is not None:
            self._draws.seed(self.np_random)
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self._episodes = self._new_episodes(self.num_envs)
            self._done, self._num_done = self._falses(), 0
        else:
            mask = self._checked("reset_mask", mask, "bool")
            self._done = self._done & ~mask
            count, self._num_done = self._draws.counts(mask, self._done)
            self._episodes = self._restart(self._started(), mask, count)
        return self.task.observe(self._xp, self._episodes), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take one action in every environment, whole numbers [N]."""
        episodes = dict(self._started())
        pending, num_pending = self._done, self._num_done  # NEXT_STEP: these only reset
        if num_pending and self._mode is AutoresetMode.DISABLED:
            raise UsageError("an episode is over: call reset(options={'reset_mask': ended}) first")
        action = self._xp.asarray(self._checked("actions", actions, "int"), dtype=self._xp.int64)
        episodes["time"] = episodes["time"] + 1
        changed, reward, terminated = self.task.advance(self._xp, episodes, action)
        episodes |= changed
        limit = self.max_episode_steps
        truncated = self._falses() if limit is None else episodes["time"] >= limit
        if num_pending:
            reward = self._xp.where(pending, 0.0, reward)
            terminated, truncated = terminated & ~pending, truncated & ~pending
        done = terminated | truncated
        invalid = (action < 0) | (action >= self.task.actions)
        num_invalid, num_done = self._draws.counts(invalid, done)
        if num_invalid:
            self._raise_invalid(action)
        if num_pending:
            episodes = self._restart(episodes, pending, num_pending)
        self._episodes, self._done, self._num_done = episodes, done, num_done
        obs = self.task.observe(self._xp, episodes)
        if not num_done or self._mode is not AutoresetMode.SAME_STEP:
            return obs, reward, terminated, truncated, {}
        fresh = self._restart(episodes, done, num_done)
        self._episodes, self._done, self._num_done = fresh, self._falses(), 0
        first = self.task.observe(self._xp, fresh)
        return first, reward, terminated, truncated, {"final_obs": obs, "_final_obs": done}

    def get_state(self) -> dict[str, Any]:
        """Return the full state as NumPy arrays and plain values, to continue bit for bit."""
        self._seed_once()
        return {
            "task": repr(self.task),
            "episodes": tree.map(host_copy, self._episodes),
            "over": host_copy(self._done),
            "rng": self._draws.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore `get_state` of the same task, number of environments and kind of device."""
        if state["task"] != repr(self.task):
            saved_task = schema.brief(state["task"])
            raise UsageError(f"the saved environments play {saved_task}, these {self.task}")
        if len(state["over"]) != self.num_envs:
            raise UsageError(f"{len(state['over'])} environments were saved, not {self.num_envs}")
        self._seed_once()
        expected = {"task": repr(self.task), "over": self._falses(), "rng": schema.anything}
        template = self._new_episodes(self.num_envs)
        expected["episodes"] = template if self._episodes else schema.maybe(template)
        schema.check("envs", state, expected)
        self._draws.set_state(state["rng"])
        saved = tree.map(np.array, (state["episodes"], state["over"]))  # copies
        self._episodes, self._done = tree.map(self._draws.array, saved)
        (self._num_done,) = self._draws.counts(self._done)

    def _seed_once(self) -> None:
        if self._np_random is None:
            self._draws.seed(self.np_random)

    def _new_episodes(self, n: int) -> Episodes:
        time = self._xp.zeros(n, dtype=self._xp.int64, device=self._draws.device)
        return {"time": time, **self.task.begin(self._draws, n)}

    def _restart(self, episodes: Episodes, mask: Array, count: int) -> Episodes:
        """Begin new episodes in the `count` environments of `mask`, in place unless it is all."""
        fresh = self._new_episodes(count)
        if count == self.num_envs:
            return fresh
        for name, leaf in episodes.items():
            leaf[mask] = fresh[name]
        return episodes

    def _falses(self) -> Array:
        return self._xp.zeros(self.num_envs, dtype=self._xp.bool, device=self._draws.device)

    def _started(self) -> Episodes:
        if self._episodes is None:
            raise UsageError("no episode has begun: call reset() first")
        return self._episodes

    def _checked(self, name: str, values: Any, kind: str) -> Array:
        """Return the user's array [N] of `kind` ("int", "bool"); UsageError for others."""
        if not hasattr(values, "dtype"):
            values = np.array(values)
        if kind not in dtype_name(values.dtype) or tuple(values.shape) != (self.num_envs,):
            got = f"{dtype_name(values.dtype)} {list(values.shape)}"
            raise UsageError(f"{name}: expected {kind} [{self.num_envs}], got {got}")
        return self._draws.array(values)

    def _raise_invalid(self, action: Array) -> None:
        last = self.task.actions - 1
        i, invalid = next((i, a) for i, a in enumerate(action.tolist()) if not 0 <= a <= last)
        raise UsageError(f"action {invalid} in environment {i}: expected 0 to {last}")


class SingleEnv(gym.Env):
    """One environment of a task in NumPy: a batch of one, with the same numbers for a seed."""

    def __init__(self, task: Task):
        self.task = task
        self._batch = BatchedEnv(task, autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode; options are not used."""
        obs, info = self._batch.reset(seed=seed)
        self._share_generator()
        return tree.take(obs, 0), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action; UsageError after the end of the episode."""
        obs, reward, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        return tree.take(obs, 0), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def get_state(self) -> dict[str, Any]:
        """Return the full state as NumPy arrays and plain values, to continue bit for bit."""
        return self._batch.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore `get_state` of the same task."""
        self._batch.set_state(state)
        self._share_generator()

    def _share_generator(self) -> None:
        # Gymnasium expects the environment's generator here
        self._np_random = self._batch.np_random
        self._np_random_seed = self._batch.np_random_seed


def autoreset(mode: str | AutoresetMode) -> AutoresetMode:
    """Return Gymnasium's autoreset mode, also by its value; UsageError for an unknown one."""
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = [known.value for known in AutoresetMode]
        text = f"expected one of {', '.join(known)}.{closest(str(mode), known)}"
        raise UsageError(f"autoreset_mode {mode!r}: {text}") from error
