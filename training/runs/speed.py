"""Measuring the speed of the environments, of acting and of learning, each alone."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.envs.adapter import Environments
from seqrl.training.loop.interaction import Interaction

STEPS = 5_000  # env steps that are measured, or
SECONDS = 1.0  # this long; longer where the agent has not learned until then,
MAX_SECONDS = 2.0  # but no longer than this


class Speed(NamedTuple):
    """Env steps a second of each part alone, and of all together."""

    env: float
    acting: float
    learning: float
    together: float
    learned: bool  # whether the agent had enough to learn from

    def __str__(self) -> str:
        learning = f"learning {self.learning:,.0f}" if self.learned else "learning nothing yet"
        acting = f"acting {self.acting:,.0f}" if self.acting < math.inf else "acting nothing"
        parts = f"environment {self.env:,.0f}, {acting}, {learning}"
        return f"{parts}; together {self.together:,.0f} env steps/s"


class Timed:
    """A proxy of an agent or environments that times their calls."""

    CALLS = ("step", "act", "learn")

    def __init__(self, inner: Any, seconds: dict[str, float]):
        self._inner, self._seconds = inner, seconds

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name not in self.CALLS:
            return call

        def timed(*args: Any, **given: Any) -> Any:
            began = time.perf_counter()
            answer = call(*args, **given)
            self._seconds[name] += time.perf_counter() - began
            return answer

        return timed


def measure_speed(agent: Agent, envs: Environments, seed: np.random.SeedSequence) -> Speed:
    """Measure the speed of a short run; raises what a run would raise (RunError)."""
    warm_up = Interaction(agent, envs, compile=False)
    warm_up.reset(seed)
    _run(warm_up, 0.0)  # the first update is slower than any other
    loop = Interaction(agent, envs, compile=False)
    loop.reset(seed)
    seconds: dict[str, float] = defaultdict(float)
    loop.agent, loop.envs = Timed(agent, seconds), Timed(envs, seconds)
    total = _run(loop, SECONDS)
    env, acting, learning = (
        loop.steps / seconds[name] if seconds[name] else math.inf for name in Timed.CALLS
    )
    return Speed(env, acting, learning, loop.steps / total, bool(loop.metrics))


def _run(loop: Interaction, min_seconds: float) -> float:
    """Run for at least so many seconds and until the agent has learned; return the seconds."""
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < MAX_SECONDS:
        if loop.metrics and (elapsed >= min_seconds or loop.steps >= STEPS):
            break
        loop.run(10 * loop.envs.num_envs)
    return elapsed


def advice(speeds: dict[str, Speed]) -> str:
    """Return the flag of the fastest device, by the speed measured on each."""
    best = max(speeds, key=lambda name: speeds[name].together)
    others = [speeds[name].together for name in speeds if name != best]
    if not others:
        return f"{best}: there is no other"
    speedup = speeds[best].together / max(others)
    return f"--device {best}, {speedup:.1f} times as fast as the other here"
