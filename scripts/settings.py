"""Settings that are not flags: presets of ours, and files named by --config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from seqrl.agents.registry import AGENTS
from seqrl.core.errors import UsageError, closest
from seqrl.scripts.options import Parser, flag_value, flag_values, normalized
from seqrl.training.runs.defaults import flag_of
from seqrl.training.runs.elsewhere import here
from seqrl.training.runs.presets import Settings, beneath, fitting, presets

TABLE_FLAGS = {"env_args": "env_arg", "network_args": "network_arg", "bin_range": "bin_range"}
TABLE_FLAGS |= {"eval_env_args": "eval_env_arg"}
NEGATED_FLAGS = {"compile": "no_compile", "pictures": "no_pictures"}


def expanded(argv: Sequence[str]) -> list[str]:
    """Return the flags with `--agent dqn` as the agent, network and preset known by this name."""
    name = flag_value(argv, "--agent")
    preset = presets().get(name)
    if preset is None or not preset.alias:
        return list(argv)
    more = ["--agent", preset.agent]
    if not flag_value(argv, "--network"):
        more += ["--network", preset.settings["network"]]
    return [*argv, *more, *([] if flag_value(argv, "--preset") else ["--preset", name])]


def default_settings(argv: Sequence[str]) -> tuple[Settings, str]:
    """Return the settings of preset and --config, which overrides it; and a line about it."""
    names = ("agent", "env", "network", "dataset")
    words = {name: flag_value(argv, f"--{name}") for name in names}
    chosen = {name: word for name, word in words.items() if word}
    file = read_file(flag_value(argv, "--config"), argv, chosen)
    given = {**file, **chosen}
    if temperature := flag_value(argv, "--temperature"):
        given["agent_args"] = {**file.get("agent_args", {}), "temperature": temperature}
    preset = fitting(given, flag_value(argv, "--preset"))
    agent = given.get("agent", preset.agent if preset else "")
    own, numbers = own_numbers(agent, file)
    if preset is None:
        own |= numbers
        return {**file, **({"agent_args": own} if own else {})}, ""
    settings = beneath(preset, given)
    said = {name: value for name, value in flatten(settings).items() if not typed(name, argv)}
    shown = ", ".join(f"{name}={value}" for name, value in said.items())
    agent_args = own | settings["agent_args"] | numbers
    merged = {**settings, "agent": preset.agent, **file, "agent_args": agent_args}
    return merged, f"preset {preset.name} (--preset none leaves it out): {shown}"


def read_file(name: str, argv: Sequence[str], chosen: Settings) -> Settings:
    """Return the settings of a file; those typed, in whose place they are, may import code."""
    if not name:
        return {}
    from seqrl.training.runs.config_file import config_file

    pairs = [*flag_values(argv, "--env-arg"), *flag_values(argv, "--eval-env-arg")]
    args = {name: value for name, _, value in (word.partition("=") for word in pairs)}
    wrappers: Settings = {"wrappers": []} if flag_values(argv, "--wrapper") else {}
    return config_file(name, {**chosen, **wrappers, "env_args": args})


def typed(name: str, argv: Sequence[str]) -> bool:
    """Return whether a setting is typed, as a flag or as NAME=value behind one."""
    flag = flag_of(name)
    words = {normalized(word).partition("=")[0] for word in argv}
    return not words.isdisjoint({flag, flag.replace("--", "--no-", 1), name})


def own_numbers(agent: str, file: Settings) -> tuple[Settings, Settings]:
    """Return an agent's own defaults, and the numbers of a file without another agent's own."""
    both = [AGENTS[name].numbers for name in (agent, file.get("agent", agent)) if name in AGENTS]
    given = file.get("agent_args", {})
    if file.get("agent", agent) != agent:
        given = {name: value for name, value in given.items() if not any(name in x for x in both)}
    return dict(both[0]) if agent in AGENTS else {}, given


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
            defaults |= value
        elif name in TABLE_FLAGS:
            defaults[TABLE_FLAGS[name]] = list(value.items())
        elif name in NEGATED_FLAGS:
            defaults[NEGATED_FLAGS[name]] = not value
        else:
            defaults[name] = value
    check_known(parser, defaults)
    check_kinds(parser, settings.get("agent_args", {}))
    parser.set_defaults(**{name: as_text(value) for name, value in defaults.items()})


def check_known(parser: Parser, defaults: Settings) -> None:
    """Refuse settings that are no flag."""
    known = {action.dest for action in parser._actions} - {"help", "config", "preset", "resume"}
    for name in defaults:
        if name not in known:
            hint = here(name) or closest(name, known)
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
