"""What every other room may import: the step, trees of arrays, errors, seeds. NumPy only."""

from seqrl.core import forms, tree
from seqrl.core.errors import RunError, UsageError, UserError, closest, explain
from seqrl.core.seeding import Streams, generator, get_rng_state, set_rng_state
from seqrl.core.types import Array, Decision, Metrics, State, Transition

__all__ = [
    "Array",
    "Decision",
    "Metrics",
    "RunError",
    "State",
    "Streams",
    "Transition",
    "UsageError",
    "UserError",
    "closest",
    "explain",
    "forms",
    "generator",
    "get_rng_state",
    "set_rng_state",
    "tree",
]
