"""Trees of arrays: a leaf, or nested tuples and dicts of leaves (observations, memory, spaces)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` leaf by leaf; the `others` have the same shape. None stays None."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map(function, tree[key], *(o[key] for o in others)) for key in tree}
    if isinstance(tree, tuple):
        return tuple(map(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves in order; None has none."""
    if isinstance(tree, dict):
        for key in tree:
            yield from leaves(tree[key])
    elif isinstance(tree, tuple):
        for part in tree:
            yield from leaves(part)
    elif tree is not None:
        yield tree


def host(leaf: Any) -> np.ndarray:
    """A copy of an array or tensor as a NumPy array."""
    return np.array(leaf if isinstance(leaf, np.ndarray) else leaf.cpu().numpy())


def like(tree: Any, leaf: Any) -> Any:
    """A copy of a tree of arrays or tensors in the kind, and on the device, of `leaf`."""
    if isinstance(leaf, np.ndarray):
        return map(host, tree)
    import torch  # here, as arrays must not need it

    return map(lambda each: torch.tensor(host(each), device=leaf.device), tree)


def row(tree: Any, i: int) -> Any:
    """Row i of every leaf."""
    return map(lambda leaf: leaf[i], tree)
