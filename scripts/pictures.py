"""Writing the pictures and the film of an agent to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqrl.core import UsageError
from seqrl.training.loop.evaluation import Evaluation
from seqrl.training.pictures.picture_logger import AgentPictures


def save(
    pictures: AgentPictures, agent: Any, evaluation: Evaluation, png: str | None, gif: str | None
) -> None:
    """Write the pictures, one below the other, to a PNG and the episode to a GIF, each if named."""
    played = pictures.play(agent)
    if gif is not None:
        write(gif, pictures.film())
    if png is not None:
        write(png, stack([data for _, data in pictures.draw(agent, evaluation, played)]))


def stack(pictures: list[bytes]) -> bytes:
    """Return PNGs of one width as a single one, below each other."""
    import io

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


def write(path: str, data: bytes) -> None:
    """Write a file and say so; UsageError where it cannot be written."""
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    print(f"written   {path}")
