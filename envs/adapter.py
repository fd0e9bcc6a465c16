"""One interface to any Gymnasium environment: N copies, true successors, any autoreset mode.

Gymnasium tells the end of an episode in three ways (`AutoresetMode`): NEXT_STEP answers one more
call with a filler step, SAME_STEP puts the last observation into `info`, DISABLED waits for a
reset. Here every step returns the true successor (`next_obs`) and the next input (`obs`, `start`).
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from seqrl.core import tree
from seqrl.core.arrays import to_numpy
from seqrl.core.deferred import require_not
from seqrl.core.errors import RunError, UsageError, UserError, explain
from seqrl.core.picking import where
from seqrl.core.seeding import ints
from seqrl.core.types import Array, DeferredChecks
from seqrl.envs import answers, batches
from seqrl.envs.failed import failed_environment
from seqrl.envs.observations import Misfit, observations

REAL = np.dtype(np.float64)
DEFERRED = "deferred"  # of a step's info, as tuples of `DeferredCheck`
NUMBERS = frozenset((float, int, np.float64, np.float32))  # types of most rewards


class Outcome(NamedTuple):
    """The result of one step of N environments; leaves [N, ...]."""

    next_obs: Array  # true successor of the action, also at an episode's end
    reward: Array
    terminated: Array
    truncated: Array
    valid: Array  # bool: False for autoreset filler, which no action caused
    obs: Array  # input of the next action: next_obs, or the next episode's first observation
    start: Array  # bool: obs is the first of an episode
    # of arrays; of tensors, at which nobody has looked, all that may be
    real: int  # number of valid steps
    ended: bool  # whether an episode ended in any valid step
    checks: DeferredChecks = ()  # what the loop is to look at

    def cut(self, mask: np.ndarray, obs: Array) -> Outcome:
        """Truncate the episodes where `mask` [N] holds; new ones have begun with `obs`."""
        start, truncated = self.start | mask, self.truncated | mask
        return self._replace(obs=obs, start=start, truncated=truncated, ended=True)


@runtime_checkable
class Environments(Protocol):
    """The interface that the training loop needs of its environments."""

    num_envs: int
    seeds: list[int | None]
    single_observation_space: gym.Space
    single_action_space: gym.Space

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin new episodes everywhere; return the first observations [N, ...]."""

    def step(self, action: Array) -> Outcome:
        """Take one action in every environment [N, ...]."""

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Truncate the episodes where `mask` [N] holds and begin new ones there."""

    def answer(self) -> tuple[Array, Array]:
        """Return the right actions [N, ...] for the current `obs`, and where they are known [N].

        In the dtype of the action space, some action where they are not known. Nothing is drawn
        or changed. Raises UsageError where the environments tell no right answers.
        """

    def close(self) -> None:
        """Release the environments' resources."""


def adapt(envs: Any) -> Environments:
    """Return the Environments of a Gymnasium `Env` or `VectorEnv`; one is returned as it is."""
    if isinstance(envs, gym.vector.VectorEnv):  # EnvPool's are both
        return Vector(envs)
    if isinstance(envs, gym.Env):
        return Serial([envs])
    if isinstance(envs, Environments):
        return envs
    expected = "a Gymnasium Env or VectorEnv, or what seqrl.envs.make returns"
    raise UsageError(f"environments of type {type(envs).__name__}: expected {expected}")


