"""Presets: tuned settings of an agent, for an environment or for any, and what they reach."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from seqrl.core.errors import UsageError, closest

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
