"""Which row of one of Gymnasium's own vectors an error came from; their messages do not say."""

from __future__ import annotations

import traceback
from multiprocessing import connection
from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from seqrl.core import explain
from seqrl.envs.worker import FATE, fate


def culprit(envs: Any, error: Exception) -> tuple[int | None, str]:
    """The row, where it can be told, and what happened there."""
    if isinstance(envs, SyncVectorEnv):
        return row_under_way(envs, error), explain(error)
    pipes: list[Any] = getattr(envs, "parent_pipes", [])
    if None in pipes:  # who raises loses its pipe
        return pipes.index(None), explain(error)
    if isinstance(envs, AsyncVectorEnv) and isinstance(error, EOFError | ConnectionError):
        return dead_row(envs, explain(error))
    return None, explain(error)


def row_under_way(envs: SyncVectorEnv, error: Exception) -> int | None:
    """The counter of the loop over the rows, in which the error came up."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_locals.get("self") is envs:
            return frame.f_locals.get("i")
    return None


def dead_row(envs: AsyncVectorEnv, otherwise: str) -> tuple[int | None, str]:
    """The process that died, and how; the others are ended, as their answers would be waited for.

    Closing such an AsyncVectorEnv raises or hangs, so it is done here.
    """
    ends: list[Any] = [process.sentinel for process in envs.processes]
    dead = [ends.index(end) for end in connection.wait(ends, FATE)]
    found = (dead[0], fate(envs.processes[dead[0]])) if dead else (None, otherwise)
    for process in envs.processes:
        process.kill()
    envs._state = AsyncState.DEFAULT
    envs.close(terminate=True)
    return found
