"""Settings that are not flags: presets of ours, and files named by --config."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.agents.registry import AGENTS
from seqrl.core.errors import UsageError, closest
from seqrl.scripts.options import ALIASES, Parser, flag_value, normalized
from seqrl.training.runs.defaults import AGENT, ENV
from seqrl.training.runs.presets import Preset, Settings, preset, presets

TABLE_FLAGS = {"env_args": "env_arg", "network_args": "network_arg", "bin_range": "bin_range"}
TABLE_FLAGS |= {"eval_env_args": "eval_env_arg"}
NEGATED_FLAGS = {"compile": "no_compile", "pictures": "no_pictures"}


def expanded(argv: Sequence[str]) -> list[str]:
    """Return the flags with `--agent dqn` as the agent, network and preset known by this name."""
    name = flag_value(argv, "--agent", "")
    preset = presets().get(name)
    if preset is None or not preset.alias:
        return list(argv)
    more = ["--agent", preset.agent]
    if not flag_value(argv, "--network", ""):
        more += ["--network", preset.settings["network"]]
    return [*argv, *more, *([] if flag_value(argv, "--preset", "") else ["--preset", name])]


def default_settings(argv: Sequence[str]) -> tuple[Settings, str]:
    """Return the settings of preset and --config, which overrides it; and a line about it."""
    file = read_file(flag_value(argv, "--config", ""), argv)
    preset = choose_preset(flag_value(argv, "--preset", ""), argv, file)
    agent = flag_value(argv, "--agent", file.get("agent", preset.agent if preset else ""))
    own, given = own_numbers(agent, file)
    if preset is None:
        own |= given
        return {**file, **({"agent_args": own} if own else {})}, ""
    settings = applicable(preset, argv, file)
    chosen = {name: value for name, value in flatten(settings).items() if not typed(name, argv)}
    shown = ", ".join(f"{name}={value}" for name, value in chosen.items())
    agent_args = own | settings["agent_args"] | given
    merged = {**settings, "agent": preset.agent, **file, "agent_args": agent_args}
    return merged, f"preset {preset.name} (--preset none leaves it out): {shown}"


def typed(name: str, argv: Sequence[str]) -> bool:
    """Return whether a setting is typed, as a flag or as NAME=value behind one."""
    flag = "--" + name.replace("_", "-")
    words = {normalized(word).partition("=")[0] for word in argv}
    return not words.isdisjoint({flag, flag.replace("--", "--no-", 1), name})


def own_numbers(agent: str, file: Settings) -> tuple[Settings, Settings]:
    """Return an agent's own defaults, and the numbers of a file without another agent's own."""
    both = [AGENTS[name].numbers for name in (agent, file.get("agent", agent)) if name in AGENTS]
    given = file.get("agent_args", {})
    if file.get("agent", agent) != agent:
        given = {name: value for name, value in given.items() if not any(name in x for x in both)}
    return dict(both[0]) if agent in AGENTS else {}, given


def choose_preset(name: str, argv: Sequence[str], file: Settings) -> Preset | None:
    """Return the preset that is named, or the one for this agent and environment."""
    if name == "none":
        return None
    if not name and (file.get("dataset") or flag_value(argv, "--dataset", "")):
        return None  # they are tuned for playing
    if name:
        found = preset(name)
        agent = flag_value(argv, "--agent", file.get("agent", found.agent))
        if agent != found.agent:
            raise UsageError(f"--preset {name}: it is of --agent {found.agent}, not of {agent}")
        return found
    agent = flag_value(argv, "--agent", file.get("agent", AGENT))
    env = flag_value(argv, "--env", file.get("env", ENV))
    needed = agent in AGENTS and not AGENTS[agent].table
    network = needed or bool(flag_value(argv, "--network", file.get("network", "")))
    fits = agent, env, network
    return next((p for p in presets().values() if (p.agent, p.env, p.network) == fits), None)


def applicable(preset: Preset, argv: Sequence[str], file: Settings) -> Settings:
    """Return a preset's settings without those that flags and file rule out."""
    settings = {**preset.settings, "agent_args": dict(preset.settings.get("agent_args", {}))}
    network = flag_value(argv, "--network", file.get("network", ""))
    if network:
        settings.pop("network", None)
    if ":" in network:
        settings.pop("network_args", None)  # of our networks, not of the user's
    if flag_value(argv, "--temperature", file.get("agent_args", {}).get("temperature", "")) != "":
        settings["agent_args"].pop("epsilon", None)
    return settings


