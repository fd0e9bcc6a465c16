"""Data sets that are generated from a seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from seqrl.envs.tasks.rows import Rows

SEGMENTS = {  # of a display, between the corners of a box: left and right at its top, middle, foot
    "a": (0, 1), "b": (1, 3), "c": (3, 5), "d": (4, 5), "e": (2, 4), "f": (0, 2), "g": (2, 3)
}  # fmt: skip
LIT = ["abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgecd", "abc", "abcdefg", "abcdfg"]
PIXELS = 8


def digits(size: int, noise: float, rng: np.random.Generator) -> Rows:
    """Return digits of seven strokes in boxes of random place, size and slant, flattened."""
    label = rng.integers(10, size=size)
    centre = 3.5 + rng.uniform(-0.5, 0.5, (size, 2))
    half = np.array([3.0, 1.6]) * rng.uniform(0.85, 1.1, (size, 2))
    slant, pen = rng.uniform(-0.1, 0.3, size), rng.uniform(0.5, 0.9, (size, 1, 1))
    box = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 1)])  # [6, 2]
    corners = centre[:, None] + half[:, None] * box  # [M, 6, (y, x)]
    corners[..., 1] -= slant[:, None] * half[:, :1] * box[:, 0]
    corners += rng.normal(0, 0.1, corners.shape)
    pixel = np.moveaxis(np.indices((PIXELS, PIXELS)), 0, -1).astype(float)  # [8, 8, (y, x)]
    ink = np.zeros((size, PIXELS, PIXELS))
    for name, ends in SEGMENTS.items():
        lit = np.array([name in strokes for strokes in LIT])[label]
        start, end = (corners[:, None, None, i] for i in ends)
        stroke = np.clip(1.4 - distance(pixel, start, end) / pen, 0, 1)
        ink = np.maximum(ink, stroke * lit[:, None, None])
    clean = (ink * rng.uniform(0.6, 1, (size, 1, 1))).reshape(size, -1).astype(np.float32)
    shown = np.clip(clean + noise * rng.standard_normal(clean.shape), 0, 1).astype(np.float32)
    return Rows(shown, clean, label, [str(digit) for digit in range(10)])


def distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return how far points are from the stretches between two points; leaves [..., 2]."""
    along = end - start
    share = ((point - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    return np.sqrt(((point - nearest) ** 2).sum(-1))


def line(size: int, noise: float, rng: np.random.Generator) -> Rows:
    """Return points near y = 3 x + 2."""
    x = rng.uniform(0, 1, (size, 1))
    return points(x, 3 * x + 2 + noise * rng.standard_normal(x.shape))


def curve(size: int, noise: float, rng: np.random.Generator) -> Rows:
    """Return points near y = 30 x^2 + 0.5 x + 0.2."""
    x = rng.uniform(-2, 2, (size, 1))
    return points(x, 30 * x**2 + 0.5 * x + 0.2 + noise * rng.standard_normal(x.shape))


def points(x: np.ndarray, y: np.ndarray) -> Rows:
    """Return rows of numbers [M, F] and the numbers [M, K] that belong to them."""
    return Rows(x.astype(np.float32), x.astype(np.float32), y.astype(np.float32), [])


Generator = Callable[[int, float, np.random.Generator], Rows]
GENERATED: dict[str, tuple[Generator, int]] = {  # and how many rows by default
    "digits": (digits, 2000),
    "line": (line, 300),
    "curve": (curve, 300),
}


@cache
def generated(name: str, size: int | None, noise: float, seed: int) -> Rows:
    """Return the rows of a set by its name; many environments share them."""
    generate, default = GENERATED[name]
    return generate(size or default, noise, np.random.default_rng(seed))
