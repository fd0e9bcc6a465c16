"""Seeds: one number determines a run; each part draws from an independent stream."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from seqrl.core import schema
from seqrl.core.checks import check_whole

Seed = int | np.random.SeedSequence | np.random.Generator | None


class Streams(NamedTuple):
    """Independent seed sequences, one for each part of a run that draws random numbers."""

    envs: np.random.SeedSequence
    agent: np.random.SeedSequence
    network: np.random.SeedSequence
    evaluation: np.random.SeedSequence

    @classmethod
    def of(cls, seed: int | np.random.SeedSequence | None) -> Streams:
        """Spawn the streams of `seed`, an int >= 0 (None draws one from the system)."""
        if not isinstance(seed, np.random.SeedSequence):
            seed = np.random.SeedSequence(check_seed(seed))
        return cls(*np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key).spawn(4))


def check_seed(seed: Any) -> int | None:
    """Return the seed as a Python int; UsageError for what is not a whole number >= 0."""
    return None if seed is None else check_whole("seed", seed, 0)


def generator(seed: Seed) -> np.random.Generator:
    """Return a new Generator (PCG64), or `seed` itself where it is one already."""
    if not isinstance(seed, np.random.Generator | np.random.SeedSequence):
        seed = check_seed(seed)
    return np.random.default_rng(seed)


def ints(seed: np.random.SeedSequence, n: int) -> list[int]:
    """Return N environment seeds as Python ints; seed + i would overlap between runs."""
    return [int(word) for word in seed.generate_state(n, np.uint64)]


def get_rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the Generator's state as plain values (JSON keeps its 128-bit integers exactly)."""
    return dict(rng.bit_generator.state)


def set_rng_state(rng: np.random.Generator, state: dict[str, Any]) -> None:
    """Restore the state of a Generator of the same kind (UsageError for another)."""
    with schema.loading("random numbers"):
        rng.bit_generator.state = state
        if repr(get_rng_state(rng)) != repr(state):  # NumPy truncates what is too large
            raise ValueError("no state of this generator")
