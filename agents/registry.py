"""The agents by the names a user types; their modules are imported only when asked for."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from seqrl.core import UsageError, closest


class Entry(NamedTuple):
    """Where an agent's class is and what it is, in a line."""

    module: str
    name: str
    line: str
    network: bool = False  # whether it is always built on one; else it is where one is named


AGENTS = {
    "q-learning": Entry(
        "seqrl.agents.tabular.q_learning", "QLearning", "off-policy TD control, table or network"
    ),
    "sarsa": Entry("seqrl.agents.tabular.sarsa", "Sarsa", "on-policy TD control, table or network"),
    "monte-carlo": Entry(
        "seqrl.agents.tabular.monte_carlo", "MonteCarlo", "whole returns, table or network"
    ),
    "reinforce": Entry(
        "seqrl.agents.deep.reinforce", "Reinforce", "policy gradient on any network", True
    ),
}


def agent_class(name: str, network: bool = False) -> Any:
    """The class behind a name, or what makes its form on a network with that form's defaults.

    A misspelt name is refused with the closest.
    """
    if name not in AGENTS:
        known = ", ".join(AGENTS)
        raise UsageError(f"unknown agent {name!r}.{closest(name, AGENTS)} Known: {known}")
    entry = AGENTS[name]
    if network and not entry.network:
        from seqrl.agents.deep.value_variants import on_network

        return on_network(name)
    return getattr(importlib.import_module(entry.module), entry.name)
