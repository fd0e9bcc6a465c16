"""Our own environments: a task is written once, for N episodes, in NumPy and on a device alike.

A `Task` holds rules and options, no data. `BatchedEnv` plays N episodes of it side by side as one
Gymnasium vector environment, `SingleEnv` is a batch of one.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from seqrl.core import Array, UsageError, closest, forms, tree
from seqrl.core.seeding import check_seed
from seqrl.envs.draws import Draws, TorchDraws

Episodes = dict[str, Array]  # what N running episodes remember, by name; leaves [N, ...]


class Task(Protocol):
    """The rules of one task, for N episodes at once; options are the fields of a dataclass.

    `xp` is numpy or torch, and `episodes` holds what `begin` named, and `time`: int64 [N], the
    steps since the episode began, the one being taken included. A task changes nothing in place,
    and no two of its arrays share memory.
    """

    actions: ClassVar[int]  # a Discrete action space

    @property
    def observation_space(self) -> gym.Space:
        """Of one environment."""

    @property
    def horizon(self) -> int:
        """Steps after which every episode is over by the rules."""

    def begin(self, draws: Draws, n: int) -> Episodes:
        """N new episodes."""

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """What is seen now [N, ...], in fresh memory."""

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Take int64 [N] actions: what changed, reward float32 [N], terminated bool [N]."""

    def scores(self) -> dict[str, float]:
        """Expected undiscounted returns: `optimum`, best `memoryless` policy, `random` policy."""


class BatchedEnv(gym.vector.VectorEnv):
    """N episodes of a task side by side.

    Arrays are NumPy's, or with a torch `device` tensors on it; a step looks at the device once.
    Rewards are float32. Autoreset modes are Gymnasium's; in SAME_STEP `info["final_obs"]` is one
    batch in which EVERY row is what followed the action, and `_final_obs` marks the rows that
    ended. `max_episode_steps` cuts episodes off (truncation). One seed, any whole number >= 0,
    fixes all N; `reset(options={"reset_mask": bool [N]})` begins new episodes there only.
    Raises UsageError for options, actions and calls out of turn.
    """

    resets_rows = True  # takes a reset_mask

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
            check_whole("max_episode_steps", max_episode_steps, 1)
        self.task = task
        self.num_envs = check_whole("num_envs", num_envs, 1)
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
        self._ended = 0  # episodes that wait for their reset, where `_over` holds
        self._over: Array = self._falses()

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
            self._episodes, self._over, self._ended = self._begin(self.num_envs), self._falses(), 0
        else:
            mask = self._given("reset_mask", mask, "bool")
            self._over = self._over & ~mask
            count, self._ended = self._draws.counts(mask, self._over)
            self._episodes = self._restart(self._running(), mask, count)
        return self.task.observe(self._xp, self._episodes), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One action in every environment, whole numbers [N]."""
        episodes = dict(self._running())
        waiting, wait = self._over, self._ended  # NEXT_STEP: these rows only begin anew
        if wait and self._mode is AutoresetMode.DISABLED:
            raise UsageError("an episode is over: call reset(options={'reset_mask': ended}) first")
        action = self._xp.asarray(self._given("actions", actions, "int"), dtype=self._xp.int64)
        episodes["time"] = episodes["time"] + 1
        changed, reward, terminated = self.task.advance(self._xp, episodes, action)
        episodes |= changed
        truncated = self._cut(episodes["time"])
        if wait:
            reward = self._xp.where(waiting, 0.0, reward)
            terminated, truncated = terminated & ~waiting, truncated & ~waiting
        over = terminated | truncated
        wrong, ended = self._draws.counts((action < 0) | (action >= self.task.actions), over)
        if wrong:
            self._refuse(action)
        if wait:
            episodes = self._restart(episodes, waiting, wait)
        self._episodes, self._over, self._ended = episodes, over, ended
        obs = self.task.observe(self._xp, episodes)
        if not ended or self._mode is not AutoresetMode.SAME_STEP:
            return obs, reward, terminated, truncated, {}
        fresh = self._restart(episodes, over, ended)
        self._episodes, self._over, self._ended = fresh, self._falses(), 0
        first = self.task.observe(self._xp, fresh)
        return first, reward, terminated, truncated, {"final_obs": obs, "_final_obs": over}

    def get_state(self) -> dict[str, Any]:
        """All that is needed to go on bit by bit the same: NumPy arrays and plain values."""
        self._seed_once()
        return {
            "task": repr(self.task),
            "episodes": tree.map(self._draws.host, self._episodes),
            "over": self._draws.host(self._over),
            "rng": self._draws.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state` of the same task, number of environments and kind of device."""
        if state["task"] != repr(self.task):
            play = forms.brief(state["task"])
            raise UsageError(f"the saved environments play {play}, these {self.task}")
        if len(state["over"]) != self.num_envs:
            raise UsageError(f"{len(state['over'])} environments were saved, not {self.num_envs}")
        self._seed_once()
        form = {"task": repr(self.task), "over": self._falses(), "rng": forms.anything}
        begun = self._begin(self.num_envs)
        form["episodes"] = begun if self._episodes else forms.maybe(begun)
        forms.check("envs", state, form)
        self._draws.set_state(state["rng"])
        saved = tree.map(np.array, (state["episodes"], state["over"]))  # copies
        self._episodes, self._over = tree.map(self._draws.array, saved)
        (self._ended,) = self._draws.counts(self._over)

    def _seed_once(self) -> None:
        if self._np_random is None:
            self._draws.seed(self.np_random)

    def _begin(self, n: int) -> Episodes:
        time = self._xp.zeros(n, dtype=self._xp.int64, device=self._draws.device)
        return {"time": time, **self.task.begin(self._draws, n)}

    def _restart(self, episodes: Episodes, mask: Array, count: int) -> Episodes:
        """New episodes in the `count` rows of `mask`, written in place unless it is all."""
        fresh = self._begin(count)
        if count == self.num_envs:
            return fresh
        for name, leaf in episodes.items():
            leaf[mask] = fresh[name]
        return episodes

    def _cut(self, time: Array) -> Array:
        limit = self.max_episode_steps
        return self._falses() if limit is None else time >= limit

    def _falses(self) -> Array:
        return self._xp.zeros(self.num_envs, dtype=self._xp.bool, device=self._draws.device)

    def _running(self) -> Episodes:
        if self._episodes is None:
            raise UsageError("no episode has begun: call reset() first")
        return self._episodes

    def _given(self, name: str, values: Any, kind: str) -> Array:
        """An array of `kind` ("int", "bool") and shape [N] from the user; UsageError for others."""
        if not hasattr(values, "dtype"):
            values = np.array(values)
        if kind not in dtype_name(values.dtype) or tuple(values.shape) != (self.num_envs,):
            got = f"{dtype_name(values.dtype)} {list(values.shape)}"
            raise UsageError(f"{name}: expected {kind} [{self.num_envs}], got {got}")
        return self._draws.array(values)

    def _refuse(self, action: Array) -> None:
        last = self.task.actions - 1
        i, bad = next((i, a) for i, a in enumerate(action.tolist()) if not 0 <= a <= last)
        raise UsageError(f"action {bad} in environment {i}: expected 0 to {last}")


