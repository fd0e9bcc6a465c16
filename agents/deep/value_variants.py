"""The value agents by their targets, as the command line shows them: only the flags that matter."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from seqrl.agents.deep.value_agent import ValueAgent
from seqrl.agents.deep.value_arguments import DEFAULTS

ON_POLICY = {"buffer_size", "learning_starts", "double", "priority", "importance"}
ON_POLICY |= {"sequence_length", "burn_in", "stored_state"}
UNUSED: dict[str, set[str]] = {
    "q-learning": {"expected"},
    "sarsa": ON_POLICY,
    "monte-carlo": ON_POLICY | {"expected", "n_step", "target_every", "target_rate"},
}


def on_network(target: str) -> Any:
    """A ValueAgent with that target; its signature has the target's own defaults."""
    made: Any = partial(ValueAgent, target=target)
    own, kept = DEFAULTS[target], []
    for name, parameter in inspect.signature(ValueAgent).parameters.items():
        if name not in UNUSED[target] | {"target"}:
            kept.append(parameter.replace(default=own.get(name, parameter.default)))
    made.__signature__ = inspect.Signature(kept)
    made.__name__, made.__doc__ = ValueAgent.__name__, ValueAgent.__doc__
    return made
