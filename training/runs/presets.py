"""Presets: tuned settings of an agent, for an environment or for any, and what they reach."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from seqrl.agents.registry import AGENTS
from seqrl.core.errors import UsageError, closest
from seqrl.training.runs.defaults import AGENT, ENV

PRESETS = Path(__file__).with_name("presets.toml")
Settings = dict[str, Any]  # as in a run's config.toml


class Preset(NamedTuple):
    """Tuned settings of an agent for an environment, and the return they reached."""

    name: str
    agent: str
    env: str  # "" for any
    network: bool  # whether the agent is built on one
    reached: str
    command: str
    settings: Settings
    alias: bool = False  # whether its name is an agent's as well, as people know it

    @property
    def config(self) -> Settings:
        """Its settings as `run` takes them, with agent and, where it is for one, environment."""
        env = {"env": self.env} if self.env else {}
        return {"agent": self.agent, **env, **self.settings}


def presets() -> dict[str, Preset]:
    """Return all presets by name."""
    found = tomllib.loads(PRESETS.read_text(encoding="utf-8"))
    return {name: Preset(name=name, **{"env": "", **entry}) for name, entry in found.items()}


def preset(name: str) -> Preset:
    """Return the preset of a name; UsageError where there is none."""
    known = presets()
    if not isinstance(name, str) or name not in known:
        listed = ", ".join(known)
        raise UsageError(f"--preset {name}.{closest(str(name), known)} Known: {listed}, none")
    return known[name]


def fitting(given: Settings, name: str = "") -> Preset | None:
    """Return the preset that is named, else the one for the agent and environment given, if any."""
    if not name and given.get("from"):
        return presets().get(f"{given.get('agent', AGENT)}-from")
    if name == "none" or (given.get("dataset") and not name):  # presets are tuned for playing
        return None
    if name:
        found = preset(name)
        agent = given.get("agent", found.agent)
        if agent != found.agent:
            raise UsageError(f"--preset {name}: it is of --agent {found.agent}, not of {agent}")
        return found
    agent, env = given.get("agent", AGENT), given.get("env", ENV)
    network = bool(given.get("network")) or (agent in AGENTS and not AGENTS[agent].table)
    fits = agent, env, network
    return next((p for p in presets().values() if (p.agent, p.env, p.network) == fits), None)


def beneath(preset: Preset, given: Settings) -> Settings:
    """Return a preset's settings without those that given ones rule out, though of other names."""
    settings = {**preset.settings, "agent_args": dict(preset.settings.get("agent_args", {}))}
    if network := given.get("network"):
        own = settings.pop("network", network)
        if ":" in network or network != own:
            settings.pop("network_args", None)  # of another network
    if "temperature" in given.get("agent_args", {}):
        settings["agent_args"].pop("epsilon", None)
    return settings


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
