"""Shared types, trees of arrays, errors, seeding and schemas; imports only NumPy."""

from seqrl.core import schema, tree
from seqrl.core.errors import RunError, UsageError, UserError, closest, explain
from seqrl.core.seeding import Streams, generator, get_rng_state, set_rng_state
from seqrl.core.types import Array, Batch, Decision, Metrics, State, Transition

__all__ = [
    "Array",
    "Batch",
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
    "generator",
    "get_rng_state",
    "schema",
    "set_rng_state",
    "tree",
]
