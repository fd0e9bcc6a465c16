"""What a run changes for its whole process, and puts back at its end."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from seqrl.agents.factory import Config, uses_torch
from seqrl.core import team
from seqrl.core.errors import UsageError

# of the environment, that a run may set
VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "SDL_VIDEODRIVER", "SDL_AUDIODRIVER")
UNDER_WAY = threading.Lock()


@contextmanager
def one_at_a_time(config: Config) -> Iterator[None]:
    """Keep other runs out of this process, and restore its global state; any thread will do.

    A second run is refused (UsageError): both would draw from one global generator. Started by
    torchrun, the process shares the run with the others.
    """
    if not UNDER_WAY.acquire(blocking=False):
        remedy = "wait for it, or use training.Processes(workers).map(jobs), a process each"
        raise UsageError(f"a run is under way in this process, which holds one at a time: {remedy}")
    try:
        with team.joined(), restored(config):
            yield
    finally:
        UNDER_WAY.release()


@contextmanager
def restored(config: Config) -> Iterator[None]:
    """Restore what a run, or building its parts, changes for the whole process."""
    with kept_state(), kept_torch() if uses_torch(config) else nullcontext():
        yield


@contextmanager
def kept_state() -> Iterator[None]:
    """Restore the global generators, and the environment's variables that a run may set."""
    drawn, states = random.getstate(), global_random_state()
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        random.setstate(drawn)
        set_global_random_state(states)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def kept_torch() -> Iterator[None]:
    """Restore torch's generators, threads and choice of operations, and NumPy's threads."""
    import torch
    from threadpoolctl import threadpool_limits

    states, threads = global_random_state(), torch.get_num_threads()
    exact, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    limits = threadpool_limits(None)  # sets nothing, and knows what is set
    try:
        yield
    finally:
        set_global_random_state(states)
        torch.backends.cudnn.benchmark = benchmark
        if torch.are_deterministic_algorithms_enabled() != exact:
            torch.use_deterministic_algorithms(exact, warn_only=warns)
        limits.restore_original_limits()
        torch.set_num_threads(threads)


def global_random_state() -> dict[str, Any]:
    """Return the states of NumPy's and torch's global generators, which user code may draw from."""
    kind, *words = np.random.get_state(legacy=True)
    states: dict[str, Any] = {"numpy": [kind, *words]}
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state().numpy()
        there = torch.cuda.is_initialized()
        states["cuda"] = [x.numpy() for x in torch.cuda.get_rng_state_all()] if there else []
    return states


def set_global_random_state(states: dict[str, Any]) -> None:
    """Restore what `global_random_state` returned."""
    if "numpy" in states:
        np.random.set_state(tuple(states["numpy"]))
    if "torch" in states:
        import torch

        torch.set_rng_state(torch.from_numpy(states["torch"]))
        for i, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(torch.from_numpy(state), i)