class SeparateEnvs:
    """N single environments, each with a seed of its own."""

    unkept: str | None = None  # why their state cannot be kept, where that was looked at
    first = 0  # they are the `num_envs` from there on, `of` so many in all processes of a run

    def __init__(self, envs: list[Any]):
        self.envs = envs
        self.num_envs = self.of = len(envs)
        self.single_observation_space = envs[0].observation_space
        self.single_action_space = envs[0].action_space
        self.seeds: list[int | None] = [None] * self.num_envs
        owner = getattr(envs[0].spec, "id", None) or "environment"
        self._observations = observations(self.single_observation_space, owner)
        self._unbatch = batches.unbatcher(self.single_action_space)
        self._true, self._false = np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)
        self._true.flags.writeable = self._false.flags.writeable = False  # outcomes share them

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin new episodes everywhere; return the first observations [N, ...]."""
        if seed is not None:
            self.seeds = [*ints(seed, self.of)[self.first :][: self.num_envs]]
        return self._batch(self._reset_all(self.seeds if seed else [None] * self.num_envs))

    def step(self, action: Array) -> Outcome:
        """Take one action in every environment [N, ...]."""
        observations, rewards, terminations, truncations, done = [], [], [], [], []
        actions = self._unbatch(action)
        for i, env in enumerate(self.envs):
            try:
                obs, reward, terminated, truncated, _ = env.step(actions[i])
                if type(reward) not in NUMBERS:
                    reward = batches.number(reward)
                if not math.isfinite(reward):
                    raise RunError(f"reward {reward}")
                if terminated is not False or truncated is not False:
                    terminated = batches.flag("terminated", terminated)
                    truncated = batches.flag("truncated", truncated)
                    if terminated or truncated:
                        done.append(i)
            except Exception as error:
                problem = str(error) if isinstance(error, RunError) else explain(error)
                raise RunError(f"{self._name(i)}: {problem} at action {actions[i]}") from error
            observations.append(obs)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
        next_obs = self._batch(observations, actions)
        reward, n, none = np.array(rewards, REAL), self.num_envs, self._false
        if not done:
            return Outcome(next_obs, reward, none, none, self._true, next_obs, none, n, False)
        obs, start = self._reset_ended(done, observations)
        terminated, truncated = np.array(terminations, bool), np.array(truncations, bool)
        return Outcome(next_obs, reward, terminated, truncated, self._true, obs, start, n, True)

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Truncate the episodes where `mask` [N] holds and begin new ones there."""
        observations = [tree.take(outcome.obs, i) for i in range(self.num_envs)]
        return outcome.cut(mask, self._reset_ended(np.flatnonzero(mask).tolist(), observations)[0])

    def answer(self) -> tuple[Array, Array]:
        """Return the right actions [N, ...] for the current `obs`, and where they are known [N]."""
        told = self._told_all()
        try:
            return self._right.stack(told)
        except Misfit as error:
            raise RunError(f"{self._name(error.row or 0)}: {error}") from error

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _reset_all(self, seeds: list[int | None]) -> list[Any]:
        """Reset every environment; return the first observations."""
        return [self._reset_one(i, seed) for i, seed in enumerate(seeds)]

    def _reset_ended(self, indices: list[int], observations: list[Any]) -> tuple[Array, np.ndarray]:
        """Reset these environments; return the next observations [N, ...] and their starts [N]."""
        start = np.zeros(self.num_envs, bool)
        observations = list(observations)
        for i in indices:
            observations[i], start[i] = self._reset_one(i, None), True
        return self._batch(observations), start

    def _reset_one(self, i: int, seed: int | None) -> Any:
        try:
            return batches.first_obs(self.envs[i].reset(seed=seed))
        except UsageError:  # of its options, which it says itself
            raise
        except Exception as error:
            problem = str(error) if isinstance(error, RunError) else explain(error)
            raise RunError(f"{self._name(i)}: {problem} at its reset") from error

    def _told_all(self) -> list[Any]:
        """Return the right action in each environment, None where it is not known."""
        return [self._told_one(i) for i in range(self.num_envs)]

    def _told_one(self, i: int) -> Any:
        try:
            return self._tell(i)
        except UserError:
            raise
        except Exception as error:
            raise RunError(f"{self._name(i)}: {explain(error)} at its answer") from error

    def _tell(self, i: int) -> Any:
        return answers.told(self.envs[i])

    @cached_property
    def _right(self) -> answers.Answers:
        return answers.Answers(self.single_action_space, self._name(0))

    def _batch(self, observations: list[Any], actions: Any = None) -> Array:
        try:
            return self._observations.stack(observations)
        except Misfit as error:
            i = error.row or 0
            when = "at its reset" if actions is None else f"at action {actions[i]}"
            raise RunError(f"{self._name(i)}: {error} {when}") from error

    def _name(self, i: int) -> str:
        spec = self.envs[i].spec
        name = f"{spec.id} " if spec else ""
        return f"environment {name}{self.first + i} (seed {self.seeds[i]})"


class Serial(SeparateEnvs):
    """N single environments stepped one after the other; the least overhead for N = 1."""


