"""The store of states in the memory of the machine whose runs they are, reached through Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from seqrl.core.errors import UsageError
from seqrl.training.engines.packing import Packed, pack, unpack

LARGEST = 200_000_000  # bytes of the state of a run that goes on


class Kept:
    """The states of runs in memory, in a process of its own: of each the newest."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.changed: set[str] = set()

    def save(self, key: str, state: bytes) -> None:
        """Keep a state, and that it is new."""
        self.states[key] = state
        self.changed.add(key)

    def load(self, key: str) -> bytes:
        """Return the newest state of a run."""
        return self.states[key]

    def news(self) -> dict[str, bytes]:
        """Return the states that came since this was last asked."""
        found = {key: self.states[key] for key in self.changed if key in self.states}
        self.changed.clear()
        return found

    def drop(self, key: str) -> None:
        """Forget a run."""
        self.states.pop(key, None)


class Depot:
    """A store in the memory of the machine whose runs these are."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.actor: Any = ray.remote(Kept).options(num_cpus=0, scheduling_strategy=here).remote()

    def save(self, key: str, folder: Path, *, whole: bool = True) -> None:
        """Keep what is in a run's folder in the place of what is kept of it."""
        file = BytesIO()
        pack(folder, file, whole=whole)
        state = file.getvalue()
        if not whole and len(state) > LARGEST:  # of one that is over nothing may be lost
            text = f"its state is {len(state):,} bytes, more than {LARGEST:,} that a depot keeps"
            raise UsageError(f"{text}; name a folder that all machines have by --storage")
        ray.get(self.actor.save.remote(key, state))

    def load(self, key: str, folder: Path) -> None:
        """Put what is kept of a run in the place of a folder."""
        unpack(BytesIO(ray.get(self.actor.load.remote(key))), folder)

    def news(self, keys: Iterable[str]) -> Iterator[tuple[str, Packed]]:
        """Yield the runs of which something else is kept than when this was last asked."""
        for key, state in ray.get(self.actor.news.remote()).items():
            if key in keys:
                yield key, BytesIO(state)

    def drop(self, key: str) -> None:
        """Forget a run."""
        self.actor.drop.remote(key)
