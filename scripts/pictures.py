"""The pictures of a run, from its config."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core import UsageError
from seqrl.envs import Environments
from seqrl.training.evaluation import Evaluation
from seqrl.training.gallery import Gallery


def gallery(config: dict[str, Any], seed: np.random.SeedSequence | None) -> Gallery:
    """What draws the agents of a run."""
    return Gallery(partial(stage, config), seed=seed, watch=watch)


def stage(config: dict[str, Any], **more: Any) -> Environments:
    """One environment of a run, on the CPU, with more arguments."""
    from seqrl.scripts.build import build_envs

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws, and looks for no screen
    args = {name: x for name, x in config["env_args"].items() if name != "device"}
    return build_envs({**config, "num_envs": 1, "env_args": args | more})


def watch(agent: Any, obs: Any) -> Any:
    """What the memory of an agent's network does over observations [T, ...]; None without one."""
    if not hasattr(agent, "network"):
        return None
    from seqrl.networks.activity import activity

    return activity(agent.network, obs)


def save(
    shown: Gallery, agent: Any, found: Evaluation, picture: str | None, film: str | None
) -> None:
    """Write the pictures, one below the other, as PNG, and the episode as GIF."""
    played = shown.play(agent)
    if film is not None:
        write(film, shown.film())
    if picture is not None:
        write(picture, pile([png for _, png in shown.stills(agent, found, played)]))


def pile(pictures: list[bytes]) -> bytes:
    """PNGs of one width as a single one."""
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
    """A file; refused in a line where it cannot be written."""
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    print(f"written   {path}")
