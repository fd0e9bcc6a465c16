"""Waves: predict a wave value by value, and go on with what was predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_amount, check_choice, check_flag, check_whole
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, pick


@dataclass(frozen=True)
class Waves:
    """A sine of `period` steps and a random phase; the next value has to be said at every step.

    `watch` steps are not judged: the values are shown, each with Gaussian noise of spread `noise`.
    The `judged` steps behind them are: where `free`, what is shown there is what was said before
    (the first still shows the wave), else the wave goes on being shown. With `regimes` 2 the wave
    changes once while it is watched, in the middle half: from `period` to a quarter of it or back,
    and its phase goes on.
    Observation: float32 [1]. Action: Box [-1, 1] of shape (1,). Reward at a judged step minus the
    squared error to the wave itself, without noise, over `judged`: the return is minus the mean
    squared error.
    """

    period: float = 100.0
    watch: int = 100
    judged: int = 200
    free: bool = True
    noise: float = 0.0
    regimes: int = 1

    def __post_init__(self) -> None:
        check_whole("watch", self.watch, 1 if self.regimes == 1 else 8)
        check_whole("judged", self.judged)
        check_amount("noise", self.noise)
        check_choice("regimes", str(self.regimes), ("1", "2"))
        check_flag("free", self.free)
        check_amount("period", self.period, 3 if self.regimes == 1 else 12)

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of a value, without bounds under noise."""
        end = math.inf if self.noise else 1.0
        return spaces.Box(-end, end, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """Return the space of a value."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return self.watch + self.judged

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the waves of N new episodes and what is seen of them, float32 [N, horizon + 1]."""
        xp = draws.xp
        time = xp.arange(self.horizon + 1, device=draws.device)[None]
        angle = 2 * math.pi * (time / self.period + draws.uniform(n)[:, None])
        if self.regimes == 2:
            change = self.watch // 4 + draws.integers(self.watch // 2 + 1, n)[:, None]
            short, before = draws.integers(2, n)[:, None], time.clip(max=change)
            # three periods more in as many steps: before the change, or behind it
            more = xp.where(short == 1, before, time - before)
            angle = angle + 2 * math.pi * 3 * more / self.period
        wave = xp.asarray(xp.sin(angle), dtype=xp.float32)
        seen = wave + self.noise * draws.normal(*wave.shape) if self.noise else 1 * wave
        return {"wave": wave, "seen": seen, "said": 0 * wave[:, 0]}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the value seen, or what was said before, float32 [N, 1]."""
        time = episodes["time"]
        seen = pick(xp, episodes["seen"], time)
        if self.free:
            seen = xp.where(time > self.watch, episodes["said"], seen)
        return seen[:, None]

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with the wave where it is judged."""
        time, said = episodes["time"], 1 * action[:, 0]
        error = said - pick(xp, episodes["wave"], time)
        reward = xp.where(time > self.watch, -error * error / self.judged, 0.0)
        return {"said": said}, reward, time == self.horizon

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the wave's next value, without noise."""
        time = episodes["time"]
        return pick(xp, episodes["wave"], time + 1)[:, None], time >= 0

    def scores(self) -> dict[str, float]:
        """Return reference scores.

        Without noise two values fix the wave, x_t+1 = 2 cos(w) x_t - x_t-1, and so does a second
        one behind the change of the period, which is over by then. With noise and one regime the
        optimum is that of `phase_error`, of two regimes it is not known. Without memory the next
        value is predicted from the one that is seen, noise included; where that is what was said
        before, the best constant is told, 0: a policy may hide a memory in the digits of what it
        says. The random value has the variance 1/3, the wave 1/2.
        """
        scores = {"memoryless": -0.5 if self.free else -memoryless(self), "random": -5 / 6}
        if self.noise and self.regimes == 2:
            return scores
        return {"optimum": -phase_error(self) if self.noise else 0.0, **scores}

    @property
    def step(self) -> float:
        """Return the angle that the wave of the longer period moves a step."""
        return 2 * math.pi / self.period


def memoryless(task: Waves) -> float:
    """Return the smallest mean squared error of a prediction from the one value that is seen.

    E[x_t+1 | seen] = c E[x_t | seen], c the cosine of the step's angle, on average of the regimes.
    """
    steps = [task.step, 4 * task.step][: task.regimes]
    cosine = sum(map(math.cos, steps)) / task.regimes
    if not task.noise:
        return (1 - cosine**2) / 2
    wave = np.sin(2 * np.pi * (np.arange(512) + 0.5) / 512)[:, None]
    seen = np.linspace(-1 - 6 * task.noise, 1 + 6 * task.noise, 2001)
    density = np.exp(-0.5 * ((seen - wave) / task.noise) ** 2)  # [512, 2001]
    total = density.sum(0)
    expected = (wave * density).sum(0) / np.maximum(total, 1e-300)
    return float(0.5 - cosine**2 * (expected**2 * total).sum() / total.sum())


def phase_error(task: Waves) -> float:
    """Return the mean squared error of the best prediction under noise, to first order.

    Of values seen with noise a phase is known with the variance noise^2 / sum of squared slopes,
    and a prediction is off by that times its own squared slope; the mean over phases is taken.
    """
    time = np.arange(task.horizon + 1)
    phase = 2 * np.pi * (np.arange(64) + 0.5) / 64
    slopes = np.cos(task.step * time + phase[:, None]) ** 2  # [64, horizon + 1]
    known = slopes.cumsum(1)[:, task.watch : -1]  # of all values up to each judged step
    if task.free:
        known = known[:, :1]
    return float((task.noise**2 * slopes[:, task.watch + 1 :] / known).mean())