class Vector:
    """A Gymnasium VectorEnv in any autoreset mode.

    In SAME_STEP Gymnasium's own vectors keep the last observation by reference until after the
    reset: it is lost where an environment reuses its observation buffer; use another mode.
    An AsyncVectorEnv casts observations to the dtype of their space in its processes, unseen.
    An error names the process of an AsyncVectorEnv that dies, but one that hangs is waited for;
    `Workers` detect both.
    """

    unkept: str | None = None  # as of SeparateEnvs

    def __init__(self, envs: gym.vector.VectorEnv):
        self.envs = envs
        self.num_envs = envs.num_envs
        self.single_observation_space = envs.single_observation_space
        self.single_action_space = envs.single_action_space
        self.seeds: list[int | None] = [None] * self.num_envs
        self._observations = observations(self.single_observation_space, self._name())
        self._raw = self._unstacked()
        self._clip = batches.clipper(self.single_action_space)
        own = gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv
        bare = envs.unwrapped
        self._separate = isinstance(bare, own)  # each has a seed and resets of its own
        self._takes_mask = getattr(envs, "takes_reset_mask", False)  # any, also one of no row
        mode = envs.metadata.get("autoreset_mode")
        if isinstance(bare, own):  # in Gymnasium 1.3 their metadata is that of the last one made
            mode = bare.autoreset_mode
        try:
            self.mode = AutoresetMode(mode)
        except ValueError as error:
            known = ", ".join(known.name for known in AutoresetMode)
            what = f"{type(envs).__name__}: metadata['autoreset_mode'] is {mode!r}"
            raise UsageError(f"{what}, expected one of {known}") from error
        self._filler: Array | None = None  # bool [N]: the next step only resets (NEXT_STEP)

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin new episodes everywhere; return the first observations [N, ...]."""
        self._filler = None
        seeds: Any = None
        if seed is not None:
            drawn = ints(seed, self.num_envs if self._separate else 1)
            seeds = drawn if self._separate else drawn[0]
            self.seeds = [*(drawn if self._separate else drawn * self.num_envs)]
        obs = self._reset(seed=seeds)
        self._checked(to_numpy(obs))  # bounds of reals on a device, which steps do not look at
        return obs

    def step(self, action: Array) -> Outcome:
        """Take one action in every environment [N, ...]."""
        try:
            obs, reward, terminated, truncated, info = self.envs.step(self._clip(action))
        except Exception as error:
            raise RunError(self._failure(error, action)) from error
        obs = self._checked(obs, action)
        reward, terminated, truncated = self._answers(obs, reward, terminated, truncated)
        done = terminated | truncated
        next_obs = self._final_observations(obs, info, done)
        told = info.get(DEFERRED, ()) if isinstance(info, dict) else ()
        checks = (*told, *self._check_later(reward, obs, next_obs))
        ended = batches.is_tensor(done) or bool(done.any())
        valid, count = done | True, self.num_envs
        if self._filler is not None:
            valid = ~self._filler
            count = count if batches.is_tensor(valid) else int(valid.sum())
        if self.mode is AutoresetMode.NEXT_STEP:
            start = ~valid
            self._filler = done if ended else None
            after = obs, start, count, ended, checks
            return Outcome(obs, reward, terminated, truncated, valid, *after)
        if ended and self.mode is AutoresetMode.DISABLED:
            if self._takes_mask or bool(done.any()):
                obs = self._reset(options={"reset_mask": done})
        elif ended and next_obs is obs:
            checks += require_not(done.any(), partial(self._refuse_final, None))
        after = obs, done, count, ended, checks
        return Outcome(next_obs, reward, terminated, truncated, valid, *after)

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Truncate the episodes where `mask` [N] holds and begin new ones there."""
        if not self._separate and not self._takes_mask:
            problem = "an episode outlasts the step limit and its rows cannot be reset one by one"
            remedy = "give the environment a time limit of its own"
            raise UsageError(f"{self._name()}: {problem}; {remedy}")
        obs = self._reset(options={"reset_mask": mask})
        if self._filler is not None:
            self._filler = self._filler & ~mask
        return outcome.cut(mask, obs)

    def answer(self) -> tuple[Array, Array]:
        """Return the right actions [N, ...] for the current `obs`, and where they are known [N]."""
        try:
            return self._told()
        except Misfit as error:
            raise RunError(f"{self._name(error.row)}: {error}") from error
        except UserError:
            raise
        except Exception as error:
            i, problem = failed_environment(self.envs.unwrapped, error)
            raise RunError(f"{self._name(i)}: {problem} at its answer") from error

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def _reset(self, **arguments: Any) -> Array:
        try:
            obs, _ = self.envs.reset(**arguments)
        except UsageError:
            raise
        except Exception as error:
            i, problem = failed_environment(self.envs.unwrapped, error)
            raise RunError(f"{self._name(i)}: {problem} at its reset") from error
        return self._checked(obs)

    def _told(self) -> tuple[Array, Array]:
        """Return what the VectorEnv tells, else each environment of one of Gymnasium's own."""
        if not self._separate or answers.teller(self.envs) is not None:
            action, known = self._right.check(answers.asked(self.envs).answer(), self.num_envs)
            return action, known if self._filler is None else known & ~self._filler
        answers.check_actions(self.envs, self.envs.unwrapped)
        return self._right.stack(self._told_separately(self.envs.unwrapped))

    def _told_separately(self, envs: Any) -> list[Any]:
        """Return the right action in each environment, None where it is not known or over.

        An AsyncVectorEnv asks all of its processes at once, those too whose episode is over.
        """
        over = np.zeros(self.num_envs, bool) if self._filler is None else self._filler
        if isinstance(envs, gym.vector.SyncVectorEnv):
            pairs = zip(envs.envs, over, strict=True)
            return [None if waits else answers.told(env) for env, waits in pairs]
        if not all(envs.call("has_wrapper_attr", "answer")):
            answers.refuse(self.envs)
        told = zip(envs.call("answer"), over, strict=True)
        return [None if waits else action for action, waits in told]

    @cached_property
    def _right(self) -> answers.Answers:
        return answers.Answers(self.single_action_space, self._name())

    def _unstacked(self) -> Any:
        """Return what checks the observations that Gymnasium stacks, where it would cut them."""
        envs: Any = self.envs.unwrapped
        if not isinstance(envs, gym.vector.SyncVectorEnv):
            return None
        raw = observations(envs.single_observation_space, self._name())
        return raw if raw.narrow else None

    def _checked(self, obs: Any, action: Any = None) -> Array:
        """Return observations [N, ...] of their space, copied; RunError names one that is not."""
        envs: Any = self.envs.unwrapped
        try:
            if self._raw is not None:
                self._raw.stack(envs._env_obs)
            return self._observations.check(obs, self.num_envs)
        except Misfit as error:
            when = "" if action is None else f" at actions {batches.brief(action)}"
            if action is not None and error.row is not None:
                when = f" at action {batches.brief(tree.take(action, error.row))}"
            raise RunError(f"{self._name(error.row)}: {error}{when}") from error

    def _answers(self, obs: Array, *answers: Any) -> tuple[Array, Array, Array]:
        """Return float rewards and bool flags [N], in the kind of `obs`."""
        reward, terminated, truncated = answers
        leaf = next(tree.leaves(obs))
        try:
            over = batches.flags("terminated", terminated, leaf)
            return batches.rewards(reward, leaf), over, batches.flags("truncated", truncated, leaf)
        except RunError as error:
            raise RunError(f"{self._name()}: {error}") from error

    def _final_observations(self, obs: Array, info: Any, done: Array) -> Array:
        """Return `obs` with the last observations of finished episodes put in their places.

        Only SAME_STEP has them. Gymnasium's own vectors give an object array with one observation
        a finished episode, a batched environment one tree of arrays; `obs` itself where none are.
        """
        final = info.get("final_obs") if isinstance(info, dict) else None
        if self.mode is not AutoresetMode.SAME_STEP or final is None:
            return obs
        try:
            if isinstance(final, list) or (
                isinstance(final, np.ndarray) and final.dtype.kind == "O"
            ):
                each = (final[i] if ended else tree.take(obs, i) for i, ended in enumerate(done))
                return self._observations.stack(list(each))
            last = tree.map(lambda old, new: where(done, new, old), obs, final)
            return self._observations.check(last, self.num_envs)
        except Misfit as error:
            raise RunError(f"{self._name(error.row)}: last {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError):
            self._refuse_final(final)

    def _refuse_final(self, final: Any) -> NoReturn:
        expected = "expected info['final_obs'], the last observations of episodes that ended"
        raise RunError(f"{self._name()} (SAME_STEP): {expected}, got {batches.brief(final)}")

    def _check_later(self, reward: Array, *seen: Array) -> DeferredChecks:
        """Refuse (RunError) numbers that are wrong, or return the check where a device knows."""
        wrong = ~(abs(batches.total(reward)) < math.inf)
        for obs in seen:
            for astray in self._observations.astray(obs):
                wrong = wrong | astray
        return require_not(wrong, partial(self._check_numbers, reward, *seen))

    def _check_numbers(self, reward: Array, *seen: Array) -> None:
        """Raise RunError for a reward that is not finite, or an observation not of its space."""
        for i, value in enumerate(reward.tolist()):
            if not math.isfinite(value):
                raise RunError(f"{self._name(i)}: reward {value} is not finite")
        for obs in seen:
            self._checked(to_numpy(obs))

    def _failure(self, error: Exception, action: Array) -> str:
        i, problem = failed_environment(self.envs.unwrapped, error)
        if i is None:
            return f"{self._name()}: {problem} at actions {batches.brief(action)}"
        return f"{self._name(i)}: {problem} at action {batches.brief(tree.take(action, i))}"

    def _name(self, i: int | None = None) -> str:
        name = getattr(getattr(self.envs, "spec", None), "id", None) or type(self.envs).__name__
        if i is None:
            return f"environments {name}"
        return f"environment {name} {i} (seed {self.seeds[i]})"
