"""Seeds: one number determines a run; each part draws from an independent stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seqrl.core import schema
from seqrl.core.checks import check_whole

if TYPE_CHECKING:
    import torch

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
    """Return N environment seeds as Python ints; seed + i would overlap between runs.

    They fit a signed 32-bit integer, the narrowest kind that simulators take.
    """
    return [int(word) >> 1 for word in seed.generate_state(n, np.uint32)]


def torch_generator(seed: Seed, device: Any = "cpu") -> torch.Generator:
    """Return a new generator of torch's on that device; a NumPy Generator is drawn from."""
    import torch

    return torch.Generator(device).manual_seed(int(generator(seed).integers(2**62)))


@contextmanager
def drawing_from(rng: torch.Generator) -> Iterator[None]:
    """Let what takes no generator, such as dropout or a new layer, draw from this one."""
    import torch

    shared = torch.default_generator
    if rng.device.type == "cuda":
        shared = torch.cuda.default_generators[rng.device.index or 0]
    before = shared.get_state()
    shared.set_state(rng.get_state())
    try:
        yield
    finally:
        rng.set_state(shared.get_state())
        shared.set_state(before)


def get_rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the Generator's state as plain values (JSON keeps its 128-bit integers exactly)."""
    return dict(rng.bit_generator.state)


def set_rng_state(rng: np.random.Generator, state: dict[str, Any]) -> None:
    """Restore the state of a Generator of the same kind (UsageError for another)."""
    with schema.loading("random numbers"):
        rng.bit_generator.state = state
        if repr(get_rng_state(rng)) != repr(state):  # NumPy truncates what is too large
            raise ValueError("no state of this generator")
