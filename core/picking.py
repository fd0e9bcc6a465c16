"""Functions that take some entries of arrays or tensors: columns, or rows where a mask holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def sent_to(leaf: Any, index: Any) -> Any:
    """Return an index for a leaf: a tensor on its device, or for an array as it is."""
    if isinstance(leaf, np.ndarray) or isinstance(index, slice):
        return index
    import torch  # imported here, as tabular agents must not need it

    if hasattr(index, "detach") or leaf.device.type == "cpu":
        return torch.as_tensor(index, device=leaf.device)
    own = torch.from_numpy(index)  # in memory that is pinned, so that the host does not wait
    pinned = torch.empty(own.shape, dtype=own.dtype, pin_memory=True).copy_(own)
    return pinned.to(leaf.device, non_blocking=True)


def column_picker(index: Any, like: Any) -> Callable[[Any, int], Any]:
    """Return what takes entries `index`, along axis 0 or 1, of leaves such as `like`."""
    index = sent_to(like, index)  # once, not for every leaf
    if not hasattr(index, "detach"):
        return lambda leaf, axis: leaf[:, index] if axis else leaf[index]
    return lambda leaf, axis: leaf.index_select(axis, index)  # half the time of leaf[:, index]


def rows_where(mask: Any, count: int | None = None) -> Any:
    """Return the rows [R] of [T, B], counted as one axis, in which a mask [T, B] holds.

    count: R, where the host knows it; then it waits for no device.
    """
    if isinstance(mask, np.ndarray):
        return np.flatnonzero(mask)
    flat = mask.reshape(-1)
    return (flat.nonzero() if count is None else flat.nonzero_static(size=count))[:, 0]


def taken(leaf: Any, rows: Any) -> Any:
    """Return rows [R, ...] of a leaf [T, B, ...] (see `rows_where`)."""
    flat = leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])
    return flat[rows] if isinstance(flat, np.ndarray) else flat.index_select(0, rows)


def where(mask: Any, new: Any, old: Any) -> Any:
    """Return the items of `new` where `mask` [N] holds, else of `old`; arrays or tensors."""
    mask = mask.reshape(mask.shape + (1,) * (old.ndim - 1))
    return np.where(mask, new, old) if isinstance(old, np.ndarray) else new.where(mask, old)
