"""Recorded episodes in the place of environments."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.core import schema, tree
from seqrl.core.errors import UsageError
from seqrl.core.seeding import generator, get_rng_state, set_rng_state
from seqrl.core.types import Array, Batch
from seqrl.envs.adapter import Outcome
from seqrl.envs.observations import Misfit, observations

SPACES = ("observation_space", "action_space")  # of a recording


class Recorded:
    """N recorded episodes or steps side by side: whatever is done, it goes on as recorded.

    All begin together, and where one is over its rows are not valid until the longest is. The
    answer is what was done.

    data: draws batches (see `Dataset`).
    whole: whether these are of whole episodes, else of single steps, each of which ends there.
    """

    unkept: str | None = ""

    def __init__(self, data: Any, num_envs: int, *, whole: bool):
        self.data, self.num_envs, self.whole = data, num_envs, whole
        self.seeds: list[int | None] = [None] * num_envs
        self.single_observation_space = data.recording.observation_space
        self.single_action_space = data.recording.action_space
        self.rng = generator(None)
        self.ended = np.full(num_envs, -1)  # the episode whose last step was the newest one

    def reset(self, seed: np.random.SeedSequence | None = None) -> Array:
        """Begin a new pass; return the first observations [N, ...]."""
        if seed is not None:
            self.rng = generator(seed)
        self.data.restart()
        self._draw()
        return self._seen()

    def _draw(self) -> None:
        """Draw what is played next."""
        self.before = {"rng": get_rng_state(self.rng), "data": self.data.state_dict()}
        batch: Batch = self.data.sample(self.num_envs, self.rng, whole=self.whole)
        self.batch: Any = batch
        self.time = 0
        over: np.ndarray = batch.valid[:-1] & batch.final[1:]
        self.terminated: np.ndarray = over & (batch.discount[:-1] == 0)
        self.truncated = over & ~self.terminated
        ends = self.data.ends[batch.indices]
        self.ends: np.ndarray = np.where(batch.valid, ends, -1)
        self.counts: list[int] = batch.valid.sum(1).tolist()
        self.any_ends: list[bool] = np.any(self.ends >= 0, axis=1).tolist()

    def _seen(self) -> Array:
        time = self.time
        return tree.map(lambda leaf: leaf[time], self.batch.obs)

    @property
    def start(self) -> np.ndarray:
        """Whether the current observations [N] open an episode."""
        found: np.ndarray = self.batch.start[self.time]
        return found

    def answer(self) -> tuple[Array, Array]:
        """Return what was done at the current observations [N, ...], and where anything was [N]."""
        return self.batch.action[self.time], self.batch.valid[self.time]

    def step(self, action: Array) -> Outcome:
        """Go on as recorded, whatever the action."""
        batch, t = self.batch, self.time
        self.ended = self.ends[t]
        found = batch.reward[t].astype(np.float64), self.terminated[t], self.truncated[t]
        valid, count, any_end = batch.valid[t], self.counts[t], self.any_ends[t]
        self.time += 1
        next_obs = self._seen()
        if self.time == len(self.terminated):
            self._draw()
        return Outcome(next_obs, *found, valid, self._seen(), self.start, count, any_end)

    def restart(self, mask: np.ndarray, outcome: Outcome) -> Outcome:
        """Refuse to cut what was recorded."""
        raise UsageError("recorded episodes cannot be cut: leave out max_episode_steps")

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def state_dict(self) -> dict[str, Any]:
        """Return where in which pass the current turn stands."""
        return {**self.before, "time": self.time, "ended": self.ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; refuse that of other data."""
        parts = dict.fromkeys(("rng", "data", "ended"), schema.anything)
        schema.check("envs", state, {**parts, "time": 0})
        self.data.load_state_dict(state["data"])
        schema.whole(-1, len(self.data) - 1, (self.num_envs,))("envs/ended", state["ended"])
        set_rng_state(self.rng, state["rng"])
        self._draw()
        schema.whole(0, len(self.terminated) - 1)("envs/time", state["time"])
        self.time, self.ended = state["time"], np.array(state["ended"])


def fitted(made: Any, name: str) -> Any:
    """Return a `Recording` in the dtypes of its spaces; UsageError where it does not fit them."""
    kinds = made.length.dtype.kind, made.terminated.dtype.kind, made.reward.dtype.kind
    if kinds[0] not in "iu" or kinds[1] != "b" or kinds[2] not in "iuf":
        raise UsageError(f"{name}: expected whole lengths, ends as bool and rewards as numbers")
    made.checked(name)
    rows, found = len(made.reward), []
    for part in SPACES:
        values = made.obs if part == SPACES[0] else made.action
        try:
            found.append(observations(getattr(made, part), name).check(values, rows))
        except Misfit as error:
            text = str(error).replace("observation", part.partition("_")[0])
            where = "" if error.row is None else f"row {error.row:,}: "
            raise UsageError(f"{name}: {where}{text}") from error
    obs, action = found
    return made._replace(obs=obs, action=action, length=made.length.astype(np.int64))
