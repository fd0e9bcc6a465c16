"""All pictures of an agent, and the logger that writes those of a run to TensorBoard."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.core import tree
from seqrl.core.errors import UsageError, explain
from seqrl.core.types import Array
from seqrl.envs.adapter import Environments, Serial
from seqrl.envs.registry import replies_of
from seqrl.training.loop.evaluation import Evaluation
from seqrl.training.pictures import behaviour, canvas, codes, maps, memory
from seqrl.training.pictures.behaviour import PlayedEpisode
from seqrl.training.pictures.film import FrameRecorder, gif, make_recorded

LOG = logging.getLogger("seqrl")
MAX_DRAWN = 20  # evaluations of a run with pictures
MAX_FILM_STEPS = 1000  # of the episode that is filmed
MAX_CODED, ACROSS = 64, 8  # observations that an autoencoder is looked at by; those drawn
MAX_MEMORY_STEPS = 200  # of its steps over which memory is drawn

Activity = Any  # seqrl.networks.diagnosis.activity.Activity, which imports torch
Codes = Any  # seqrl.networks.diagnosis.codes.Codes, likewise
CodesFunction = Callable[[Agent, Array], Codes | None]  # of observations [M, ...]
ActivityFunction = Callable[[Agent, Array], Activity | None]  # over observations [T, ...]


class AgentPictures:
    """Pictures of an agent in one environment of its own; drawing them leaves the agent unchanged.

    `build(**env_args)` makes the environment, `activity_of` returns what a network's memory did,
    `codes_of` what an autoencoder gives back, and `seed` fixes the episode that is played, always
    the same one.
    """

    def __init__(
        self,
        build: Callable[..., Environments],
        *,
        seed: np.random.SeedSequence | None = None,
        activity_of: ActivityFunction | None = None,
        codes_of: CodesFunction | None = None,
    ):
        self.build, self.seed, self.activity_of = build, seed, activity_of
        self.codes_of = codes_of

    @cached_property
    def made(self) -> tuple[Serial, str]:
        """The environment, made when it is first asked for; and why it has no film."""
        return make_recorded(self.build)

    @property
    def recorder(self) -> FrameRecorder | None:
        """What films the environment, None where it has no images."""
        env = self.made[0].envs[0]
        return env if isinstance(env, FrameRecorder) else None

    @property
    def env(self) -> Any:
        """The environment itself, whose model may be known."""
        return self.made[0].envs[0] if self.recorder is None else self.recorder.env

    def play(self, agent: Agent) -> PlayedEpisode:
        """Play one greedy episode, filmed where that is possible."""
        if self.recorder is not None:
            self.recorder.start_recording()
        return behaviour.play_episode(agent, self.made[0], self.seed, MAX_FILM_STEPS)

    def film(self) -> bytes:
        """Return the episode played last as a GIF; UsageError where it has no images."""
        if self.recorder is None:
            raise UsageError(f"{self.env}: {self.made[1]}")
        return gif(self.recorder.frames, self.recorder.fps)

    def draw(
        self, agent: Agent, evaluation: Evaluation, played: PlayedEpisode
    ) -> Iterator[tuple[str, bytes]]:
        """Yield tags and PNGs: policy, returns, and memory over the played episode.

        Raises UsageError where matplotlib is missing.
        """
        policy = self._policy(agent)
        if policy is not None:
            yield "behaviour/policy", canvas.png(policy)
        _, low, high = map(float, evaluation.interval)
        cut = int(evaluation.truncated.sum())
        returns = canvas.draw_returns(evaluation.returns, low, high, cut)
        yield "behaviour/returns", canvas.png(returns)
        yield from self._memory(agent, played)
        yield from self._codes(agent, played)

    def _policy(self, agent: Agent) -> Any:
        """Return the policy drawn as a map; None where the environment has none."""
        grid = behaviour.grid_policy(agent, self.env)
        if grid is not None:
            return maps.draw_grid(*grid)
        taxi = behaviour.taxi_policy(agent, self.env)
        if taxi is not None:
            env: Any = self.env.unwrapped
            return maps.draw_taxi(env.desc, taxi)
        blackjack = behaviour.blackjack_policy(agent, self.env)
        return None if blackjack is None else maps.draw_blackjack(blackjack)

    def _memory(self, agent: Agent, played: PlayedEpisode) -> Iterator[tuple[str, bytes]]:
        obs = tree.map(lambda leaf: leaf[:MAX_MEMORY_STEPS], played.obs)
        activity = None if self.activity_of is None else self.activity_of(agent, obs)
        if activity is None:
            return
        for layer in activity.layers:
            draw = memory.draw_attention if layer.attention else memory.draw_memory
            yield f"memory/{layer.name}", canvas.png(draw(layer.name, layer.parts))
        if activity.gradient is not None and len(activity.gradient):
            yield "memory/gradient", canvas.png(memory.draw_gradient(activity.gradient))
        if activity.reading is not None:
            words = self._words(played, *activity.reading.shape)
            yield "memory/reading", canvas.png(memory.draw_reading(activity.reading, *words))

    def _codes(self, agent: Agent, played: PlayedEpisode) -> Iterator[tuple[str, bytes]]:
        """Yield what an autoencoder gives back, of codes drawn and along them."""
        if self.codes_of is None or self.codes_of(agent, played.obs) is None:
            return
        obs: Any = behaviour.observed(agent, self.made[0], self.seed, MAX_CODED)
        found = self.codes_of(agent, obs)
        assert found is not None
        given_back = codes.draw_given_back(obs[:ACROSS], found.given_back[:ACROSS])
        yield "codes/given_back", canvas.png(given_back)
        if found.drawn is not None:
            yield "codes/drawn", canvas.png(codes.draw_drawn(found.drawn[: 2 * ACROSS]))
        yield "codes/walk", canvas.png(codes.draw_walk(found.walk, found.changed))

    def _words(self, played: PlayedEpisode, said: int, read: int) -> tuple[list[str], list[str]]:
        """Return how so many tokens are written of the first reply, and of its source."""
        rules = replies_of(self.made[0])
        name = str if rules is None else rules.vocabulary.word
        reply, source = played.actions[:said], played.obs["source"][0][:read]
        return [*map(name, reply.tolist())], [*map(name, source.tolist())]


class PictureLogger:
    """Writes pictures of a run at its evaluations, at about 20 of them at most.

    Any exception is logged once and ends the pictures, never the run. `writer`: a TensorBoard.
    """

    def __init__(self, agent_pictures: AgentPictures, writer: Any, *, every: int, steps: int):
        self.agent_pictures, self.writer = agent_pictures, writer
        self.every, self.steps = every, steps
        self.spacing = -(-steps // MAX_DRAWN)
        self.enabled, self.described = True, False

    def __call__(self, step: int, agent: Agent, evaluation: Evaluation) -> None:
        """Write the pictures, where they are due at this evaluation."""
        if not (self.enabled and self.due(step)):
            return
        try:
            if not self.described:
                self._describe()
            played = self.agent_pictures.play(agent)
            if self.agent_pictures.recorder is not None:
                self._write(step, "behaviour/episode", self.agent_pictures.film())
            for tag, picture in self.agent_pictures.draw(agent, evaluation, played):
                self._write(step, tag, picture)
        except Exception as error:
            self.enabled = False
            reason = str(error) if isinstance(error, UsageError) else explain(error)
            LOG.warning("seqrl: pictures are left out: %s", reason)

    def due(self, step: int) -> bool:
        """Return whether the evaluation at an env step is the first of its twentieth, or last."""
        return step >= self.steps or step // self.spacing > (step - self.every) // self.spacing

    def _describe(self) -> None:
        """Write when pictures are drawn, and why there is no film."""
        self.described, (_, reason) = True, self.agent_pictures.made
        drawn = f"Drawn at up to {MAX_DRAWN} of a run's evaluations, evenly spread, and at its end."
        self.writer.text("pictures", f"{drawn} No film: {reason}." if reason else drawn)

    def _write(self, step: int, tag: str, picture: bytes) -> None:
        self.writer.image(step, tag, picture, *image_size(picture))


def image_size(picture: bytes) -> tuple[int, int]:
    """Return width and height of a PNG or GIF."""
    layout, offset = ("<HH", 6) if picture[:3] == b"GIF" else (">II", 16)
    width, height = struct.unpack_from(layout, picture, offset)
    return width, height
