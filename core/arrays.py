"""Functions on NumPy arrays and torch tensors: host and device copies, zeros, memory checks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.types import Array, Batch, Seen, Transition

MEMINFO = Path("/proc/meminfo")


def host(leaf: Array) -> np.ndarray:
    """Return a leaf as a NumPy array; the memory of an array or CPU tensor is shared."""
    return leaf if isinstance(leaf, np.ndarray) else leaf.detach().cpu().numpy()


def is_on_host(leaf: Any) -> bool:
    """Return whether a look at a number, an array or a tensor waits for no device."""
    return not hasattr(leaf, "detach") or leaf.device.type == "cpu"


def hosted(leaves: Sequence[Array]) -> list[np.ndarray]:
    """Return arrays, or tensors of one device, as NumPy arrays: from a device in one copy."""
    if all(map(is_on_host, leaves)):
        return [host(leaf) for leaf in leaves]
    import torch

    flat = [leaf.detach().reshape(-1).contiguous().view(torch.uint8) for leaf in leaves]
    sent, found, first = torch.cat(flat).cpu().numpy(), [], 0
    for leaf, part in zip(leaves, flat, strict=True):
        dtype = torch.empty(0, dtype=leaf.dtype).numpy().dtype
        last = first + len(part)
        found.append(sent[first:last].copy().view(dtype).reshape(tuple(leaf.shape)))
        first = last
    return found


def seen(step: Transition) -> Seen:
    """Return what the host is to know of a turn; where its look has not brought it, by a copy."""
    if step.seen is not None:
        return step.seen
    flags = flags_of(step)
    return flags if isinstance(step.valid, np.ndarray) else Seen(*hosted(flags))


def flags_of(step: Transition) -> Seen:
    """Return what the host is to know of a turn, where it is."""
    return Seen(step.start, step.reward, step.terminated, step.truncated, step.valid)


def host_copy(leaf: Array) -> np.ndarray:
    """Return a copy of an array or tensor as a NumPy array."""
    return np.array(host(leaf))


def to_numpy(values: Any) -> Any:
    """Return a tree of arrays or tensors as NumPy arrays (see `host`)."""
    return tree.map(host, values)


def to_tensor(values: Any, device: Any) -> Any:
    """Return a tree of arrays as tensors on a device; tensors already there are not copied.

    Arrays are copied: the last bit of a product can depend on how its factors lie in memory, which
    torch aligns by more than NumPy does.
    """
    import torch  # imported here, as tabular agents must not need it

    def convert(leaf: Array) -> Any:
        if isinstance(leaf, np.ndarray):
            return torch.tensor(np.asarray(leaf, order="C"), device=device)
        return torch.as_tensor(leaf, device=device)

    return tree.map(convert, values)


def on_device(batch: Batch, device: Any) -> Batch:
    """Return a batch as tensors on a device (see `to_tensor`)."""
    bare = batch._replace(valid_count=None, starts=None)
    sent = Batch(*to_tensor(tuple(bare), device))
    return sent._replace(valid_count=batch.valid_count, starts=batch.starts)


def like(values: Any, leaf: Array) -> Any:
    """Return a copy of a tree of arrays or tensors, of the type and on the device of `leaf`."""
    if isinstance(leaf, np.ndarray):
        return tree.map(host_copy, values)
    return to_tensor(tree.map(host_copy, values), leaf.device)


def zeros(length: int, leaf: Array) -> Array:
    """Return zeros [length, *leaf.shape] of the leaf's type, dtype and device."""
    shape = (length, *leaf.shape)
    return np.zeros(shape, leaf.dtype) if isinstance(leaf, np.ndarray) else leaf.new_zeros(shape)


def joined(parts: Sequence[Array], axis: int) -> Array:
    """Return arrays or tensors of one kind, concatenated."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis)
    import torch

    return torch.cat(list(parts), axis)


def as_float32(leaf: Array) -> Array:
    """Return the leaf as 32-bit floats, of the same kind."""
    return leaf.astype(np.float32) if isinstance(leaf, np.ndarray) else leaf.float()


def arange(length: int, leaf: Array) -> Array:
    """Return 0 ... length - 1, int64 of the kind, and on the device, of `leaf`."""
    if isinstance(leaf, np.ndarray):
        return np.arange(length)
    import torch

    return torch.arange(length, device=leaf.device)


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Raise UsageError where the `needed` bytes of `what` exceed 80 % of the free memory."""
    free = available_memory()
    if needed > 0.8 * free:
        gigabytes = Decimal(int(needed)) / 2**30  # of any size, as a float would not be
        sizes = f"{gigabytes:,.1f} GiB, {free / 2**30:,.1f} are free"
        raise UsageError(f"{what} takes {sizes}; {remedy}")


def available_memory() -> int:
    """Return the bytes that can be had without swapping; all there are where that is not known.

    The system's caches, which are given back, are among them, unlike in its free pages.
    """
    try:
        found = re.search(r"^MemAvailable: *(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    if found:
        return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
