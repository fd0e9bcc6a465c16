"""Settings that are not typed: presets of ours, and files named by --config."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqrl.core import UsageError, closest
from seqrl.scripts.options import Parser, wanted

PRESETS = Path(__file__).with_name("presets.toml")
TABLES = {"env_args": "env_arg", "network_args": "network_arg", "bin_range": "bin_range"}
Settings = dict[str, Any]  # as in a run's config.toml


class Preset(NamedTuple):
    """Settings that were tuned, and what they were measured to reach."""

    name: str
    agent: str
    env: str  # "" for any
    network: bool  # whether the agent is built on one
    reached: str
    command: str
    settings: Settings

    def fits(self, agent: str, env: str, network: bool) -> bool:
        """Whether it was made for this pair."""
        return (self.agent, self.env, self.network) == (agent, env, network)


def presets() -> dict[str, Preset]:
    """All of them by name."""
    found = tomllib.loads(PRESETS.read_text(encoding="utf-8"))
    made = {name: Preset(name=name, **{"env": "", **entry}) for name, entry in found.items()}
    return made


def untyped(argv: Sequence[str]) -> tuple[Settings, str]:
    """What presets and --config say for a command line, and a line about the preset.

    What is in the file counts more than what is in the preset.
    """
    file = read_file(wanted(argv, "--config", ""), argv)
    preset = chosen(wanted(argv, "--preset", ""), argv, file)
    if preset is None:
        return file, ""
    kept = fitting(preset, argv, file)
    shown = ", ".join(f"{name}={value}" for name, value in plain(kept).items())
    ours = {**kept, "agent": preset.agent}
    return merged(ours, file), f"preset {preset.name} (--preset none leaves it out): {shown}"


def chosen(name: str, argv: Sequence[str], file: Settings) -> Preset | None:
    """The preset that is asked for, or that belongs to this agent and environment."""
    if name == "none":
        return None
    known = presets()
    if name:
        if name not in known:
            listed = ", ".join(known)
            raise UsageError(f"--preset {name}.{closest(name, known)} Known: {listed}, none")
        return known[name]
    agent = wanted(argv, "--agent", file.get("agent", "q-learning"))
    env = wanted(argv, "--env", file.get("env", "FrozenLake-v1"))
    network = agent == "reinforce" or bool(wanted(argv, "--network", file.get("network", "")))
    return next((one for one in known.values() if one.fits(agent, env, network)), None)


def fitting(preset: Preset, argv: Sequence[str], file: Settings) -> Settings:
    """A preset's settings without those that the rest of the command line makes void."""
    kept = {**preset.settings, "agent_args": dict(preset.settings.get("agent_args", {}))}
    network = wanted(argv, "--network", file.get("network", ""))
    if network:
        kept.pop("network", None)
    if ":" in network:
        kept.pop("network_args", None)  # they are for ours, not for one of the user's
    if wanted(argv, "--temperature", file.get("agent_args", {}).get("temperature", "")) != "":
        kept["agent_args"].pop("epsilon", None)
    return kept


def read_file(name: str, argv: Sequence[str]) -> Settings:
    """The settings of a TOML file in the form of a run's config.toml."""
    if not name:
        return {}
    try:
        found = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config {name}: {error}") from error
    for flag in ("agent", "env", "network"):
        code = found.get(flag, "")
        if not isinstance(code, str):
            raise UsageError(f"--config {name}: {flag} is {code!r}, expected a text")
        if ":" in code and wanted(argv, f"--{flag}", "") != code:
            raise UsageError(f"--config {name}: it imports code; to allow it, add --{flag} {code}")
    table("agent_args", found.get("agent_args", {}))
    return found


def merged(under: Settings, over: Settings) -> Settings:
    """The settings of both; those in `over` count more, of an agent's own ones each by itself."""
    own = {**under.get("agent_args", {}), **over.get("agent_args", {})}
    return {**under, **over, "agent_args": own}


def plain(settings: Settings) -> Settings:
    """The settings with the agent's own and the network's among the others."""
    flat: Settings = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def set_defaults(made: Parser, settings: Settings) -> None:
    """Make the settings the flags' defaults, so that what is typed counts more."""
    defaults: Settings = {}
    for name, value in settings.items():
        if name == "agent_args":
            defaults |= table(name, value)
        elif name in TABLES:
            defaults[TABLES[name]] = [
                (int(k) if name == "bin_range" else k, v) for k, v in table(name, value).items()
            ]
        elif name in SWITCHES:
            defaults[SWITCHES[name]] = not value
        else:
            defaults[name] = value
    check_known(made, defaults)
    made.set_defaults(**{name: as_typed(value) for name, value in defaults.items()})


SWITCHES = {"compile": "no_compile", "pictures": "no_pictures"}


def table(name: str, value: Any) -> Mapping[str, Any]:
    """The value, which has to be a table."""
    if not isinstance(value, dict):
        raise UsageError(f"--config: {name} is {value!r}, expected a table [{name}]")
    return value


def check_known(made: Parser, defaults: Settings) -> None:
    """Refuse what is no flag here."""
    known = {action.dest for action in made._actions} - {"help", "config", "preset", "resume"}
    for name in defaults:
        if name not in known:
            raise UsageError(f"--config: unknown setting {name}.{closest(name, known)}")


def as_typed(value: Any) -> Any:
    """A number as its text, which the flag reads and checks as if it had been typed."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
