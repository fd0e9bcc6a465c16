"""Trees of arrays and plain values in one file that can hold nothing else.

Layout: a line naming the format, a line with the SHA-256 and size of the header, the header (JSON:
the tree, and for each array its dtype, shape and SHA-256), then the arrays' bytes one after the
other. Nothing is pickled and no name in the file is ever imported, so reading a foreign file
cannot run code; what `save` would not write bit for bit the same is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core import UsageError

MAGIC = b"seqrl checkpoint 1\n"
DTYPES = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
DTYPES |= {"float16", "float32", "float64"}
HEADER_LIMIT = 64 << 20
SEAL = re.compile(rb"([0-9a-f]{64}) (\d{20})\n")  # SHA-256 and size of the header
SEAL_SIZE = 86
# what a header leads to that has valid checksums and yet makes no sense
SENSELESS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Damaged(Exception):
    """A file that `save` did not write, or that has changed since."""


def save(path: Path, tree: Any) -> None:
    """Write the tree under another name first, so that `path` is either whole or not there."""
    arrays: list[np.ndarray] = []
    header = pack(tree, arrays)
    draft = path.with_name(path.name + ".part")
    try:
        with open(draft, "wb") as file:
            file.write(header)
            for array in arrays:
                file.write(array.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make a rename survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(tree: Any) -> str:
    """SHA-256 over everything in a tree: two equal ones are equal to the last bit."""
    return hashlib.sha256(pack(tree, [])).hexdigest()


def pack(tree: Any, arrays: list[np.ndarray]) -> bytes:
    """The file up to the arrays' bytes; the arrays are put into the list."""
    entries: list[dict[str, Any]] = []

    def add(array: np.ndarray) -> int:
        if array.dtype.name not in DTYPES:
            raise TypeError(f"an array of {array.dtype} cannot be saved")
        array = np.asarray(array, array.dtype.name, order="C")  # in this computer's byte order
        sha = hashlib.sha256(array.tobytes()).hexdigest()
        entries.append({"dtype": array.dtype.name, "shape": list(array.shape), "sha256": sha})
        arrays.append(array)
        return len(entries) - 1

    content = {"tree": encode(tree, add), "arrays": entries}
    header = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return MAGIC + f"{hashlib.sha256(header).hexdigest()} {len(header):020d}\n".encode() + header


def encode(tree: Any, add: Any) -> Any:
    """A tree as JSON; what JSON has no form for is a one-key object."""
    if isinstance(tree, np.generic):
        tree = tree.item()
    if tree is None or isinstance(tree, bool | int | str):
        return tree
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else {"float": repr(tree)}
    if isinstance(tree, np.ndarray):
        return {"array": add(tree)}
    if hasattr(tree, "detach"):  # a torch tensor comes back as an array
        return {"array": add(tree.detach().cpu().numpy())}
    if isinstance(tree, list | tuple):
        parts = [encode(part, add) for part in tree]
        return parts if isinstance(tree, list) else {"tuple": parts}
    if isinstance(tree, dict):
        if all(isinstance(key, str) for key in tree):
            return {"dict": {key: encode(part, add) for key, part in tree.items()}}
        return {"items": [[encode(key, add), encode(part, add)] for key, part in tree.items()]}
    raise TypeError(f"a {type(tree).__name__} cannot be saved")


def load(path: Path, limit: int = 16 << 30) -> Any:
    """Read a tree back; anything that is not exactly what was written is refused (UsageError).

    `limit` bounds the bytes of all arrays together; sizes are checked before anything is allocated.
    """
    try:
        with open(path, "rb") as file:
            return read(file, limit)
    except OSError as error:
        raise UsageError(f"checkpoint {path}: {error.strerror or error}") from error
    except Damaged as error:
        raise UsageError(f"checkpoint {path}: {error}; take an older checkpoint") from error
    except SENSELESS as error:
        problem = "the header describes no checkpoint of ours"
        raise UsageError(f"checkpoint {path}: {problem}; take an older checkpoint") from error


def read(file: Any, limit: int) -> Any:
    """Read a tree from an open file; a header that makes no sense raises what it leads to."""
    if file.read(len(MAGIC)) != MAGIC:
        raise Damaged(f"the first line is not {MAGIC.decode().strip()!r}")
    seal = file.read(SEAL_SIZE)
    found = SEAL.fullmatch(seal)
    if not found or int(found[2]) > HEADER_LIMIT:
        raise Damaged("the header has no believable size")
    header = file.read(int(found[2]))
    if hashlib.sha256(header).hexdigest() != found[1].decode():
        raise Damaged("the header is damaged")
    content = json.loads(header)
    claims = [(entry["dtype"], entry["shape"]) for entry in content["arrays"]]
    sizes = [claimed_size(*claim) for claim in claims]
    left = os.fstat(file.fileno()).st_size - file.tell()
    if sum(sizes) != left:
        raise Damaged(f"the file has {left:,} bytes of arrays, expected {sum(sizes):,}")
    if left > limit:
        raise Damaged(f"the file has {left:,} bytes of arrays, more than {limit:,}")
    arrays = [
        np.frombuffer(file.read(size), dtype).reshape(shape).copy()
        for (dtype, shape), size in zip(claims, sizes, strict=True)
    ]
    tree = decode(content["tree"], arrays)
    if pack(tree, []) != MAGIC + seal + header:
        raise Damaged("what the file holds is not what was written")
    return tree


def claimed_size(dtype: str, shape: list[int]) -> int:
    """Bytes of an array as its entry claims them."""
    if dtype not in DTYPES or any(side < 0 for side in shape):
        raise ValueError(f"an array of {dtype} {shape}")
    return math.prod(shape) * np.dtype(dtype).itemsize


def decode(tree: Any, arrays: list[np.ndarray]) -> Any:
    """The inverse of `encode`."""
    if isinstance(tree, list):
        return [decode(part, arrays) for part in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "array":
        return arrays[value]
    if kind == "float":
        return float(value)
    if kind == "tuple":
        return tuple(decode(part, arrays) for part in value)
    if kind == "items":
        return {decode(key, arrays): decode(part, arrays) for key, part in value}
    return {key: decode(part, arrays) for key, part in value.items()}
