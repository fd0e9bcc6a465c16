"""A run as the teacher of another one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from seqrl.agents.protocol import Agent, Taught
from seqrl.agents.teachers import AgentTeacher
from seqrl.core.errors import UsageError, told_of
from seqrl.envs.registry import own_code
from seqrl.envs.wrapping import named
from seqrl.training.runs import folder as runs
from seqrl.training.runs.load import CODE
from seqrl.training.runs.policy import load
from seqrl.training.runs.presets import as_arguments

LOG = logging.getLogger("seqrl")


def locate_teacher(numbers: dict[str, Any]) -> None:
    """Name a teacher's folder among an agent's numbers by its whole path: a run may move on."""
    name = numbers.get("teacher")
    if isinstance(name, str) and name and Path(name).is_dir():
        numbers["teacher"] = str(Path(name).absolute())


def give_teacher(agent: Agent, config: dict[str, Any]) -> None:
    """Load the run that an agent is to imitate, where its config names one.

    Code of the user's that the teacher needs is imported where this run has the same. UsageError
    for a folder that is no run.
    """
    name = config["agent_args"].get("teacher")
    if not (isinstance(agent, Taught) and isinstance(name, str) and Path(name).is_dir()):
        return
    try:
        policy = load(name, **shared_code(config, runs.read_config(Path(name))))
    except UsageError as error:
        raise told_of("--teacher", name, error) from error
    if (theirs := named(policy.config.get("wrappers"))) != (ours := named(config.get("wrappers"))):
        found = f"it learned in {wrapped_in(theirs)}, here are {wrapped_in(ours)}"
        LOG.warning(
            "seqrl: --teacher %s: %s; what it is shown may mean something else", name, found
        )
    agent.teacher = AgentTeacher(policy.agent, policy.observation_space, policy.action_space)


def wrapped_in(wrappers: list[tuple[str, dict[str, Any]]]) -> str:
    """Return wrappers with their arguments as one would read them."""
    each = (f"{name}({as_arguments(args)})" for name, args in wrappers)
    return f"wrappers {', '.join(each)}" if wrappers else "no wrappers"


def shared_code(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return what two runs have in common of the settings that may import code."""
    same = {flag: config.get(flag) for flag in CODE if config.get(flag) == other.get(flag)}
    both = [[name for name, _ in named(x.get("wrappers"))] for x in (config, other)]
    args, others = (x.get("env_args") or {} for x in (config, other))
    code = {k: v for k, v in own_code(config["env"], args).items() if others.get(k) == v}
    return {**same, "wrappers": [name for name in both[0] if name in both[1]], "env_args": code}


def check_teacher_code(folder: Path, config: dict[str, Any], typed: Any) -> None:
    """Refuse a run, whose folder is not trusted, that asks code which nobody typed."""
    name = config["agent_args"].get("teacher")
    if isinstance(name, str) and ":" in name and name != typed:
        remedy = f"to allow it, add --agent {config['agent']} --teacher {name}"
        raise UsageError(f"{folder}: its teacher imports code; {remedy}")
