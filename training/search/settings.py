"""The settings of a search's runs: values set in a config, and evaluations where a pruner looks."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from seqrl.agents.arguments import agent_parameters
from seqrl.agents.factory import Config
from seqrl.agents.registry import agent_class, on_network
from seqrl.core.errors import UsageError, closest
from seqrl.training.comparison.missing import Planned
from seqrl.training.runs.config import complete
from seqrl.training.runs.defaults import AGENT, AUTO, DEFAULTS, literal
from seqrl.training.runs.parts import build
from seqrl.training.search.space import Range, Values
from seqrl.training.search.study import RUNGS

EVAL_EPISODES = 10  # an evaluation that a pruner looks at, where nobody asked for others


def first_of(space: Mapping[str, Range]) -> Values:
    """Return the first value of each range."""
    return {name: each.ends[0] for name, each in space.items()}


def with_values(config: Mapping[str, Any], values: Values) -> Config:
    """Return a config with values set by name: its own settings, the agent's, the network's.

    UsageError for a name that none of them has.
    """
    chosen = {name: literal(text) for name, text in values.items()}
    own = {name: value for name, value in chosen.items() if name in DEFAULTS}
    found = {**config, **own}
    agent, network = found.get("agent") or AGENT, bool(found.get("network"))
    networked = on_network(agent, network)
    numbers = agent_parameters(agent_class(agent, network))
    tables = {"agent_args": dict(found.get("agent_args") or {})}
    tables["network_args"] = dict(found.get("network_args") or {})
    for name, value in chosen.items():
        if name in numbers:
            tables["agent_args"][name] = value
        elif name not in own and networked:
            tables["network_args"][name] = value
        elif name not in own:
            hint = closest(name, [*numbers, *DEFAULTS])
            raise UsageError(f"{name}: no setting has this name.{hint}")
    return found | {name: table for name, table in tables.items() if table}


def planned_of(config: Mapping[str, Any], values: Values) -> Planned:
    """Return the run of a config with values set; UsageError where there is none."""
    name = ",".join(f"{key}={value}" for key, value in values.items())
    found = complete(with_values({"pictures": False, **config}, values))
    return Planned(name, f"{found['agent']},{name}", found)


def checked(plan: Callable[[Values], Planned], space: Mapping[str, Range]) -> Config:
    """Return the config of a space's first values; UsageError for an end that no run takes."""
    first = first_of(space)
    for name, each in space.items():
        for end in each.ends:
            try:
                build(plan({**first, name: end}).config).envs.close()
            except UsageError as error:
                raise UsageError(f"search {name}={end}: {error}") from error
    return plan(first).config


def looks(
    config: Mapping[str, Any], given: Container[str], metric: str, pruner: str, seeds: int
) -> dict[str, int]:
    """Return the settings by which a run is evaluated where a pruner looks, if nobody chose others.

    given: the settings that somebody chose. seeds: runs of a trial.
    """
    if pruner == "none" or metric != "eval_mean_reward" or config["eval_every"] != AUTO:
        return {}
    every = min(-(-config["steps"] * seeds // RUNGS), config["steps"])
    fewer = {} if "eval_episodes" in given else {"eval_episodes": EVAL_EPISODES}
    return {"eval_every": every, **fewer}
