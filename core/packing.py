"""Batches that are gathered only when they are packed, and sent to a device in one copy.

A batch is made of pieces: arrays, or rows to be picked from one. Where the rows are on the device
already, only which ones is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.core import tree
from seqrl.core.types import Array, Batch

if TYPE_CHECKING:
    import torch

LINE = 64  # bytes; torch aligns to as many, and the last bit of a product can depend on it
PACKED = Batch._fields.index("indices")  # of a batch's fields so many are packed


class Pick:
    """Rows `at` [...] of an array [R, *shape]: [..., *shape], copied only when they are packed."""

    def __init__(self, source: Array, at: np.ndarray):
        self.dtype, self.shape = source.dtype, (*at.shape, *source.shape[1:])
        self.source, self.at = source, at

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return self.dtype.itemsize * math.prod(self.shape)

    def write(self, memory: np.ndarray) -> np.ndarray:
        """Copy the rows into bytes; return them as an array of these."""
        out = memory.view(self.dtype).reshape(self.shape)
        return np.take(self.source, self.at, 0, out, mode="clip")  # "raise" would copy twice

    @property
    def sends(self) -> list[Piece]:
        """What a device has to be sent: all, or of rows that it has their places."""
        return [self] if isinstance(self.source, np.ndarray) else [self.at]

    def on_device(self, sent: Iterator[torch.Tensor]) -> torch.Tensor:
        """Return the rows, of what was sent."""
        found = next(sent)
        if isinstance(self.source, np.ndarray):
            return found
        return self.source.index_select(0, found.reshape(-1)).view(self.shape)


class Summed:
    """Rewards at [n, B] of a tensor [R], summed by weights [n - 1, B] behind the first: [2, B].

    Row 1 is 0.
    """

    def __init__(self, source: torch.Tensor, at: np.ndarray, weights: list[np.ndarray]):
        self.source, self.at, self.weights = source, at, weights

    @property
    def sends(self) -> list[Piece]:
        """What a device has to be sent."""
        return [self.at, *self.weights]

    def on_device(self, sent: Iterator[torch.Tensor]) -> torch.Tensor:
        """Return the sums, of what was sent."""
        import torch

        at = next(sent)
        rewards = self.source.index_select(0, at.reshape(-1)).view(at.shape)
        total = rewards[0]
        for reward, _ in zip(rewards[1:], self.weights, strict=True):
            total = total + next(sent) * reward
        return torch.stack([total, total * 0]).float()


Piece = Pick | Summed | np.ndarray


def pack(pieces: Any, device: torch.device | None) -> Any:
    """Return a tree of pieces as tensors on a device; as NumPy arrays without one."""
    if device is None:
        return tree.map(array_of, pieces)
    if device.type == "cpu":
        return tree.map(tensor_of, pieces)
    return sent_at_once(pieces, device)


def packed(batches: Iterable[Batch], device: torch.device | None) -> list[Batch]:
    """Return batches as `pack` makes them, all at once, without indices and extra leaves."""
    listed = list(batches)
    made = pack(tuple(tuple(batch[:PACKED]) for batch in listed), device)
    pairs = zip(made, listed, strict=True)
    return [Batch._make((*leaves, None, {}, None, batch.starts)) for leaves, batch in pairs]


def array_of(piece: Any) -> np.ndarray:
    """Return the piece as an array."""
    return piece.source.take(piece.at, 0) if isinstance(piece, Pick) else piece


def tensor_of(piece: Any) -> torch.Tensor:
    """Return the piece as a tensor; what goes through products lies as torch would put it."""
    import torch

    if not isinstance(piece, Pick) or piece.dtype.kind != "f":
        return torch.from_numpy(array_of(piece))
    memory = torch.empty(piece.nbytes, dtype=torch.uint8).numpy()
    return torch.from_numpy(piece.write(memory))


def sent_at_once(pieces: Any, device: torch.device) -> Any:
    """Return the pieces as tensors on a device, what is sent of them copied there in one piece."""
    import torch

    sends = [x for piece in tree.leaves(pieces) for x in sends_of(piece)]
    parts: dict[int, Any] = {id(x): x for x in sends}  # what several pieces share goes once
    begins, size = {}, 0
    for key, part in parts.items():
        begins[key] = size
        size += -(-part.nbytes // LINE) * LINE
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    memory = buffer.numpy()
    for key, part in parts.items():
        place = memory[begins[key] : begins[key] + part.nbytes]
        if isinstance(part, Pick):
            part.write(place)
        else:
            place.view(part.dtype).reshape(part.shape)[...] = part
    there = buffer.to(device, non_blocking=True)

    def found(part: Any) -> torch.Tensor:
        begin, dtype = begins[id(part)], torch.from_numpy(np.empty(0, part.dtype)).dtype
        return there[begin : begin + part.nbytes].view(dtype).view(part.shape)

    def made(piece: Any) -> torch.Tensor:
        sent = iter([found(part) for part in sends_of(piece)])
        return next(sent) if isinstance(piece, np.ndarray) else piece.on_device(sent)

    return tree.map(made, pieces)


def sends_of(piece: Any) -> list[Any]:
    """Return what a device has to be sent of a piece."""
    return [piece] if isinstance(piece, np.ndarray) else piece.sends
