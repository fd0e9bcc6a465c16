"""Which executor has the runs: that of this machine or that of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from seqrl.core.errors import UsageError, closest
from seqrl.training.engines.executor import Executor, Processes, Tell
from seqrl.training.runs.defaults import flag_of

ENGINES = ("local", "ray")
INSTALL = 'it takes Ray: pip install "seqrl[ray]"'


def executor(
    engine: str = "local",
    *,
    workers: int | None = None,
    address: str | None = None,
    cpus_per_run: float | None = None,
    gpus_per_run: float | None = None,
    retries: int | None = None,
    storage: str | None = None,
    progress: Tell = lambda going, over: None,
) -> Executor:
    """Return the executor of an engine: `local` has processes here, `ray` those of a cluster.

    `workers` runs go on at once (default: as many as there are CPUs). Of `ray` alone: the cluster's
    `address` (default: auto), the CPUs (1) and GPUs (0) that are kept for a run, how often a run
    that was killed goes on elsewhere (3), and a folder, there on every machine, that keeps the
    newest state of each run, which otherwise the machine that calls this has in memory. `progress`
    is that of `execute`. UsageError for what the engine does not take, and without a cluster.
    """
    of_ray = {
        "address": address,
        "cpus_per_run": cpus_per_run,
        "gpus_per_run": gpus_per_run,
        "retries": retries,
        "storage": storage,
    }
    given = {name: value for name, value in of_ray.items() if value is not None}
    check_engine(engine, given)
    if engine == "local":
        return Processes(workers, progress=progress)
    return ray_executor(workers=workers, progress=progress, **given)


def check_engine(engine: str, given: Iterable[str]) -> None:
    """Refuse an unknown engine, and options of Ray that do nothing on this machine."""
    if engine not in ENGINES:
        known = " or ".join(ENGINES)
        raise UsageError(f"--engine {engine}: expected {known}.{closest(engine, ENGINES)}")
    for name in given if engine == "local" else ():
        raise UsageError(f"{flag_of(name)} is for --engine ray, and does nothing on this machine")


def ray_executor(**options: Any) -> Executor:
    """Return the executor of a Ray cluster; UsageError without Ray."""
    try:
        from seqrl.training.engines.ray_engine import Ray
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise UsageError(f"--engine ray: {INSTALL}") from error
    return Ray(**options)
