"""The settings of a run, and what each is where nothing sets it: the flags' defaults too."""

from __future__ import annotations

import ast
from typing import Any

AGENT, ENV = "q-learning", "FrozenLake-v1"
AUTO = "auto"
DEFAULTS: dict[str, Any] = {
    "agent": AGENT,
    "env": ENV,
    "steps": 300_000,
    "episodes": None,
    "num_envs": 1,
    "max_episode_steps": None,
    "seed": 0,
    "eval_every": AUTO,
    "eval_episodes": None,
    "patience": None,
    "checkpoint_every": None,
    "bins": None,
    "tiles": None,
    "restart_workers": 0,
    "seeds": 1,
    "threads": None,
    "processes": False,
    "worker_timeout": 60.0,
    "stop_at": None,
    "deterministic": False,
    "compile": True,
    "pictures": True,
    "env_args": {},
    "eval_env_args": {},
    "wrappers": None,
    "network": None,
    "network_args": {},
    "normalize_obs": False,
    "bin_range": {},
    "from": None,
    "dataset": None,
    "best_share": None,
    "condition_on": None,
    "target_return": None,
    "agent_args": {},
}
WHOLE = {"steps": 1, "episodes": 1, "num_envs": 1, "max_episode_steps": 1, "seed": 0}
WHOLE |= {"eval_every": 0, "eval_episodes": 0, "patience": 1, "checkpoint_every": 1}
WHOLE |= {"bins": 1, "tiles": 1, "restart_workers": 0, "seeds": 1, "threads": 1}  # least values

EVAL_EPISODES = 100  # where nothing sets them, or fewer: see `RunParts.evaluator`


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def literal(text: str) -> Any:
    """Return the text as a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
