"""Which pictures there are of an agent, and a run's own in TensorBoard."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from seqrl.agents import Agent
from seqrl.core import Array, UsageError, explain, tree
from seqrl.envs import Environments
from seqrl.training import behaviour, maps, pictures, traces
from seqrl.training.behaviour import Played
from seqrl.training.evaluation import Evaluation
from seqrl.training.film import Camera, filmed, gif

LOG = logging.getLogger("seqrl")
MOST = 20  # evaluations of a run that are drawn
STEPS = 1000  # of the episode that is filmed, at most
SEEN = 200  # of its steps over which memory is shown

Activity = Any  # seqrl.networks.activity.Activity, which knows torch
Watch = Callable[[Agent, Array], Activity | None]  # over observations [T, ...]


class Gallery:
    """Pictures of an agent in one environment of its own; drawing them changes nothing in it.

    `build(**env_args)` makes the environment, `watch` says what a network's memory does, and
    `seed` fixes the episode that is played, always the same one.
    """

    def __init__(
        self,
        build: Callable[..., Environments],
        *,
        seed: np.random.SeedSequence | None = None,
        watch: Watch | None = None,
    ):
        self.envs, self.unseen = filmed(build)
        self.seed, self.watch = seed, watch
        camera = self.envs.envs[0]
        self.camera = camera if isinstance(camera, Camera) else None
        self.env = camera if self.camera is None else self.camera.env  # whose model may be known

    def play(self, agent: Agent) -> Played:
        """One greedy episode, filmed where that is possible."""
        if self.camera is not None:
            self.camera.roll()
        return behaviour.play_episode(agent, self.envs, self.seed, STEPS)

    def film(self) -> bytes:
        """The episode played last as a GIF; UsageError where it cannot be shown."""
        if self.camera is None:
            raise UsageError(f"{self.env}: {self.unseen}")
        return gif(self.camera.shots, self.camera.fps)

    def stills(
        self, agent: Agent, found: Evaluation, played: Played
    ) -> Iterator[tuple[str, bytes]]:
        """Names and PNGs: policy, returns, and memory over the played episode.

        Raises UsageError where matplotlib is missing.
        """
        drawn = self._policy(agent)
        if drawn is not None:
            yield "behaviour/policy", pictures.png(drawn)
        low, high = float(found.interval.low), float(found.interval.high)
        cut = int(found.truncated.sum())
        yield (
            "behaviour/returns",
            pictures.png(pictures.draw_returns(found.returns, low, high, cut)),
        )
        yield from self._memory(agent, played)

    def _policy(self, agent: Agent) -> Any:
        """The policy as a map, where the environment has one."""
        grid = behaviour.grid_policy(agent, self.env)
        if grid is not None:
            return maps.draw_grid(*grid)
        taxi = behaviour.taxi_policy(agent, self.env)
        if taxi is not None:
            bare: Any = self.env.unwrapped
            return maps.draw_taxi(bare.desc, taxi)
        blackjack = behaviour.blackjack_policy(agent, self.env)
        return None if blackjack is None else maps.draw_blackjack(blackjack)

    def _memory(self, agent: Agent, played: Played) -> Iterator[tuple[str, bytes]]:
        obs = tree.map(lambda leaf: leaf[:SEEN], played.obs)
        activity = None if self.watch is None else self.watch(agent, obs)
        if activity is None:
            return
        for trace in activity.traces:
            draw = traces.draw_attention if trace.attention else traces.draw_memory
            yield f"memory/{trace.layer}", pictures.png(draw(trace.layer, trace.parts))
        if activity.gradient is not None and len(activity.gradient):
            yield "memory/gradient", pictures.png(traces.draw_gradient(activity.gradient))


class Album(Protocol):
    """Where a run's pictures go."""

    def image(self, step: int, tag: str, data: bytes, width: int, height: int) -> None:
        """A picture at an env step."""

    def text(self, tag: str, markdown: str) -> None:
        """A remark."""


class Exhibition:
    """Puts pictures of a run into TensorBoard at its evaluations, at about 20 of them at most.

    Whatever goes wrong is said once and ends the drawing, never the run.
    """

    def __init__(self, gallery: Gallery, album: Album, *, every: int, steps: int):
        self.gallery, self.album, self.every, self.steps = gallery, album, every, steps
        self.spacing = -(-steps // MOST)
        self.open = True
        remark = f"Drawn at up to {MOST} of a run's evaluations, evenly spread, and at its end."
        if gallery.unseen:
            remark += f" No film: {gallery.unseen}."
        album.text("pictures", remark)

    def __call__(self, step: int, agent: Agent, found: Evaluation) -> None:
        """Draw, where this evaluation is one of those that are drawn."""
        if not (self.open and self.due(step)):
            return
        try:
            played = self.gallery.play(agent)
            if self.gallery.camera is not None:
                self._show(step, "behaviour/episode", self.gallery.film())
            for tag, picture in self.gallery.stills(agent, found, played):
                self._show(step, tag, picture)
        except Exception as error:
            self.open = False
            why = str(error) if isinstance(error, UsageError) else explain(error)
            LOG.warning("seqrl: pictures are left out: %s", why)

    def due(self, step: int) -> bool:
        """Whether the evaluation at an env step is the first of a twentieth of the run, or last."""
        return step >= self.steps or step // self.spacing > (step - self.every) // self.spacing

    def _show(self, step: int, tag: str, picture: bytes) -> None:
        self.album.image(step, tag, picture, *size_of(picture))


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG or GIF."""
    form, at = ("<HH", 6) if picture[:3] == b"GIF" else (">II", 16)
    width, height = struct.unpack_from(form, picture, at)
    return width, height