def read_file(name: str, argv: Sequence[str]) -> Settings:
    """Return the settings of a TOML file, which is like a run's config.toml."""
    if not name:
        return {}
    try:
        found = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        expected = "expected TOML, lines such as steps = 100000; a run's config.toml shows them all"
        raise UsageError(f"--config {name}: {error}; {expected}") from error
    for flag in ("agent", "env", "network"):
        code = found.get(flag, "")
        if not isinstance(code, str):
            raise UsageError(f"--config {name}: {flag} is {code!r}, expected a text")
        if ":" in code and flag_value(argv, f"--{flag}", "") != code:
            raise UsageError(f"--config {name}: it imports code; to allow it, add --{flag} {code}")
    as_table("agent_args", found.get("agent_args", {}))
    check_wrappers(name, found, argv)
    return found


def check_wrappers(name: str, found: Settings, argv: Sequence[str]) -> None:
    """Refuse wrappers of a file that are code nobody typed."""
    if not found.get("wrappers"):
        return
    from seqrl.envs.wrapping import is_trusted, named

    for wrapper, _ in named(found["wrappers"]):
        if not (is_trusted(wrapper) or flag_value(argv, "--wrapper", "")):
            remedy = f"type its wrappers, as in --wrapper {wrapper}"
            raise UsageError(f"--config {name}: it imports code; {remedy}")


def flatten(settings: Settings) -> Settings:
    """Return the settings without nesting: those in tables among the others."""
    flat: Settings = {}
    for name, value in settings.items():
        if name == "wrappers":
            flat[name] = " ".join(f"{x['name']}({as_arguments(x['args'])})" for x in value or ())
        else:
            flat |= value if isinstance(value, dict) else {name: value}
    return flat


def as_arguments(args: Settings) -> str:
    """Return arguments as one would type them."""
    return ", ".join(f"{name}={value}" for name, value in args.items())


def set_defaults(parser: Parser, settings: Settings) -> None:
    """Make the settings the defaults of the flags, which override them."""
    defaults: Settings = {}
    for name, value in settings.items():
        if name == "agent_args":
            defaults |= as_table(name, value)
        elif name in TABLE_FLAGS:
            defaults[TABLE_FLAGS[name]] = [
                (int(k) if name == "bin_range" else k, v) for k, v in as_table(name, value).items()
            ]
        elif name in NEGATED_FLAGS:
            defaults[NEGATED_FLAGS[name]] = not value
        else:
            defaults[name] = value
    check_known(parser, defaults)
    check_kinds(parser, settings.get("agent_args", {}))
    parser.set_defaults(**{name: as_text(value) for name, value in defaults.items()})


def as_table(name: str, value: Any) -> Mapping[str, Any]:
    """Return the value; raise UsageError if it is no table."""
    if not isinstance(value, dict):
        raise UsageError(f"--config: {name} is {value!r}, expected a table [{name}]")
    return value


def check_known(parser: Parser, defaults: Settings) -> None:
    """Refuse settings that are no flag."""
    known = {action.dest for action in parser._actions} - {"help", "config", "preset", "resume"}
    for name in defaults:
        if name not in known:
            meant = ALIASES.get("--" + name.replace("_", "-"), "").strip("-").replace("-", "_")
            hint = f" Here it is {meant}" if meant else closest(name, known)
            raise UsageError(f"--config: unknown setting {name}.{hint}")


def check_kinds(parser: Parser, agent_args: Settings) -> None:
    """Refuse true and false for what is no switch, and anything else for what is one."""
    switches = {x.dest for x in parser._actions if isinstance(x, argparse.BooleanOptionalAction)}
    for name, value in agent_args.items():
        kinds = (bool,) if name in switches else (int, float, str)
        if not isinstance(value, kinds) or (isinstance(value, bool) and name not in switches):
            expected = "true or false" if name in switches else "a number or a text"
            raise UsageError(f"--config: {name} is {value!r}, expected {expected}")


def as_text(value: Any) -> Any:
    """Return a number as text, which argparse converts and checks like a typed one."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
