"""Trees of arrays and plain values in one file that can hold nothing else.

Layout: a line naming the format, a line with the SHA-256 and size of the header, the header (JSON:
the tree, and for each array its dtype, shape and SHA-256), then the arrays' bytes one after the
other, in the order in which the tree names them. Nothing is pickled and no name in the file is ever
imported, so reading a foreign file cannot run code; what `save` would not write bit for bit the
same is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.core import RunError, UsageError

MAGIC = b"seqrl checkpoint 1\n"
DTYPES = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
DTYPES |= {"float16", "float32", "float64"}
HEADER_LIMIT = 4 << 20  # JSON takes up to 70 times its size in memory, and there are copies
DIMENSIONS, SIDE = 32, 1 << 48  # of an array, at most
LIMIT = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
SEAL = re.compile(rb"([0-9a-f]{64}) (\d{20})\n")  # SHA-256 and size of the header
SEAL_SIZE = 86
# what a header leads to that has valid checksums and yet makes no sense
SENSELESS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Damaged(Exception):
    """A file that `save` did not write, or that has changed since."""


def save(path: Path, tree: Any) -> None:
    """Write the tree under another name first, so that `path` is either whole or not there.

    Nothing is written through a link, whatever lies there under either name.
    """
    arrays: list[np.ndarray] = []
    header = pack(tree, arrays)
    if len(header) > HEADER_LIMIT:
        raise RunError(f"checkpoint {path}: {len(header):,} bytes of plain values are too many")
    draft = path.with_name(path.name + ".part")
    draft.unlink(missing_ok=True)  # left by a kill
    try:
        with open(draft, "xb") as file:
            file.write(header)
            for array in arrays:
                file.write(contents(array))
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
        entries.append(describe(array))
        arrays.append(array)
        return len(entries) - 1

    header = to_json(encode(tree, add), entries)
    return MAGIC + f"{hashlib.sha256(header).hexdigest()} {len(header):020d}\n".encode() + header


def to_json(tree: Any, entries: list[dict[str, Any]]) -> bytes:
    """The header."""
    content = {"tree": tree, "arrays": entries}
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def describe(array: np.ndarray) -> dict[str, Any]:
    """An array's entry in the header."""
    sha = hashlib.sha256(contents(array)).hexdigest()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": sha}


def contents(array: np.ndarray) -> memoryview:
    """The bytes of an array that lies row after row."""
    return array.reshape(-1).view(np.uint8).data


def encode(tree: Any, add: Callable[[np.ndarray], int]) -> Any:
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


def load(path: Path, limit: int = LIMIT) -> Any:
    """Read a tree back; anything that is not exactly what was written is refused (UsageError).

    `limit` bounds the bytes of all arrays together (default: half of this computer's memory);
    sizes are checked before anything is allocated, and an entry that is damaged is named.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # a pipe could be waited for for ever
            raise Damaged("it is a link, a folder or a device, expected a plain file")
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            return read(file, limit)
    except OSError as error:
        raise UsageError(f"checkpoint {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise UsageError(f"checkpoint {path}: it does not fit into memory") from error
    except Damaged as error:
        raise UsageError(f"checkpoint {path}: {error}; take an older checkpoint") from error
    except SENSELESS as error:
        problem = "the header describes no checkpoint of ours"
        raise UsageError(f"checkpoint {path}: {problem}; take an older checkpoint") from error


def read(file: Any, limit: int) -> Any:
    """Read a tree from an open file; a header that makes no sense raises what it leads to."""
    if file.read(len(MAGIC)) != MAGIC:
        raise Damaged(f"the first line is not {MAGIC.decode().strip()!r}")
    found = SEAL.fullmatch(file.read(SEAL_SIZE))
    if not found or int(found[2]) > HEADER_LIMIT:
        raise Damaged("the header has no believable size")
    left = os.fstat(file.fileno()).st_size - file.tell() - int(found[2])
    if left < 0:
        raise Damaged(f"the header is cut off, {-left:,} bytes are missing")
    if left > limit:
        raise Damaged(f"the file has {left:,} bytes of arrays, more than {limit:,}")
    header = file.read(int(found[2]))
    if hashlib.sha256(header).hexdigest() != found[1].decode():
        raise Damaged("the header is damaged")
    content = json.loads(header)
    entries = Entries(file, content["arrays"], left)
    tree = decode(content["tree"], entries.take)
    if entries.left:
        raise Damaged(f"the file has {entries.left:,} bytes behind its last array")
    numbers = itertools.count()
    if to_json(encode(tree, lambda _: next(numbers)), entries.taken) != header:
        raise Damaged("the header is not what was written")
    return tree


class Entries:
    """The arrays of an open file, taken one after the other; `left` bytes of them remain."""

    def __init__(self, file: Any, claims: list[dict[str, Any]], left: int):
        self.file, self.claims, self.left = file, claims, left
        self.taken: list[dict[str, Any]] = []  # as the arrays that were read describe themselves

    def take(self, number: int, place: tuple[Any, ...]) -> np.ndarray:
        """The next array, which the tree names at `place`."""
        if number != len(self.taken):
            raise ValueError(f"array {number} out of turn")
        claim = self.claims[number]
        dtype, shape = claim["dtype"], claim["shape"]
        size = claimed_size(dtype, shape)
        if size > self.left:
            raise Damaged(
                f"entry {shown(place)} is cut off: {size:,} bytes expected, {self.left:,} are there"
            )
        array = np.empty(shape, dtype)
        self.file.readinto(contents(array))
        self.left -= size
        found = describe(array)
        if found["sha256"] != claim["sha256"]:
            raise Damaged(f"entry {shown(place)} is damaged")
        self.taken.append(found)
        return array


def claimed_size(dtype: str, shape: list[int]) -> int:
    """Bytes of an array as its entry claims them."""
    if dtype not in DTYPES or len(shape) > DIMENSIONS or any(not 0 <= n < SIDE for n in shape):
        raise ValueError(f"an array of {dtype} {shape}")
    return math.prod(shape) * np.dtype(dtype).itemsize


def shown(place: tuple[Any, ...]) -> str:
    """A place in a tree, which may be anybody's, as a short text in one line."""
    text = "/".join(map(str, place))
    return "".join(c if c.isprintable() else "?" for c in text[:100]) or "tree"


Take = Callable[[int, tuple[Any, ...]], np.ndarray]


def decode(tree: Any, take: Take, place: tuple[Any, ...] = ()) -> Any:
    """The inverse of `encode`; arrays are asked for in order, with their place in the tree."""

    def inner(key: Any, part: Any) -> Any:
        return decode(part, take, (*place, key))

    if isinstance(tree, list):
        return [inner(i, part) for i, part in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "array":
        return take(value, place)
    if kind == "float":
        return float(value)
    if kind == "tuple":
        return tuple(inner(i, part) for i, part in enumerate(value))
    if kind == "items":
        pairs = ((decode(key, take, place), part) for key, part in value)
        return {key: inner(key, part) for key, part in pairs}
    return {key: inner(key, part) for key, part in value.items()}
