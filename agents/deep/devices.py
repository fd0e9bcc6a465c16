"""Where an agent computes, and whose random numbers its layers draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seqrl.core import UsageError


def pick_device(name: str) -> tuple[torch.device, str]:
    """The device behind a name and why; "auto" is cuda where there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), "a GPU is there"
        return torch.device("cpu"), "no GPU is there"
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in (*there, "cuda") or (name == "cuda" and len(there) == 1):
        raise UsageError(f"device {name!r}: expected auto or one of {', '.join(there)}")
    return torch.device(name), "asked for"


@contextmanager
def drawing_from(rng: torch.Generator) -> Iterator[None]:
    """Let layers that take no generator, such as dropout, draw from this one."""
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
