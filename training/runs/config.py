"""The whole config of a run from what is set of it, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.agents.arguments import agent_arguments
from seqrl.agents.factory import Config
from seqrl.agents.registry import AGENTS, agent_class, on_network
from seqrl.agents.tabular.tabular_agent import TabularAgent
from seqrl.agents.teachers import OBSERVATION
from seqrl.agents.word_vectors import EMBEDDING
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError, closest
from seqrl.envs.registry import TASKS, check_code, kept_options
from seqrl.envs.wrapping import named, with_reconstruction
from seqrl.training.runs.defaults import AUTO, DEFAULTS, WHOLE, flag_of
from seqrl.training.runs.elsewhere import here
from seqrl.training.runs.folder import config_text
from seqrl.training.runs.offline import complete_from_data, complete_offline
from seqrl.training.runs.teaching import locate_teacher
from seqrl.training.runs.warm_start import with_inherited

MOST_THREADS = 1_024
KINDS: dict[str, tuple[Any, str]] = dict.fromkeys(("agent", "env", "network"), (str, "a text"))
KINDS |= dict.fromkeys(("condition_on", "from"), (str, "a text"))
REALS = ("stop_at", "worker_timeout", "best_share", "target_return")
KINDS |= dict.fromkeys(REALS, (int | float | np.number, "a number"))
KINDS["dataset"] = (list, "a list of folders or ids")
SWITCHES = ("processes", "deterministic", "compile", "pictures", "normalize_obs")
KINDS |= dict.fromkeys(SWITCHES, (bool, "True or False"))
TABLES = ("env_args", "eval_env_args", "network_args", "bin_range", "agent_args")
KINDS |= dict.fromkeys(TABLES, (Mapping, "names and values"))


def complete(given: Mapping[str, Any]) -> Config:
    """Return the whole config of a run from what is set of it; UsageError in a line.

    Keys are those of a run's config.toml; what is not set, or None, is as the flags have it.
    """
    check_names(given)
    given = with_inherited(given)
    config = {**DEFAULTS, **{name: x for name, x in given.items() if x is not None}}
    check_values(config)
    complete_from_data(config, given)
    check_early_end(config)
    if config["seeds"] == 1:
        config["seeds"] = None
    if not config["processes"]:
        config["worker_timeout"] = None
    named(config["wrappers"])
    complete_env_args(config, config["env"].rpartition(":")[2])
    networked = on_network(config["agent"], bool(config["network"]))
    cls = agent_class(config["agent"], networked)
    complete_network(config, networked, issubclass(cls, TabularAgent))
    own = AGENTS[config["agent"]].numbers if config["agent"] in AGENTS else {}
    config["agent_args"] = agent_arguments(cls, {**own, **config["agent_args"]})
    locate_teacher(config["agent_args"])
    if config["agent_args"].get("teacher") == OBSERVATION:
        config["wrappers"] = with_reconstruction(config["wrappers"])
    locate_files(config)
    complete_offline(config, cls)
    return storable(config)


def check_names(given: Mapping[str, Any]) -> None:
    """Refuse what is no config, or sets what a run has not."""
    if not isinstance(given, Mapping):
        raise UsageError(f"config {given!r}: expected settings by name, as in {{'agent': 'ppo'}}")
    for name in given:
        if name not in DEFAULTS:
            all_of_them = " A run's config.toml shows them all"
            near = here(str(name)) or closest(str(name), DEFAULTS) or all_of_them
            raise UsageError(f"unknown setting {name!r}.{near}")


def check_values(config: Config) -> None:
    """Refuse values of another kind than the setting's; whole numbers become ints."""
    for name, value in config.items():
        if (value is None and DEFAULTS[name] is None) or (name == "eval_every" and value == AUTO):
            continue
        if name in WHOLE:
            config[name] = check_whole(flag_of(name), value, WHOLE[name])
        elif name in KINDS and not isinstance(value, KINDS[name][0]):
            raise UsageError(f"{flag_of(name)} {value!r}: expected {KINDS[name][1]}")
    if (config["threads"] or 0) > MOST_THREADS:
        raise UsageError(f"--threads {config['threads']:,}: expected at most {MOST_THREADS:,}")


def check_early_end(config: Config) -> None:
    """Refuse early stopping without evaluations."""
    never = config["eval_every"] in (AUTO, 0) or config["eval_episodes"] == 0
    for name in ("stop_at", "patience"):
        if config[name] is not None and never:
            raise UsageError(f"{flag_of(name)}: it looks at evaluations; add --eval-every 10000")


def complete_env_args(config: Config, env_id: str) -> None:
    """Add what a task of ours keeps with the run; refuse code that cannot be imported."""
    for table in ("env_args", "eval_env_args"):
        check_code(env_id, config[table])
    config["env_args"] = {**config["env_args"], **kept_options(env_id, config["env_args"])}


def locate_files(config: Config) -> None:
    """Name what our tasks and networks read by its whole path: a run may go on elsewhere."""
    ours = config["env"].rpartition(":")[2] in TASKS
    named = [("network_args", "model")] if config.get("network") == "causal-lm" else []
    if ":" not in (config.get("network") or ":"):
        named.append(("network_args", EMBEDDING))
    for option in ("path", "questions", "task_args") if ours else ():
        named += [("env_args", option), ("eval_env_args", option)]
    for table, option in named:
        config[table] = located(config[table], option)


def located(settings: dict[str, Any], option: str) -> dict[str, Any]:
    """Return settings in which the file that an option names has its whole path.

    The option may be a dict with the options of another task, whose file is its `path`.
    """
    value = settings.get(option)
    if isinstance(value, dict):
        return {**settings, option: located(value, "path")}
    if isinstance(value, str) and (path := Path(value).expanduser()).exists():
        return {**settings, option: str(path.absolute())}
    return settings


def complete_network(config: Config, networked: bool, table: bool) -> None:
    """Fill in the network's settings, and drop them without one; refuse what has no effect."""
    if not table:
        for name in ("bins", "bin_range", "tiles"):
            if config[name]:
                reason = "that is for tables, a network sees what there is"
                raise UsageError(f"{flag_of(name)}: {reason}")
    if networked:
        config["network"] = config["network"] or "mlp"
        return
    for name, flag in (("network_args", "--network-arg"), ("normalize_obs", "--normalize-obs")):
        if config[name]:
            found = f"{config['agent']} {'learns a table' if table else 'is on no network'} here"
            raise UsageError(f"{flag}: {found}; name a --network")
    for name in ("network", "network_args", "normalize_obs"):
        del config[name]


def storable(config: Config) -> Config:
    """Return a config with plain values; UsageError for what config.toml cannot hold."""
    for name, value in config.items():
        try:
            config_text({name: value})
        except (TypeError, ValueError) as error:
            expected = "numbers, texts, True, False, and lists or dicts of these"
            raise UsageError(f"{name} {value!r}: {error}; expected {expected}") from error
    return config
