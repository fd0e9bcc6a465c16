"""Registration of our environments with Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium as gym

from seqrl.envs.batched import BatchedEnv, SingleEnv, Task
from seqrl.envs.tasks.acrobot import Acrobot
from seqrl.envs.tasks.adding import Adding
from seqrl.envs.tasks.binary_addition import BinaryAddition
from seqrl.envs.tasks.cart_pole import CartPole
from seqrl.envs.tasks.catch import Catch
from seqrl.envs.tasks.copy_memory import CopyMemory
from seqrl.envs.tasks.corpus import Corpus
from seqrl.envs.tasks.dialogue import Dialogue
from seqrl.envs.tasks.facts import Facts
from seqrl.envs.tasks.gates import Gates
from seqrl.envs.tasks.mountain_car import MountainCar
from seqrl.envs.tasks.next_token import NextToken
from seqrl.envs.tasks.options import with_options
from seqrl.envs.tasks.pendulum import Pendulum
from seqrl.envs.tasks.repeat_first import RepeatFirst
from seqrl.envs.tasks.repeat_previous import RepeatPrevious
from seqrl.envs.tasks.replies import Replies
from seqrl.envs.tasks.rewards import own_function
from seqrl.envs.tasks.samples import Samples
from seqrl.envs.tasks.tmaze import TMaze
from seqrl.envs.tasks.translate import Translate
from seqrl.envs.tasks.trees import Trees
from seqrl.envs.tasks.waves import Waves
from seqrl.envs.tasks.word_context import WordContext

TASKS: dict[str, type[Any]] = {
    "seqrl/Acrobot-v0": Acrobot,
    "seqrl/Adding-v0": Adding,
    "seqrl/BinaryAddition-v0": BinaryAddition,
    "seqrl/CartPole-v0": CartPole,
    "seqrl/Catch-v0": Catch,
    "seqrl/CopyMemory-v0": CopyMemory,
    "seqrl/Corpus-v0": Corpus,
    "seqrl/Dialogue-v0": Dialogue,
    "seqrl/Facts-v0": Facts,
    "seqrl/Gates-v0": Gates,
    "seqrl/MountainCar-v0": MountainCar,
    "seqrl/NextToken-v0": NextToken,
    "seqrl/Pendulum-v0": Pendulum,
    "seqrl/RepeatFirst-v0": RepeatFirst,
    "seqrl/RepeatPrevious-v0": RepeatPrevious,
    "seqrl/Samples-v0": Samples,
    "seqrl/TMaze-v0": TMaze,
    "seqrl/Translate-v0": Translate,
    "seqrl/Trees-v0": Trees,
    "seqrl/Waves-v0": Waves,
    "seqrl/WordContext-v0": WordContext,
}
BATCH_OPTIONS = ("max_episode_steps", "device", "autoreset_mode")  # of a BatchedEnv, not the task
CODE_OPTIONS = ("reward",)  # which may be module:function
NOT_RULES = (*BATCH_OPTIONS, "num_envs", "vectorization_mode")  # of a spec


def register_all() -> None:
    """Register our ids with Gymnasium; calling it again does nothing.

    A time limit is registered where a task has one: its own rules may never end an episode.
    """
    if "seqrl/FiniteMDP-v0" not in gym.registry:
        gym.register("seqrl/FiniteMDP-v0", entry_point="seqrl.envs.finite:FiniteMDP")
        garnet = "seqrl.envs.finite:garnet_mdp"
        gym.register("seqrl/Garnet-v0", entry_point=garnet, max_episode_steps=100)
    for env_id in TASKS.keys() - gym.registry:
        limit = getattr(TASKS[env_id], "time_limit", None)
        one, many = partial(single, env_id), partial(batch, env_id)
        gym.register(env_id, one, max_episode_steps=limit, vector_entry_point=many)


def task(env_id: str, **options: Any) -> Task:
    """Return the task of one of our ids; UsageError for an option it does not have."""
    return with_options(TASKS[env_id], env_id, options)


def rules_named(env_id: str, options: Mapping[str, Any]) -> Task | None:
    """Return the task of an id and its options, those of a batch among them; None for others."""
    if env_id not in TASKS:
        return None
    return task(env_id, **{k: v for k, v in options.items() if k not in NOT_RULES})


def kept_options(env_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a task keeps with a run (see `Task.kept`); none of other ids."""
    if not hasattr(TASKS.get(env_id), "kept"):
        return {}
    rules: Any = rules_named(env_id, options)
    found: dict[str, Any] = rules.kept()
    return found


def own_code(env_id: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of one of our ids that name code of the user's, which it imports."""
    found = {name: value for name, value in options.items() if name in CODE_OPTIONS}
    return {k: v for k, v in found.items() if env_id in TASKS and ":" in str(v)}


def check_code(env_id: str, options: Mapping[str, Any]) -> None:
    """Import what `own_code` finds; UsageError where that is no function."""
    for code in own_code(env_id, options).values():
        own_function(code)


def rules_of(env: Any) -> Task | None:
    """Return the task of an environment that was made by one of our ids; None for others."""
    spec: Any = getattr(env, "spec", None)
    name = getattr(spec, "id", None)  # which EnvPool's have not
    return None if name is None else rules_named(name, spec.kwargs)


def replies_of(envs: Any) -> Replies | None:
    """Return the task of environments that take replies token by token; None for others."""
    made = getattr(envs, "envs", None)
    env = made[0] if isinstance(made, list) else made
    rules = getattr(getattr(env, "unwrapped", None), "task", None)
    return rules if isinstance(rules, Replies) else None


def single(env_id: str, **options: Any) -> SingleEnv:
    """Return one environment: the entry point of `gymnasium.make`."""
    return SingleEnv(task(env_id, **options))


def batch(env_id: str, num_envs: int = 1, **options: Any) -> BatchedEnv:
    """Return N environments: the entry point of `gymnasium.make_vec`."""
    of_batch = {name: options.pop(name) for name in BATCH_OPTIONS if name in options}
    return BatchedEnv(task(env_id, **options), num_envs, **of_batch)
