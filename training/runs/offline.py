"""The settings of a run that learns from recorded episodes, and these as it learns from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.arguments import agent_parameters, toml_value
from seqrl.agents.experience.recording import Recording, together
from seqrl.agents.factory import Config
from seqrl.agents.teachers import OBSERVATION
from seqrl.core.arrays import as_float32
from seqrl.core.checks import check_amount, check_choice, check_whole
from seqrl.core.errors import UsageError
from seqrl.envs.reconstruction import given_back
from seqrl.envs.registry import own_code
from seqrl.envs.return_wanted import shown, shown_space
from seqrl.envs.wrapping import OURS, is_trusted, named
from seqrl.training.runs import minari_data, recordings
from seqrl.training.runs.defaults import DEFAULTS, flag_of

WANTED = f"{OURS}:ReturnWanted"
OF_DATA = ("best_share", "condition_on", "target_return")  # settings of recorded episodes alone
NOWHERE = "nothing is played but evaluations; leave it out"
USELESS = dict.fromkeys(("num_envs", "processes", "restart_workers"), NOWHERE)
USELESS["seeds"] = "a run of these has one seed; see `seqrl compare --seeds`"
FROM_DATA = ("env_args", "wrappers", "max_episode_steps")  # what was typed goes before
EVALUATED_IN = 16  # environments at most


class Returns(NamedTuple):
    """What all recorded episodes brought, and those that are learned from."""

    episodes: int
    best: float
    mean: float
    used: int
    least: float  # of those used

    def __str__(self) -> str:
        """As the end of a run tells it."""
        text = f"{self.episodes:,} recorded episodes: best return {self.best:.6g}"
        text += f", mean {self.mean:.6g}; learned from "
        share = f"{self.used / self.episodes:.0%}: returns of at least {self.least:.6g}"
        return text + ("all" if self.used == self.episodes else share)


def is_ours(name: str) -> bool:
    """Return whether a name is that of a folder of ours, else of Minari's."""
    return (Path(name) / recordings.HEADER).exists()


def load_recordings(*names: str | os.PathLike[str]) -> Recording:
    """Return the recorded episodes of folders that `seqrl record` has written, or of Minari's.

    Those are in its local format, by folder or by id. Nothing that a file holds is run. Raises
    UsageError, in a line, for what is damaged or of several environments.
    """
    return read([os.fspath(name) for name in names])


def read(names: Sequence[str]) -> Recording:
    """Return the recorded episodes of these folders, or ids of Minari's."""
    if not names:
        raise UsageError("recorded episodes: name at least one folder, or an id of Minari's")
    found = [recordings.read(Path(n)) if is_ours(n) else minari_data.read(n) for n in names]
    return together(found, names)


def complete_from_data(config: Config, given: Mapping[str, Any]) -> None:
    """Fill in what the recorded episodes say of their environment; what was typed goes before."""
    names = config["dataset"]
    if not names:
        for name in OF_DATA:
            if config[name] is not None:
                raise UsageError(f"{flag_of(name)}: it is of recorded episodes; add --dataset")
        return
    config["dataset"] = names = [str(Path(x).absolute()) if Path(x).exists() else x for x in names]
    name, about = names[0], read_about(names[0])
    config["env"] = named_env(name, about, given)
    told = {part: about[part] for part in FROM_DATA if about.get(part) is not None}
    check_told(name, config["env"], told, given)
    check_same_args(names, config["env_args"])
    config["env_args"] = {**told.pop("env_args", {}), **config["env_args"]}
    config |= {part: x for part, x in told.items() if given.get(part) is None}


def complete_offline(config: Config, cls: Any) -> None:
    """Refuse what has no effect on recorded episodes, and show the return wanted if asked to."""
    if config["dataset"]:
        check_useless(config, cls)
        condition(config)


def check_useless(config: Config, cls: Any) -> None:
    """Refuse settings that change nothing where nothing is played."""
    for name, reason in USELESS.items():
        if config[name] not in (None, DEFAULTS[name]):
            raise UsageError(f"{flag_of(name)} with --dataset: {reason}")
    own = agent_parameters(cls)
    for name in ("epsilon", "temperature"):
        usual = toml_value(own[name].default) if name in own else None
        if config["agent_args"].get(name) not in (None, usual):
            raise UsageError(f"--{name} with --dataset: nothing is explored; leave it out")
    if config["best_share"] is not None:
        check_amount("--best-share", config["best_share"])
        if not 0 < config["best_share"] <= 1:
            text = "expected a share of the episodes above 0, at most 1"
            raise UsageError(f"--best-share {config['best_share']}: {text}")


def read_about(name: str) -> dict[str, Any]:
    """Return what recorded episodes say of their environment."""
    if is_ours(name):
        return recordings.read_header(Path(name))
    return minari_data.read_about(name)


