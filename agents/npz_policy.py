"""A policy as arrays and the steps between them, which `read_policy` takes with NumPy alone."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np

from seqrl.core import action_mask

Path = Sequence[str | int]  # keys to a leaf of observations
Step = tuple[Any, ...]  # the name of one of the reader's functions, and what it takes beside x


def npz(paths: Sequence[Path], steps: Sequence[Step]) -> bytes:
    """Return a policy as the bytes of an npz file.

    The leaves of an observation at these paths, joined to a vector x, go through the steps. Of
    what a step takes, a text names an array of the reader's own: "legal" is the action mask.
    """
    arrays: dict[str, Any] = {}
    named = []
    for i, (function, *taken) in enumerate(steps):
        names = [x if isinstance(x, str) else f"{i}.{function}.{j}" for j, x in enumerate(taken)]
        pairs = zip(names, taken, strict=True)
        arrays |= {name: np.asarray(x) for name, x in pairs if not isinstance(x, str)}
        named.append([function, *names])
    file, layout = io.BytesIO(), json.dumps({"paths": paths, "steps": named})
    np.savez_compressed(file, layout=np.array(layout), **arrays)
    return file.getvalue()


def choice(space: Any, counts: Sequence[int], start: Any) -> Step:
    """Return the step to the action of the largest number, for each of several choices.

    space: of the observations, which may tell the actions that can be taken.
    start: of the action space: [choices], or one number where the action is one number.
    """
    legal = np.ones(sum(counts), bool) if space is action_mask.rest_space(space) else "legal"
    return "choose", legal, counts, start


def whole_path(space: Any, path: Path) -> Path:
    """Return the keys to a leaf of observations, from the keys to it in what an agent sees of them.

    Where one entry is left beside an action mask, it is seen by itself.
    """
    if space is action_mask.rest_space(space) or len(space.spaces) > 2:
        return path
    (name,) = space.spaces.keys() - {action_mask.NAME}
    return [name, *path]


def read_policy(path: Any) -> Any:
    """Return the policy in a file of `seqrl export`, a function from observation to action."""
    file = dict(np.load(path))
    layout = json.loads(str(file["layout"]))

    def choose(x: Any, legal: Any, counts: Any, start: Any) -> Any:
        both = (np.split(part, np.cumsum(counts)[:-1]) for part in (x, legal))
        groups = [np.where(ok | ~ok.any(), part, -np.inf) for part, ok in zip(*both, strict=True)]
        return np.reshape([part.argmax() for part in groups], start.shape) + start

    functions: dict[str, Any] = {
        "tile": lambda x, low, high, width, last, offsets: np.floor(
            np.minimum((np.clip(x, low, high) - low) / width, last) + offsets
        ),
        "rows": lambda x, strides, first: (x @ strides + first).astype(int),
        "mean": lambda x, q: q[x].mean(0),
        "numbers": lambda x, scale: x.astype(scale.dtype) / scale,
        "one_hot": lambda x, shift, n: np.bincount(x + shift, minlength=n),
        "normalize": lambda x, mean, scale, limit: np.clip((x - mean) * scale, -limit, limit),
        "linear": lambda x, weight, bias: x.astype(weight.dtype) @ weight + bias,
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "sigmoid": lambda x: 0.5 * np.tanh(0.5 * x) + 0.5,
        "dueling": lambda x: x[0] + x[1:] - x[1:].mean(),
        "choose": choose,
        "positive": lambda x, like: (x > 0).astype(like.dtype).reshape(like.shape),
        "squash": lambda x, bounded: np.where(bounded, np.tanh(x), x),
        "scaled": lambda x, center, reach: center + reach * x.reshape(center.shape),
        "clip": np.clip,
    }

    def act(obs: Any) -> Any:
        x = np.concatenate([np.ravel(reduce(getitem, keys, obs)) for keys in layout["paths"]])
        masked = isinstance(obs, dict) and "action_mask" in obs
        arrays = {**file, "legal": np.asarray(obs["action_mask"]) != 0} if masked else file
        for name, *taken in layout["steps"]:
            x = functions[name](x, *(arrays[key] for key in taken))
        return x

    return act
