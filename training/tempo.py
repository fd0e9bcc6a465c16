"""How fast environments, acting and learning are, each for itself."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents import Agent
from seqrl.envs import Environments
from seqrl.training.interaction import Interaction

STEPS = 5_000  # env steps, or
SECONDS = 1.0  # that are measured; longer where the agent learns more rarely, until it does,
PATIENCE = 2.0  # but no longer than this


class Tempo(NamedTuple):
    """Env steps a second if there were nothing else, and of all together."""

    env: float
    acting: float
    learning: float
    together: float
    learned: bool  # whether the agent had enough to learn from

    def __str__(self) -> str:
        learning = f"learning {self.learning:,.0f}" if self.learned else "learning nothing yet"
        parts = f"environment {self.env:,.0f}, acting {self.acting:,.0f}, {learning}"
        return f"{parts}; together {self.together:,.0f} env steps/s"


class Clocked:
    """An agent, or environments, of which the calls are timed."""

    CALLS = ("step", "act", "learn")

    def __init__(self, inner: Any, seconds: dict[str, float]):
        self._inner, self._seconds = inner, seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._timed(name, found) if name in self.CALLS else found

    def _timed(self, name: str, call: Any) -> Any:
        def timed(*args: Any, **given: Any) -> Any:
            begin = time.perf_counter()
            answer = call(*args, **given)
            self._seconds[name] += time.perf_counter() - begin
            return answer

        return timed


def tempo(agent: Agent, envs: Environments, seed: np.random.SeedSequence) -> Tempo:
    """Let an agent learn for a moment; raises what a run would raise (RunError)."""
    warming = Interaction(agent, envs, compile=False)
    warming.reset(seed)
    _run(warming, 0.0)  # the first update is slower than any other
    loop = Interaction(agent, envs, compile=False)
    loop.reset(seed)
    seconds: dict[str, float] = defaultdict(float)
    loop.agent, loop.envs = Clocked(agent, seconds), Clocked(envs, seconds)
    whole = _run(loop, SECONDS)
    env, acting, learning = (loop.steps / max(seconds[name], 1e-9) for name in Clocked.CALLS)
    return Tempo(env, acting, learning, loop.steps / whole, bool(loop.metrics))


def _run(loop: Interaction, least: float) -> float:
    """Turns for at least as many seconds and until the agent has learned; the seconds it took."""
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < PATIENCE:
        if loop.metrics and (spent >= least or loop.steps >= STEPS):
            break
        loop.run(10 * loop.envs.num_envs)
    return spent


def advice(tempos: dict[str, Tempo]) -> str:
    """Which device to take, by what was measured on each."""
    best = max(tempos, key=lambda name: tempos[name].together)
    rest = [tempos[name].together for name in tempos if name != best]
    if not rest:
        return f"{best}: there is no other"
    times = tempos[best].together / max(rest)
    return f"--device {best}, {times:.1f} times as fast as the other here"
