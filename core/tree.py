"""Trees of arrays: a leaf, or nested tuples and dicts of leaves (observations, memory, spaces)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` leaf by leaf; the `others` have the same structure. None stays None."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map(function, tree[key], *(o[key] for o in others)) for key in tree}
    if isinstance(tree, tuple):
        return tuple(map(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)


def leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves in order; None has none."""
    if isinstance(tree, dict):
        for key in tree:
            yield from leaves(tree[key])
    elif isinstance(tree, tuple):
        for part in tree:
            yield from leaves(part)
    elif tree is not None:
        yield tree


def take(tree: Any, i: int) -> Any:
    """Return entry i of every leaf."""
    return map(lambda leaf: leaf[i], tree)


def put(tree: Any, i: int, values: Any) -> None:
    """Write the leaves of `values`, a tree of the same structure, into entry i of every leaf."""
    if isinstance(values, dict):
        for key, part in values.items():
            put(tree[key], i, part)
    elif isinstance(values, tuple):
        for inner, part in zip(tree, values, strict=True):
            put(inner, i, part)
    elif values is not None:
        tree[i] = values
