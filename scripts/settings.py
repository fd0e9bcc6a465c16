"""Settings that are not flags: presets of ours, and files named by --config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqrl.agents.registry import AGENTS, carried_over
from seqrl.core.errors import UsageError, closest
from seqrl.scripts.options import Parser, flag_value, flag_values, normalized
from seqrl.scripts.values import run_or_none
from seqrl.training.runs.defaults import flag_of
from seqrl.training.runs.elsewhere import here
from seqrl.training.runs.presets import Settings, beneath, fitting, flatten, presets

# what every run's config.toml names: of such a file, what it leaves out is meant to be left out
OF_A_RUN = {"agent", "env", "steps", "num_envs", "env_args", "agent_args", "compile"}
GOES_ON = "it goes on imitating, as --from RUN did; --agent reinforce or ppo learns by reward"


def expanded(argv: Sequence[str]) -> list[str]:
    """Return the flags with `--agent dqn` as the agent, network and preset known by this name."""
    name = flag_value(argv, "--agent")
    preset = presets().get(name)
    if preset is None or not preset.alias:
        return list(argv)
    more = ["--agent", preset.agent]
    if not (flag_value(argv, "--network") or source_run(argv)):
        more += ["--network", preset.settings["network"]]
    return [*argv, *more, *([] if flag_value(argv, "--preset") else ["--preset", name])]


def default_settings(argv: Sequence[str]) -> tuple[Settings, str]:
    """Return the settings of preset and --config, which overrides it; and a line about it."""
    names = ("agent", "env", "network", "dataset")
    words = {name: flag_value(argv, f"--{name}") for name in names}
    chosen = {name: word for name, word in words.items() if word}
    if flag_values(argv, "--from"):
        chosen["from"] = source_run(argv)
    file = read_file(flag_value(argv, "--config"), argv, chosen)
    named = {**file, **chosen}
    file, base = begun_from(named, file, argv)
    given = {**file, **chosen}
    if temperature := flag_value(argv, "--temperature"):
        given["agent_args"] = {**file.get("agent_args", {}), "temperature": temperature}
    same_run = file.keys() >= OF_A_RUN and all(file.get(x) == chosen[x] for x in chosen)
    apart = same_run or knows_no_policy(given.get("from"))
    preset = fitting(given, flag_value(argv, "--preset", "none" if apart else ""))
    agent = given.get("agent", preset.agent if preset else "")
    own = dict(AGENTS[agent].numbers) if agent in AGENTS else {}
    numbers = carried_over(file.get("agent_args", {}), file.get("agent", agent), agent)
    if preset is None:
        own |= numbers
        on = "agent" not in named and agent == "imitate" and bool(given.get("from"))
        return {**base, **file, **({"agent_args": own} if own else {})}, GOES_ON if on else ""
    settings = beneath(preset, given)
    told = {*file, *numbers}
    flat = {name: x for name, x in flatten(settings).items() if name not in told}
    said = {name: value for name, value in flat.items() if not typed(name, argv)}
    shown = ", ".join(f"{name}={value}" for name, value in said.items())
    note = f"preset {preset.name} (--preset none leaves it out): {shown}" if said else ""
    agent_args = own | settings["agent_args"] | numbers
    merged = {**base, **settings, "agent": preset.agent, **file, "agent_args": agent_args}
    return merged, note


def read_file(name: str, argv: Sequence[str], chosen: Settings) -> Settings:
    """Return the settings of a file; those typed, in whose place they are, may import code."""
    if not name:
        return {}
    from seqrl.training.runs.config_file import config_file

    args = {**typed_pairs(argv, "--env-arg"), **typed_pairs(argv, "--eval-env-arg")}
    wrappers: Settings = {"wrappers": []} if flag_values(argv, "--wrapper") else {}
    return config_file(name, {**chosen, **wrappers, "env_args": args})


def begun_from(given: Settings, file: Settings, argv: Sequence[str]) -> tuple[Settings, Settings]:
    """Return a file's settings with what `--from RUN` brings, and what a preset may change."""
    if not given.get("from"):
        return file, {}
    from seqrl.training.runs.warm_start import inherited

    if wrappers := flag_values(argv, "--wrapper"):
        given = {**given, "wrappers": [{"name": name, "args": {}} for name in wrappers]}
    args = {**given.get("env_args", {}), **typed_pairs(argv, "--env-arg")}
    found = inherited(Path(given["from"]), {**given, "env_args": args})
    base = {name: found.pop(name) for name in ("num_envs",) if name in found and name not in file}
    return {**file, **found}, base


def knows_no_policy(source: Any) -> bool:
    """Return whether the run that one begins from has learned observations alone, not to act."""
    if not source:
        return False
    from seqrl.training.runs.warm_start import learned_observations

    return learned_observations(source)


def source_run(argv: Sequence[str]) -> str:
    """Return the run that is typed to begin from, "" for none."""
    return run_or_none(flag_value(argv, "--from")) or ""


def typed_pairs(argv: Sequence[str], flag: str) -> Settings:
    """Return the texts that are typed as K=V after a flag, by K."""
    parts = (word.partition("=") for word in flag_values(argv, flag))
    return {name: value for name, _, value in parts}


def typed(name: str, argv: Sequence[str]) -> bool:
    """Return whether a setting is typed, as a flag or as NAME=value behind one."""
    flag = flag_of(name)
    words = {normalized(word).partition("=")[0] for word in argv}
    return not words.isdisjoint({flag, flag.replace("--", "--no-", 1), name})


def set_defaults(parser: Parser, settings: Settings) -> None:
    """Make the settings the defaults of the flags, which override them."""
    defaults = {name: value for name, value in settings.items() if name != "agent_args"}
    defaults |= settings.get("agent_args", {})
    known = {action.dest for action in parser._actions} - {"help", "config", "preset", "resume"}
    for name in defaults:
        if name not in known:
            hint = here(name) or closest(name, known)
            raise UsageError(f"--config: unknown setting {name}.{hint}")
    parser.set_defaults(**{name: as_text(value) for name, value in defaults.items()})


def as_text(value: Any) -> Any:
    """Return a number as text, which argparse converts and checks like a typed one."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
