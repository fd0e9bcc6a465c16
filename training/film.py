"""Episodes as films: frames of one, as an animated GIF."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np

from seqrl.core import UsageError, explain
from seqrl.envs import Environments, Serial
from seqrl.envs.grids import Grid, grid_of

if TYPE_CHECKING:
    from PIL.Image import Image

FRAMES = 60  # at most; of a longer episode every second, every fourth, ...
SIDE = 320  # points a frame is wide at most; small ones are enlarged to about as much
STRIP = 20  # points of the caption
FPS = 30  # where the environment names none
MAP_FPS = 4  # of maps, whose frames are far apart
LAST = 1500  # milliseconds the last frame stays
CELL = 40  # points of a map's cell at most
COLOURS = {"H": (60, 60, 60), "C": (60, 60, 60), "G": (0, 158, 115), "S": (207, 229, 243)}


class Shot(NamedTuple):
    """A frame and when it was taken."""

    step: int  # env steps since the episode began
    total: float  # the return until then
    frame: np.ndarray  # uint8 [height, width, 3 or 1]


class Camera(gym.Wrapper[Any, Any, Any, Any]):
    """Takes frames of an environment's next episode, from `roll` on.

    `look` answers a frame; None takes the observations, which are images.
    """

    def __init__(
        self, env: gym.Env[Any, Any], look: Callable[[], Any] | None = None, fps: float = FPS
    ):
        super().__init__(env)
        self.look, self.fps = look, fps
        self.shots: list[Shot] = []
        self._on = False

    def roll(self) -> None:
        """Film the episode that begins next, and that one only."""
        self.shots, self._on = [], True
        self.every, self._step, self._total = 1, 0, 0.0

    def reset(self, **given: Any) -> Any:
        """Begin an episode."""
        obs, info = self.env.reset(**given)
        if self._on:
            self._take(obs)
        return obs, info

    def step(self, action: Any) -> Any:
        """One step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self._on:
            self._step += 1
            self._total += float(reward)
            over = terminated or truncated
            if over or self._step % self.every == 0:
                self._take(obs)
            self._on = not over
        return obs, reward, terminated, truncated, info

    def _take(self, obs: Any) -> None:
        """One more frame; where there are too many every second one goes."""
        frame = np.array(obs if self.look is None else self.look(), np.uint8)
        self.shots.append(Shot(self._step, self._total, frame))
        if len(self.shots) > FRAMES:
            self.every *= 2
            *before, last = self.shots
            self.shots = [shot for shot in before if shot.step % self.every == 0] + [last]


def filmed(build: Callable[..., Environments]) -> tuple[Serial, str]:
    """One environment with a camera if it can be shown, and why not ("" if it can).

    `build(**env_args)` makes it. Shown is what it renders; a grid world's map where that cannot be
    had; else observations that are images.
    """
    plain = build()
    env, reason = alone(plain), "it renders nothing and its observations are no images"
    if "rgb_array" in (env.metadata.get("render_modes") or ()):
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            shown: Any = alone(build(render_mode="rgb_array"))
            shown.reset(seed=0)
            if np.ndim(shown.render()) == 3:
                fps = float(shown.metadata.get("render_fps") or FPS)
                return Serial([Camera(shown, shown.render, fps)]), ""
        except Exception as error:
            reason = explain(error)
    grid, space = grid_of(env), env.observation_space
    shape = space.shape or ()
    if grid is not None:
        return Serial([Camera(env, partial(map_frame, grid, env.unwrapped), MAP_FPS)]), ""
    if space.dtype == np.uint8 and len(shape) == 3 and shape[-1] in (1, 3):
        return Serial([Camera(env, None, MAP_FPS)]), ""
    return Serial([env]), reason


def alone(envs: Environments) -> gym.Env[Any, Any]:
    """The environment itself."""
    assert isinstance(envs, Serial)
    return envs.envs[0]


def map_frame(grid: Grid, env: Any) -> np.ndarray:
    """A grid world's map with the agent as a dot, uint8 [height, width, 3]."""
    from PIL import Image, ImageDraw

    rows, columns = len(grid.cells), len(grid.cells[0])
    cell = max(4, min(CELL, SIDE // columns))
    image = Image.new("RGB", (columns * cell + 1, rows * cell + 1), "white")
    pen = ImageDraw.Draw(image)
    for y, row in enumerate(grid.cells):
        for x, letter in enumerate(row):
            box = (x * cell, y * cell, (x + 1) * cell, (y + 1) * cell)
            pen.rectangle(box, COLOURS.get(letter, (255, 255, 255)), (178, 178, 178))
    y, x = divmod(int(env.s), columns)
    edge = cell * 0.22
    dot = (x * cell + edge, y * cell + edge, (x + 1) * cell - edge, (y + 1) * cell - edge)
    pen.ellipse(dot, (230, 159, 0), (0, 0, 0), max(1, cell // 14))
    return np.asarray(image)


def gif(shots: list[Shot], fps: float) -> bytes:
    """The frames with env step and return above them, as an animated GIF that repeats."""
    try:
        first, *rest = [few_colours(captioned(shot)) for shot in shots]
    except ImportError as error:
        raise UsageError(f"no film without Pillow ({error}): pip install pillow") from error
    gaps = np.diff([shot.step for shot in shots]) * 1000 / fps
    durations = [max(20, round(gap)) for gap in gaps] + [LAST]
    file = io.BytesIO()
    first.save(
        file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, disposal=1
    )
    return file.getvalue()


def few_colours(image: Image) -> Image:
    """What a GIF can hold; the quick way, for it is done for every frame."""
    from PIL import Image

    return image.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def captioned(shot: Shot) -> Image:
    """A frame at the size it is looked at, under a line that says when it is."""
    from PIL import Image, ImageDraw, ImageFont

    frame = np.repeat(shot.frame, 3, 2) if shot.frame.shape[2] == 1 else shot.frame
    image = Image.fromarray(frame)
    width, height = scaled(*image.size)
    larger = width >= image.width
    way = Image.Resampling.NEAREST if larger else Image.Resampling.BILINEAR
    canvas = Image.new("RGB", (max(width, SIDE // 2), height + STRIP), "white")
    canvas.paste(image.resize((width, height), way), (0, STRIP))
    text = f"env step {shot.step}   return {shot.total:g}"
    ImageDraw.Draw(canvas).text((4, 2), text, "black", ImageFont.load_default(13))
    return canvas


def scaled(width: int, height: int) -> tuple[int, int]:
    """The size at which a frame is looked at: both sides at most SIDE, small ones enlarged."""
    longest = max(width, height)
    if 2 * longest <= SIDE:
        factor = SIDE // longest
        return width * factor, height * factor
    if longest <= SIDE:
        return width, height
    return round(width * SIDE / longest), round(height * SIDE / longest)
