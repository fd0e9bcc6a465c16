"""Making environments by Gymnasium id for the training loop."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium import error
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import TimeLimit

from seqrl.core.checks import check_choice, check_whole
from seqrl.core.errors import UsageError, UserError, closest, explain
from seqrl.core.named_code import import_named
from seqrl.envs.adapter import Environments, Serial, Vector
from seqrl.envs.batched import BatchedEnv, SingleEnv
from seqrl.envs.registry import rules_of
from seqrl.envs.workers import TIMEOUT, Workers
from seqrl.envs.wrapping import Wrap

LIMIT = 10_000  # environments stepped one by one
MODES = ("auto", "serial", "async")


def make(
    env: str,
    num_envs: int = 1,
    *,
    max_episode_steps: int | None = None,
    vectorization: str = "auto",
    worker_timeout: float = TIMEOUT,
    restart_workers: int = 0,
    wrappers: Sequence[Wrap] = (),
    **env_args: Any,
) -> Environments:
    """Return N environments of the Gymnasium id `env`.

    `max_episode_steps` truncates episodes, earlier than a limit of the environment's own.
    `vectorization`: "auto" takes the environment's batched version where there is one and else
    steps single ones in this process; "serial" always the latter; "async" gives each a process
    (see `Workers`): one that dies or does not answer for `worker_timeout` seconds ends the run,
    after up to `restart_workers` replacements in all. `wrappers` are classes or functions that take
    a single environment and return one, the outermost last; the steps of `max_episode_steps` are
    then theirs. `env_args` go to the environment.
    Raises UsageError for what cannot be made.
    """
    check_options(num_envs, max_episode_steps, vectorization, restart_workers)
    spec = find(env)
    if max_episode_steps is not None and not wrappers:
        env_args["max_episode_steps"] = max_episode_steps
    if wrappers and "device" in env_args:
        text = "wrappers are of single environments, a device has a batch of them; leave out one"
        raise UsageError(f"environment {env}: {text}")
    one = partial(single, spec, wrappers, max_episode_steps, env_args)
    try:
        if vectorization == "async":
            return Workers([one] * num_envs, timeout=worker_timeout, restarts=restart_workers)
        if vectorization == "auto" and is_batched(spec, num_envs, wrappers, env_args):
            return Vector(gym.make_vec(spec, num_envs, "vector_entry_point", **env_args))
        if num_envs > LIMIT:
            raise UsageError(f"num_envs {num_envs:,}: at most {LIMIT:,} are stepped one by one")
        return Serial([one() for _ in range(num_envs)])
    except UserError:
        raise
    except Exception as problem:
        refuse_unknown(spec, env_args)
        raise UsageError(f"environment {env} cannot be made: {explain(problem)}") from problem


def refuse_unknown(spec: EnvSpec, env_args: dict[str, Any]) -> None:
    """Raise UsageError for an argument that the environment's constructor does not take."""
    creator: Any = spec.entry_point
    try:
        made_by = load_env_creator(creator) if isinstance(creator, str) else creator
        known = inspect.signature(made_by).parameters
    except Exception:  # nothing to be called, or nothing that tells
        return
    others = {"max_episode_steps", *inspect.signature(gym.make).parameters}
    takes_all = any(each.kind is each.VAR_KEYWORD for each in known.values())
    for name in env_args:
        if not (name in known or name in others or takes_all):
            listed, hint = ", ".join(known), closest(name, known)
            raise UsageError(f"{spec.id} has no argument {name!r}, it has {listed}.{hint}")


def is_batched(spec: EnvSpec, n: int, wrappers: Sequence[Wrap], env_args: dict[str, Any]) -> bool:
    """Return whether N environments are taken as a batch, which has one seed for all of them."""
    batched = (n > 1 or "device" in env_args) and not wrappers
    return batched and spec.vector_entry_point is not None


def single(
    spec: EnvSpec, wrappers: Sequence[Wrap], limit: int | None, env_args: dict[str, Any]
) -> gym.Env[Any, Any]:
    """Return one environment inside its wrappers, which a step limit counts the steps of."""
    env = gym.make(spec, **env_args)
    for wrap in wrappers:
        env = wrap(env)
    return TimeLimit(env, limit) if wrappers and limit is not None else env


def check_options(n: int, limit: int | None, vectorization: str, restarts: int) -> None:
    """Raise UsageError for options that are out of range or contradict each other."""
    check_whole("num_envs", n)
    if limit is not None and limit < 1:
        raise UsageError(f"max_episode_steps {limit!r}: expected at least 1")
    check_choice("vectorization", vectorization, MODES)
    if restarts and vectorization != "async":
        text = "there are no processes to replace; give each environment one"
        raise UsageError(f"restart_workers {restarts!r}: {text}, vectorization='async'")


PACKAGES = {  # where ids come from that Gymnasium itself does not have, by how they begin
    "ALE/": ' It is Atari\'s: pip install "seqrl[atari]", then --env ale_py:{}',
    "MiniGrid-": ' It is MiniGrid\'s: pip install "seqrl[envs]", then --env minigrid:{}',
    "BabyAI-": ' It is MiniGrid\'s: pip install "seqrl[envs]", then --env minigrid:{}',
    "popgym-": " It is POPGym's: pip install popgym, then --env popgym:{}",
}


def find(env: str) -> EnvSpec:
    """Return the registered spec of an id; UsageError with a hint for an unknown one.

    "module:Name-v0" imports the module first, which registers the id.
    """
    module, _, name = env.rpartition(":")
    try:
        if module:
            import_named(module)
    except Exception as problem:
        text = f"environment {env}: module {module!r} cannot be imported: {explain(problem)}"
        raise UsageError(text) from problem
    try:
        return gym.spec(name)
    except error.DeprecatedEnv as problem:
        raise UsageError(f"environment {env} is outdated: {explain(problem)}") from problem
    except error.Error as problem:
        start = next((start for start in PACKAGES if name.startswith(start) and not module), "")
        hint = PACKAGES[start].format(name) if start else closest(name, gym.registry)
        hint = hint or " `seqrl list` shows those there are."
        raise UsageError(f"unknown environment {env!r}.{hint}") from problem


def may_never_end(envs: Environments) -> bool:
    """Return whether nothing bounds an episode: no step limit and no rule that always ends it."""
    spec = getattr(first_of(envs), "spec", None)
    ends = getattr(spec, "id", None) == "Blackjack-v1" or horizon(envs) is not None
    return time_limit(envs) is None and not ends


def horizon(envs: Environments) -> int | None:
    """Return the steps after which the rules of one of our tasks end every episode, or None."""
    inner = first_of(envs)
    bare = getattr(inner, "unwrapped", None)
    rules = bare.task if isinstance(bare, BatchedEnv | SingleEnv) else rules_of(inner)
    return None if rules is None else rules.horizon


def first_of(envs: Environments) -> Any:
    """Return the first environment, or the VectorEnv, inside the adapter."""
    inner = getattr(envs, "envs", None)
    return inner[0] if isinstance(inner, list) else inner


def time_limit(envs: Environments) -> int | None:
    """Return the steps after which episodes are truncated; None where no limit is known."""
    inner = first_of(envs)
    spec = getattr(inner, "spec", None)
    # a batched environment has its own limit, its spec only the registered one
    limit = getattr(inner, "max_episode_steps", None) or getattr(spec, "max_episode_steps", None)
    return int(limit) if limit else None
