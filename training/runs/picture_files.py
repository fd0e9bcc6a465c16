"""Writing the pictures and the film of an agent to files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.training.loop.evaluation import Evaluation
from seqrl.training.runs.parts import RunParts, agent_pictures


def save(
    parts: RunParts, evaluation: Evaluation, seed: int, png: str | None, gif: str | None
) -> Iterator[str]:
    """Write all pictures to a PNG and the seed's first episode to a GIF, each if it is named.

    Yields each path when it is written; UsageError where it cannot be.
    """
    pictures = agent_pictures(parts.config, np.random.SeedSequence(seed))
    played = pictures.play(parts.agent)
    if gif is not None:
        yield write(gif, pictures.film())
    if png is not None:
        yield write(
            png, stack([data for _, data in pictures.draw(parts.agent, evaluation, played)])
        )


def stack(pictures: list[bytes]) -> bytes:
    """Return PNGs of one width as a single one, below each other."""
    from PIL import Image

    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in pictures]
    whole = Image.new("RGB", (images[0].width, sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    file = io.BytesIO()
    whole.save(file, "PNG", optimize=True)
    return file.getvalue()


def write(path: str, data: bytes) -> str:
    """Write a file and return its path; UsageError where it cannot be written."""
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return path
