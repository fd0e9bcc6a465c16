"""From the schema of an older checkpoint to the next one, step by step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from seqrl.core.moments import RewardScale
from seqrl.training.runs import folder as runs

Entries = dict[str, Any]
# entries of an agent on a network that 0.1 had not
NEW: Entries = {"turn_steps": 0, "reward_scale": RewardScale(0.0).state_dict()}


def from_1(saved: Entries) -> Entries:
    """Migrate schema 1, which was the state of the loop alone."""
    return {
        "schema": 2,
        "config": None,
        "versions": runs.versions(),
        "seconds": 0.0,
        "log": None,
        "random": {},
        "loop": {**saved, "owed": [], "metrics": {}, "callbacks": None},
    }


def from_2(saved: Entries) -> Entries:
    """Migrate schema 2, of version 0.1: an agent's entries had other names."""
    loop = saved.get("loop")
    agent = loop.get("agent") if isinstance(loop, dict) else None
    if isinstance(loop, dict) and isinstance(agent, dict):
        agent = {**agent_from_2(agent), "origin": 0}
        store = agent.get("store")
        if isinstance(store, dict) and "finished" in store:  # episodes
            agent["store"] = {**store, "older": None}
        saved = {**saved, "loop": {**loop, "agent": agent}}
    return {**saved, "schema": 3}


def from_3(saved: Entries) -> Entries:
    """Migrate schema 3, before there were action masks."""
    loop = saved.get("loop")
    agent = loop.get("agent") if isinstance(loop, dict) else None
    arrays = agent.get("arrays") if isinstance(agent, dict) else None
    if isinstance(loop, dict) and isinstance(agent, dict) and isinstance(arrays, dict):
        waiting: Any = arrays.get("action")
        forbidden = np.zeros((*np.shape(waiting), 0), np.bool_)
        agent = {**agent, "arrays": {**arrays, "forbidden": forbidden}}
        saved = {**saved, "loop": {**loop, "agent": agent}}
    return {**saved, "schema": 4}


def from_4(saved: Entries) -> Entries:
    """Migrate schema 4, before teachers told answers."""
    return {**without(saved, "answer", ("columns", "finished")), "schema": 5}


def from_5(saved: Entries) -> Entries:
    """Migrate schema 5, before networks were handed noise."""
    return {**without(saved, "noise", ("columns", "finished", "rows")), "schema": 6}


def without(saved: Entries, name: str, parts: tuple[str, ...]) -> Entries:
    """Return entries whose surplus rows, and these parts of the store, hold None by a name."""
    loop = saved.get("loop")
    if not isinstance(loop, dict):
        return saved
    loop = {**loop, "surplus": holding_none(loop.get("surplus"), name)}
    agent: Any = loop.get("agent")
    store = agent.get("store") if isinstance(agent, dict) else None
    if isinstance(store, dict) and not {"finished", "filled"}.isdisjoint(store):
        changed = {part: holding_none(store[part], name) for part in parts if part in store}
        loop["agent"] = {**agent, "store": {**store, **changed}}
    return {**saved, "loop": loop}


def holding_none(entries: Any, name: str) -> Any:
    """Return entries, or a list of them, with None by a name; others are left to their checks."""
    if isinstance(entries, list):
        return [holding_none(each, name) for each in entries]
    return {**entries, name: None} if isinstance(entries, dict) else entries


def agent_from_2(agent: Entries) -> Entries:
    """Return an agent's entries in schema 3; what is none of 0.1 is left to its checks."""
    if isinstance(agent.get("memory"), dict):  # a table
        agent = rename_keys(agent, {"memory": "arrays"})
        return {**agent, "arrays": rename_keys(agent["arrays"], {"rows": "active"})}
    if "learner" in agent and "experience" in agent:  # values on a network
        learner, others = agent["learner"] or {"updates": 0}, dict(agent)
        del others["learner"]
        others = rename_keys(others, {"experience": "store", "told": "last_numbers"})
        trained = {"values": (learner.get("values"), learner.get("optimizer"))}
        parts = parts_from_2(trained | {"target": (learner.get("target"), None)})
        return {"parts": parts, "updates": learner["updates"], **NEW, **others}
    if "modules" in agent and "optimizers" in agent:  # REINFORCE
        others = dict(agent)
        modules, optimizers = others.pop("modules"), others.pop("optimizers")
        parts = {name: (modules[name], optimizer) for name, optimizer in optimizers.items()}
        return {"parts": parts_from_2(parts), **others, **NEW, "batch_steps": 0.0}
    return agent


def parts_from_2(parts: dict[str, tuple[Entries | None, Any]]) -> Entries:
    """Return the weights and moments of parts; the last layer was named after what it gave."""
    both = ("policy", "value"), ("weight", "bias")
    ends = {f"{layer}.{leaf}": f"layer.{leaf}" for layer, leaf in product(*both)}
    return {
        name: {"weights": rename_keys(weights, ends), "optimizer": optimizer}
        for name, (weights, optimizer) in parts.items()
        if weights is not None
    }


def rename_keys(entries: Entries, names: dict[str, str]) -> Entries:
    """Return the entries in their order, those in `names` under their new name."""
    return {names.get(name, name): entry for name, entry in entries.items()}


MIGRATIONS: dict[int, Callable[[Entries], Entries]] = dict(
    enumerate((from_1, from_2, from_3, from_4, from_5), 1)
)
