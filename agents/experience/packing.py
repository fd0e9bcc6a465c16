"""Batches picked from large arrays: gathered into one piece of memory and sent in one copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.core import tree

LINE = 64  # bytes; torch aligns to as many, and the last bit of a product can depend on it


class Pick:
    """Rows `at` [...] of an array [R, *shape]: [..., *shape], copied only when they are packed."""

    def __init__(self, source: np.ndarray, at: np.ndarray):
        self.dtype, self.shape = source.dtype, at.shape + source.shape[1:]
        self.source, self.at = source, at

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return self.dtype.itemsize * math.prod(self.shape)

    def write(self, memory: np.ndarray) -> np.ndarray:
        """Copy the rows into bytes; as an array of these."""
        out = memory.view(self.dtype).reshape(self.shape)
        return np.take(self.source, self.at, 0, out, mode="clip")  # "raise" would copy twice


Piece = Pick | np.ndarray


def pack(pieces: Any, device: torch.device) -> Any:
    """A tree of Picks and arrays as a tree of tensors on a device."""
    if device.type == "cpu":
        return tree.map(gathered, pieces)
    listed: list[Piece] = list(tree.leaves(pieces))
    begins = [0]
    for piece in listed:
        begins.append(begins[-1] + -(-piece.nbytes // LINE) * LINE)
    buffer = torch.empty(begins[-1], dtype=torch.uint8, pin_memory=True)
    memory = buffer.numpy()
    for piece, begin in zip(listed, begins, strict=False):
        part = memory[begin : begin + piece.nbytes]
        if isinstance(piece, Pick):
            piece.write(part)
        else:
            part.view(piece.dtype).reshape(piece.shape)[...] = piece
    sent, begin_of = buffer.to(device), iter(begins)

    def unpack(piece: Piece) -> Tensor:
        begin = next(begin_of)
        dtype = torch.from_numpy(np.empty(0, piece.dtype)).dtype
        return sent[begin : begin + piece.nbytes].view(dtype).view(piece.shape)

    return tree.map(unpack, pieces)


def gathered(piece: Piece) -> Tensor:
    """The piece as a tensor; numbers that go through products lie as torch would have put them."""
    if not isinstance(piece, Pick):
        return torch.from_numpy(piece)
    if piece.dtype.kind != "f":
        return torch.from_numpy(piece.source.take(piece.at, 0))
    memory = torch.empty(piece.nbytes, dtype=torch.uint8).numpy()
    return torch.from_numpy(piece.write(memory))
