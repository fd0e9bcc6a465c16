"""Our own environments: a task is written once, for N episodes, in NumPy and on a device."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from seqrl.core import schema, tree
from seqrl.core.arrays import host_copy
from seqrl.core.checks import check_whole
from seqrl.core.deferred import require_not
from seqrl.core.errors import UsageError, closest
from seqrl.core.seeding import check_seed
from seqrl.core.types import Array, DeferredChecks
from seqrl.envs.actions import Actions, checked
from seqrl.envs.draws import Draws, TorchDraws

Episodes = dict[str, Array]  # the state of N running episodes by name; leaves [N, ...]


class Task(Protocol):
    """The rules of one task, for N episodes at once, without data; options are dataclass fields.

    `xp` is numpy or torch, and `episodes` holds the arrays of `begin` and `time`: int64 [N], the
    steps since the episode began, the one being taken included. A task changes nothing in place,
    and no two of its arrays share memory.
    """

    @property
    def observation_space(self) -> gym.Space:
        """Return the observation space of one environment."""

    @property
    def action_space(self) -> gym.Space:
        """Return the action space: Discrete, MultiDiscrete, MultiBinary or Box of reals."""

    @property
    def horizon(self) -> int | None:
        """Return the number of steps after which the rules have ended every episode.

        None where they may never do so. Such a task has a class attribute `time_limit`: the steps
        after which its id truncates episodes.
        """

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes."""

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the current observations [N, ...], as new arrays."""

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Take actions [N, ...], int64 or the Box's floats, all of the space.

        Returns changes, reward float32 [N], terminated bool [N].
        """

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the right actions [N, ...] for what is observed, and where that is known [N].

        Where it is not known some action of the space stands; after an episode's end too.
        A task without this method has no right answers.
        """

    def scores(self) -> dict[str, float]:
        """Return expected undiscounted returns: `optimum`, best `memoryless`, `random` policy."""

    def kept(self) -> dict[str, Any]:
        """Return options that a run keeps, so that it reads later files as it reads this one.

        A task without this method has none.
        """


class BatchedEnv(gym.vector.VectorEnv):
    """N episodes of a task side by side.

    Arrays are NumPy's, or with a torch `device` tensors on it. A step waits for no device: what
    may be wrong with it is told by `info["deferred"]` (`core.deferred`), which the loop checks.
    Rewards are float32. Autoreset modes are Gymnasium's; in SAME_STEP `info["final_obs"]` is one
    batch with the true successor in EVERY environment, and `_final_obs` marks the episodes that
    ended. `max_episode_steps` truncates episodes. One seed, any whole number >= 0, determines
    all N; `reset(options={"reset_mask": bool [N]})` begins new episodes there only.
    `answer()` tells the right actions, which changes nothing.
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
        self.single_action_space = task.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._mode = autoreset(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self._draws = Draws() if device is None else TorchDraws(device)
        self._actions = Actions(self.single_action_space, self._draws)
        self._episodes: Episodes | None = None
        self._done: Array = self._falses()  # bool [N]: over, and waits for its reset

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
            self._done = self._falses()
        else:
            mask = checked("reset_mask", mask, ["bool"], (self.num_envs,), self._draws)
            self._done = self._done & ~mask
            self._episodes = self._restart(self._started(), mask)
        return self.task.observe(self._xp, self._episodes), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take one action in every environment [N, ...]."""
        episodes = dict(self._started())
        pending = self._done  # NEXT_STEP: these only reset
        waiting = self._mode is not AutoresetMode.SAME_STEP and self._draws.most(pending)
        checks: DeferredChecks = ()
        if waiting and self._mode is AutoresetMode.DISABLED:
            checks = require_not(pending.any(), refuse_to_go_on)
        action = self._actions.read(actions, self.num_envs)
        episodes["time"] = episodes["time"] + 1
        changed, reward, terminated = self.task.advance(self._xp, episodes, action)
        episodes |= changed
        limit = self.max_episode_steps
        truncated = self._falses() if limit is None else episodes["time"] >= limit
        if waiting:
            reward = self._xp.where(pending, 0.0, reward)
            terminated, truncated = terminated & ~pending, truncated & ~pending
        done = terminated | truncated
        outside = self._actions.outside(action).any()
        checks += require_not(outside, partial(self._actions.refuse, action))
        info: dict[str, Any] = {"deferred": checks} if checks else {}
        if waiting and self._mode is AutoresetMode.NEXT_STEP:
            episodes = self._restart(episodes, pending)
        self._episodes, self._done = episodes, done
        obs = self.task.observe(self._xp, episodes)
        if self._mode is not AutoresetMode.SAME_STEP or not self._draws.most(done):
            return obs, reward, terminated, truncated, info
        fresh = self._restart(episodes, done)
        self._episodes, self._done = fresh, self._falses()
        first = self.task.observe(self._xp, fresh)
        info |= {"final_obs": obs, "_final_obs": done}
        return first, reward, terminated, truncated, info

    def answer(self) -> tuple[Array, Array]:
        """Return the right actions [N, ...] for what is shown now, and where they are known [N].

        Nothing is known where an episode is over and waits for its reset. Raises UsageError for a
        task that has no right answers.
        """
        episodes = self._started()
        if not hasattr(self.task, "answer"):
            remedy = "give the task a method answer(xp, episodes)"
            raise UsageError(f"{type(self.task).__name__} tells no right answers; {remedy}")
        action, known = self.task.answer(self._xp, episodes)
        return self._actions.told(action), known & ~self._done

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

    @property
    def _xp(self) -> Any:
        return self._draws.xp

    def _seed_once(self) -> None:
        if self._np_random is None:
            self._draws.seed(self.np_random)

    def _new_episodes(self, n: int) -> Episodes:
        time = self._xp.zeros(n, dtype=self._xp.int64, device=self._draws.device)
        return {"time": time, **self.task.begin(self._draws, n)}

    def _restart(self, episodes: Episodes, mask: Array) -> Episodes:
        """Begin new episodes in the environments of `mask`, in place where arrays can be."""
        fresh, replaced = self._new_episodes(self._draws.most(mask)), self._draws.replaced
        begun = {name: replaced(mask, episodes[name], leaf) for name, leaf in fresh.items()}
        return episodes | begun

    def _falses(self) -> Array:
        return self._xp.zeros(self.num_envs, dtype=self._xp.bool, device=self._draws.device)

    def _started(self) -> Episodes:
        if self._episodes is None:
            raise UsageError("no episode has begun: call reset() first")
        return self._episodes


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

    def answer(self) -> Any:
        """Return the right action for what is shown now, None where it is not known."""
        action, known = self._batch.answer()
        return action[0] if known[0] else None

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


def refuse_to_go_on() -> NoReturn:
    """Raise the UsageError of a step behind an episode's end, where nothing resets by itself."""
    raise UsageError("an episode is over: call reset(options={'reset_mask': ended}) first")


def autoreset(mode: str | AutoresetMode) -> AutoresetMode:
    """Return Gymnasium's autoreset mode, also by its value; UsageError for an unknown one."""
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = [known.value for known in AutoresetMode]
        text = f"expected one of {', '.join(known)}.{closest(str(mode), known)}"
        raise UsageError(f"autoreset_mode {mode!r}: {text}") from error
