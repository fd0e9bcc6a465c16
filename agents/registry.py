"""The agents by the names a user types; their modules are imported only when asked for."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from seqrl.core.errors import UsageError, closest
from seqrl.core.named_code import named_object


class Entry(NamedTuple):
    """What an agent is, in a line, and the `module:Class` of its forms."""

    line: str
    table: str = ""  # on a table; "" where there is none
    network: str = ""  # on a network
    numbers: Mapping[str, Any] = {}  # defaults of its own, where the class is another's too


AGENTS = {
    "q-learning": Entry(
        "off-policy TD control, table or network",
        "seqrl.agents.tabular.q_learning:QLearning",
        "seqrl.agents.deep.deep_q:DeepQ",
    ),
    "sarsa": Entry(
        "on-policy TD control, table or network",
        "seqrl.agents.tabular.sarsa:Sarsa",
        "seqrl.agents.deep.deep_sarsa:DeepSarsa",
    ),
    "monte-carlo": Entry(
        "whole returns, table or network",
        "seqrl.agents.tabular.monte_carlo:MonteCarlo",
        "seqrl.agents.deep.deep_monte_carlo:DeepMonteCarlo",
    ),
    "reinforce": Entry(
        "policy gradient on any network", network="seqrl.agents.deep.reinforce:Reinforce"
    ),
    "ppo": Entry("clipped policy gradient on any network", network="seqrl.agents.deep.ppo:PPO"),
    "a2c": Entry(
        "advantage actor-critic: ppo with one pass and no clipping",
        network="seqrl.agents.deep.ppo:PPO",
        numbers={"rollout": 8, "epochs": 1, "minibatches": 1, "clip": math.inf},
    ),
    "sac": Entry(
        "soft actor-critic: real actions, off policy, on a network",
        network="seqrl.agents.deep.sac:SAC",
    ),
    "imitate": Entry(
        "maximum likelihood of a teacher's answers, on any network",
        network="seqrl.agents.deep.imitation:Imitation",
    ),
}


NEAREST = {  # names of algorithms that are not here, or by another name
    **dict.fromkeys(("trpo", "impala"), "ppo"),
    **dict.fromkeys(("td3", "ddpg", "tqc", "redq", "crossq"), "sac"),
    **dict.fromkeys(("recurrent-ppo", "recurrentppo", "ppo-lstm"), "ppo with --network lstm"),
    **dict.fromkeys(("a3c", "actor-critic", "ac"), "a2c"),
    **dict.fromkeys(("vpg", "pg", "policy-gradient"), "reinforce"),
    **dict.fromkeys(("dqn", "ddqn", "double-dqn", "rainbow", "c51"), "q-learning on a --network"),
    **dict.fromkeys(("r2d2", "drqn"), "q-learning with --network lstm"),
    **dict.fromkeys(("mc", "montecarlo"), "monte-carlo"),
    **dict.fromkeys(("ql", "q", "qlearning", "td"), "q-learning"),
    "expected-sarsa": "sarsa with --expected",
    **dict.fromkeys(("imitation", "bc", "dagger", "behaviour-cloning"), "imitate"),
    **{
        name: f"imitate or ppo with --network {name}"
        for name in ("seq2seq", "hred", "vhred", "rnn", "lstm", "gru", "mlp", "cnn", "attention")
    },
    **{name: f"imitate with --network {name}" for name in ("autoencoder", "vae")},
}


def agent_class(name: str, network: bool = False) -> Any:
    """Return the class behind a name, on a network where one is asked for or needed.

    `module:Class` is that class. A misspelt name is refused (UsageError) with the closest.
    """
    if ":" in name:
        return own_class(name)
    if name not in AGENTS:
        known = ", ".join(AGENTS)
        near = name.lower().replace("_", "-")
        hint = f" Nearest here: {NEAREST[near]}." if near in NEAREST else closest(name, AGENTS)
        raise UsageError(f"unknown agent {name!r}.{hint} Known: {known}, or module:Class")
    entry = AGENTS[name]
    module, _, cls = (entry.network if network or not entry.table else entry.table).partition(":")
    return getattr(importlib.import_module(module), cls)


def carried_over(numbers: Mapping[str, Any], of: str, to: str) -> dict[str, Any]:
    """Return the numbers of an agent for another, which keeps those that are its own by name."""
    own = [AGENTS[name].numbers for name in (of, to) if name in AGENTS and of != to]
    return {k: x for k, x in numbers.items() if not any(k in defaults for defaults in own)}


def own_class(name: str) -> Any:
    """Return the class of the user's behind `module:Class`; UsageError where there is none."""
    cls = named_object(name, f"--agent {name}")
    if not isinstance(cls, type):
        raise UsageError(f"--agent {name}: expected a class, got {cls!r}")
    return cls


def on_network(name: str, network: bool = False) -> bool:
    """Return whether an agent is built on a network: where one is asked for or needed."""
    cls = agent_class(name, network)
    if ":" not in name:
        return network or not AGENTS[name].table
    parameter = inspect.signature(cls).parameters.get("network")
    if network and parameter is None:
        raise UsageError(f"--network: {name} has no argument network; leave it out")
    return parameter is not None and (network or parameter.default is parameter.empty)
