"""Films: an environment that records the frames of an episode, and their animated GIF."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np

from seqrl.core.errors import UsageError, explain
from seqrl.envs.adapter import Environments, Serial
from seqrl.envs.grids import Grid, grid_of

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FRAMES = 60  # of a longer episode every second, every fourth, ... is kept
MAX_SIDE = 320  # pixels; small frames are enlarged to about as much
CAPTION_HEIGHT = 20  # pixels
FPS = 30  # where the environment states none
MAP_FPS = 4  # of maps and image observations, which change a lot from frame to frame
LAST_FRAME_MS = 1500  # how long the last frame is shown
MAX_CELL = 40  # pixels of a map's cell
CELL_COLOURS = {"H": (60, 60, 60), "C": (60, 60, 60), "G": (0, 158, 115), "S": (207, 229, 243)}


class Frame(NamedTuple):
    """An image of the environment and when it was taken."""

    step: int  # env steps since the episode began
    total: float  # sum of the rewards until then
    image: np.ndarray  # uint8 [height, width, 3 or 1]


class FrameRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Records frames of the episode that begins next after `start_recording`.

    `capture` returns an image; None: the observations are the images.
    """

    def __init__(
        self, env: gym.Env[Any, Any], capture: Callable[[], Any] | None = None, fps: float = FPS
    ):
        super().__init__(env)
        self.capture, self.fps = capture, fps
        self.frames: list[Frame] = []
        self._recording = False

    def start_recording(self) -> None:
        """Record the episode that begins next, and only that one."""
        self.frames, self._recording = [], True
        self.every, self._step, self._total = 1, 0, 0.0

    def reset(self, **given: Any) -> Any:
        """Reset the environment and record the first frame."""
        obs, info = self.env.reset(**given)
        if self._recording:
            self._record(obs)
        return obs, info

    def step(self, action: Any) -> Any:
        """Take a step and record every `every`-th frame and the last."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self._recording:
            self._step += 1
            self._total += float(reward)
            ended = terminated or truncated
            if ended or self._step % self.every == 0:
                self._record(obs)
            self._recording = not ended
        return obs, reward, terminated, truncated, info

    def _record(self, obs: Any) -> None:
        """Add a frame; beyond MAX_FRAMES drop every second one, but never the newest."""
        image = np.array(obs if self.capture is None else self.capture(), np.uint8)
        self.frames.append(Frame(self._step, self._total, image))
        if len(self.frames) > MAX_FRAMES:
            self.every *= 2
            *before, last = self.frames
            self.frames = [frame for frame in before if frame.step % self.every == 0] + [last]


def make_recorded(build: Callable[..., Environments]) -> tuple[Serial, str]:
    """Make one environment, in a FrameRecorder if it has images; and say why not, "" if it has.

    `build(**env_args)` makes it. The frames are what it renders; where it cannot, a grid world's
    map; else observations that are images.
    """
    env, reason = single_env(build()), "it renders nothing and its observations are no images"
    if "rgb_array" in (env.metadata.get("render_modes") or ()):
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            rendered: Any = single_env(build(render_mode="rgb_array"))
            rendered.reset(seed=0)
            if np.ndim(rendered.render()) == 3:
                fps = float(rendered.metadata.get("render_fps") or FPS)
                return Serial([FrameRecorder(rendered, rendered.render, fps)]), ""
        except Exception as error:
            reason = explain(error)
    grid, space = grid_of(env), env.observation_space
    shape = space.shape or ()
    if grid is not None:
        return Serial([FrameRecorder(env, partial(map_frame, grid, env.unwrapped), MAP_FPS)]), ""
    if space.dtype == np.uint8 and len(shape) == 3 and shape[-1] in (1, 3):
        return Serial([FrameRecorder(env, None, MAP_FPS)]), ""
    return Serial([env]), reason


def single_env(envs: Environments) -> gym.Env[Any, Any]:
    """Return the first environment of a `Serial`."""
    assert isinstance(envs, Serial)
    return envs.envs[0]


def map_frame(grid: Grid, env: Any) -> np.ndarray:
    """Draw a grid world's map with the agent as a dot, uint8 [height, width, 3]."""
    from PIL import Image, ImageDraw

    rows, columns = len(grid.cells), len(grid.cells[0])
    cell = max(4, min(MAX_CELL, MAX_SIDE // columns))
    image = Image.new("RGB", (columns * cell + 1, rows * cell + 1), "white")
    pen = ImageDraw.Draw(image)
    for y, row in enumerate(grid.cells):
        for x, letter in enumerate(row):
            box = (x * cell, y * cell, (x + 1) * cell, (y + 1) * cell)
            pen.rectangle(box, CELL_COLOURS.get(letter, (255, 255, 255)), (178, 178, 178))
    y, x = divmod(int(env.s), columns)
    edge = cell * 0.22
    dot = (x * cell + edge, y * cell + edge, (x + 1) * cell - edge, (y + 1) * cell - edge)
    pen.ellipse(dot, (230, 159, 0), (0, 0, 0), max(1, cell // 14))
    return np.asarray(image)


def gif(frames: list[Frame], fps: float) -> bytes:
    """Return the frames, captioned with env step and return, as an animated GIF that repeats."""
    try:
        first, *rest = [quantize(captioned(frame)) for frame in frames]
    except ImportError as error:
        raise UsageError(f"no film without Pillow ({error}): pip install pillow") from error
    gaps = np.diff([frame.step for frame in frames]) * 1000 / fps
    durations = [max(20, round(gap)) for gap in gaps] + [LAST_FRAME_MS]
    file = io.BytesIO()
    first.save(
        file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, disposal=1
    )
    return file.getvalue()


def quantize(image: Image) -> Image:
    """Return the image reduced to a palette of 128 colours, as a GIF needs."""
    from PIL import Image

    return image.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def captioned(frame: Frame) -> Image:
    """Return a frame at its display size, below a line with its env step and return."""
    from PIL import Image, ImageDraw, ImageFont

    rgb = np.repeat(frame.image, 3, 2) if frame.image.shape[2] == 1 else frame.image
    image = Image.fromarray(rgb)
    width, height = display_size(*image.size)
    enlarged = width >= image.width
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
    canvas = Image.new("RGB", (max(width, MAX_SIDE // 2), height + CAPTION_HEIGHT), "white")
    canvas.paste(image.resize((width, height), method), (0, CAPTION_HEIGHT))
    text = f"env step {frame.step}   return {frame.total:g}"
    ImageDraw.Draw(canvas).text((4, 2), text, "black", ImageFont.load_default(13))
    return canvas


def display_size(width: int, height: int) -> tuple[int, int]:
    """Return the display size of a frame: sides of MAX_SIDE at most, small frames enlarged."""
    longest = max(width, height)
    if 2 * longest <= MAX_SIDE:
        factor = MAX_SIDE // longest
        return width * factor, height * factor
    if longest <= MAX_SIDE:
        return width, height
    return round(width * MAX_SIDE / longest), round(height * MAX_SIDE / longest)