def named_env(name: str, about: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the environment that data name; UsageError where another, or code, is meant."""
    own, typed = about.get("env"), given.get("env")
    if own is None:
        if typed is None:
            raise UsageError(f"--dataset {name}: it names no environment; add --env")
        return str(typed)
    if typed is not None and str(typed).rpartition(":")[2] != str(own).rpartition(":")[2]:
        raise UsageError(f"--env {typed}: the episodes of {name} are of {own}; leave it out")
    if typed is None and ":" in str(own):
        raise UsageError(f"--dataset {name}: its env imports code; to allow it, add --env {own}")
    return str(own if typed is None else typed)


def check_told(name: str, env: str, told: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse what data say of their environment where it is none, or is code nobody typed."""
    typed, args = given.get("env_args") or {}, told.get("env_args", {})
    if not isinstance(args, dict):
        raise UsageError(f"--dataset {name}: env_args {args!r}: expected names and values")
    for option, code in own_code(env.rpartition(":")[2], args).items():
        if option not in typed:
            remedy = f"to allow it, add --env-arg {option}={code}"
            raise UsageError(f"--dataset {name}: its {option} imports code; {remedy}")
    if given.get("wrappers") is None:
        for wrapper, _ in named(told.get("wrappers")):
            if not is_trusted(wrapper):
                remedy = f"type its wrappers, as in --wrapper {wrapper}"
                raise UsageError(f"--dataset {name}: it imports code; {remedy}")
    check_whole(f"--dataset {name}: max_episode_steps", told.get("max_episode_steps", 1))


def check_same_args(names: Sequence[str], typed: Mapping[str, Any]) -> None:
    """Refuse data of several arguments of the environment, of which none is typed."""
    first, *others = (read_about(name).get("env_args") or {} for name in names)
    for other, name in zip(others, names[1:], strict=True):
        for option in sorted((first.keys() | other.keys()) - typed.keys()):
            if (here := other.get(option)) != (there := first.get(option)):
                found = f"its env_args have {option}={here}, those of {names[0]} {option}={there}"
                raise UsageError(f"--dataset {name}: {found}; add --env-arg {option}=VALUE")


def condition(config: Config) -> None:
    """Add the wrapper that shows the return wanted, which the best recorded one is by default.

    Recordings of an agent that was shown one have it already.
    """
    entry, target = wanted(config), config["target_return"]
    if config["condition_on"] is not None:
        check_choice("--condition-on", config["condition_on"], ("return",))
        if entry is None:
            entry = {"name": WANTED, "args": conditions(read(config["dataset"]))}
            config["wrappers"] = [*(config["wrappers"] or []), entry]
    if target is not None:
        if entry is None:
            raise UsageError("--target-return: the agent sees none; add --condition-on return")
        check_amount("--target-return", target, -np.inf)
        entry["args"]["target"] = float(target)


def conditions(made: Recording) -> dict[str, float]:
    """Return the best recorded return, and the largest that is still to come anywhere."""
    scale = float(abs(made.returns_to_go()).max()) or 1.0
    return {"target": float(made.returns.max()), "scale": scale}


def wanted(config: Mapping[str, Any]) -> Any:
    """Return the entry of a config's wrapper that shows the return wanted, None without one."""
    entries = config.get("wrappers") or []
    return next((entry for entry in entries if entry.get("name") == WANTED), None)


def with_target(config: Config, target: float) -> Config:
    """Return a config in which another return is wanted; UsageError where none is seen."""
    entry = wanted(config)
    if entry is None:
        reason = "the run's agent sees no return wanted"
        raise UsageError(f"--target-return {target:g}: {reason}; train with --condition-on return")
    check_amount("--target-return", target, -np.inf)
    other = {**entry, "args": {**entry["args"], "target": float(target)}}
    return {**config, "wrappers": [other if x is entry else x for x in config["wrappers"]]}


def learned_from(config: Config) -> tuple[Recording, Returns]:
    """Return the recorded episodes that a run learns from, and what they brought."""
    made = read(config["dataset"])
    returns, share = made.returns, config.get("best_share")
    used = made if share is None else made.best(share)
    if config["agent_args"].get("teacher") == OBSERVATION:
        space = given_back(used.observation_space)
        used = used._replace(action=as_float32(used.obs), action_space=space)
    if config.get("condition_on"):
        seen = used.returns_to_go()[:, None] / wanted(config)["args"].get("scale", 1.0)
        obs = shown(used.obs, seen.astype(np.float32))
        used = used._replace(obs=obs, observation_space=shown_space(used.observation_space))
    numbers = len(returns), float(returns.max()), float(returns.mean())
    return used, Returns(*numbers, len(used.length), float(used.returns.min()))
