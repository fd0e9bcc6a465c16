"""Which environment of one of Gymnasium's own vectors raised an error: messages do not say."""

from __future__ import annotations

import traceback
from multiprocessing import connection
from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from seqrl.core.errors import explain
from seqrl.envs.worker import EXIT_TIMEOUT, exit_cause


def failed_environment(envs: Any, error: Exception) -> tuple[int | None, str]:
    """Return the index of the failed environment, or None, and what happened there."""
    if isinstance(envs, SyncVectorEnv):
        return stepping_index(envs, error), explain(error)
    pipes: list[Any] = getattr(envs, "parent_pipes", [])
    if None in pipes:  # an environment that raises loses its pipe
        return pipes.index(None), explain(error)
    if isinstance(envs, AsyncVectorEnv) and isinstance(error, EOFError | ConnectionError):
        return dead_process(envs, explain(error))
    return None, explain(error)


def stepping_index(envs: SyncVectorEnv, error: Exception) -> int | None:
    """Return the counter of the loop over the environments in which the error was raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_locals.get("self") is envs:
            return frame.f_locals.get("i")
    return None


def dead_process(envs: AsyncVectorEnv, otherwise: str) -> tuple[int | None, str]:
    """Return the process that died and how; kill the others, which would be waited for.

    Closing such an AsyncVectorEnv raises or hangs, so it is done here.
    """
    sentinels: list[Any] = [process.sentinel for process in envs.processes]
    dead = [sentinels.index(end) for end in connection.wait(sentinels, EXIT_TIMEOUT)]
    result = (dead[0], exit_cause(envs.processes[dead[0]])) if dead else (None, otherwise)
    for process in envs.processes:
        process.kill()
    envs._state = AsyncState.DEFAULT
    envs.close(terminate=True)
    return result
