"""Drawings of what an autoencoder gives back, beside what it was shown, and along its codes.

They draw arrays, computed by `seqrl.networks.diagnosis.codes`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.training.pictures import canvas
from seqrl.training.pictures.canvas import HEAD, RIGHT, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 0.15  # inches beside the images


def draw_given_back(shown: np.ndarray, given_back: np.ndarray) -> Figure:
    """Draw observations [M, ...] above what was given back of them."""
    rows = np.stack([images(shown), images(given_back)])
    return draw_tiles("above what was shown, below what is given back", rows)


def draw_drawn(drawn: np.ndarray) -> Figure:
    """Draw observations [M, ...] whose codes were drawn, in two lines."""
    half = len(drawn) // 2
    shown = images(drawn)[: 2 * half]
    return draw_tiles("codes drawn from the prior", shown.reshape(2, half, *shown.shape[1:]))


def draw_walk(walk: np.ndarray, changed: tuple[int, int]) -> Figure:
    """Draw observations [K, K, ...] along two numbers of the code."""
    down, across = changed
    title = f"along the code: number {down} down, {across} across"
    flat = images(walk.reshape(-1, *walk.shape[2:]))
    return draw_tiles(title, flat.reshape(*walk.shape[:2], *flat.shape[1:]))


def draw_tiles(title: str, tiles: np.ndarray) -> Figure:
    """Draw images [rows, columns, H, W] side by side."""
    edged = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    whole = edged.transpose(0, 2, 1, 3).reshape(edged.shape[0] * edged.shape[2], -1)
    width = WIDTH - SIDE - RIGHT
    height = min(width * whole.shape[0] / whole.shape[1], 2 * width)
    figure = canvas.new_figure(SIDE + height + HEAD)
    panel = canvas.add_panel(figure, SIDE, SIDE, width, height)
    image = panel.imshow(whole, interpolation="nearest", cmap="cividis", aspect="auto")
    panel.set_axis_off()
    canvas.set_title(panel, title)
    canvas.colour_bar(figure, image, SIDE, height, "", 3)
    return figure


def images(obs: Any) -> np.ndarray:
    """Return observations [M, ...] as images [M, H, W]: without channels, a vector as a square."""
    obs = np.asarray(obs, np.float32)
    if obs.ndim == 4:
        return obs.mean(-1 if obs.shape[-1] <= obs.shape[1] else 1)
    if obs.ndim == 3:
        return obs
    flat = obs.reshape(len(obs), -1)
    side = math.isqrt(flat.shape[1])
    return flat.reshape(len(obs), side if side**2 == flat.shape[1] else 1, -1)