class SingleEnv(gym.Env):
    """One environment of a task in NumPy: a batch of one, the same numbers for the same seed."""

    def __init__(self, task: Task):
        self.task = task
        self._batch = BatchedEnv(task, autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode; there are no options."""
        obs, info = self._batch.reset(seed=seed)
        self._share()
        return tree.row(obs, 0), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action; UsageError after the end of the episode."""
        obs, reward, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        return tree.row(obs, 0), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def get_state(self) -> dict[str, Any]:
        """All that is needed to go on bit by bit the same: NumPy arrays and plain values."""
        return self._batch.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state` of the same task."""
        self._batch.set_state(state)
        self._share()

    def _share(self) -> None:
        # Gymnasium looks here for the generator that the environment draws from
        self._np_random = self._batch.np_random
        self._np_random_seed = self._batch.np_random_seed


def check_whole(name: str, value: Any, low: int) -> int:
    """The value, a whole number of at least `low`; UsageError for anything else."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= low:
        return int(value)
    raise UsageError(f"{name} {value!r}: expected a whole number of at least {low}")


def autoreset(mode: str | AutoresetMode) -> AutoresetMode:
    """Gymnasium's autoreset mode, also by its value; UsageError for an unknown one."""
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = [known.value for known in AutoresetMode]
        hint = closest(str(mode), known)
        raise UsageError(
            f"autoreset_mode {mode!r}: expected one of {', '.join(known)}.{hint}"
        ) from error


dtype_name = cache(str)  # of NumPy's and torch's dtypes; str alone takes longer than a sum
