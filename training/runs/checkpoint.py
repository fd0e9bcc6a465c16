"""Save and load trees of arrays and plain values, in a file format that holds no code.

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

from seqrl.core.errors import RunError, UsageError

MAGIC = b"seqrl checkpoint 1\n"
DTYPES = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
DTYPES |= {"float16", "float32", "float64"}
HEADER_LIMIT = 4 << 20  # JSON takes up to 70 times its size in memory, and there are copies
MAX_DIMS, MAX_AXIS = 32, 1 << 48  # of an array, and of each of its axes
MEMORY_LIMIT = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
HASH_LINE = re.compile(rb"([0-9a-f]{64}) (\d{20})\n")  # SHA-256 and size of the header
HASH_SIZE = 86
# raised by a header that has a valid checksum and yet is malformed
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Damaged(Exception):
    """A file that `save` did not write, or that has changed since."""


def save(path: Path, tree: Any) -> None:
    """Write a tree atomically: under a temporary name first, so that `path` is never partial.

    Nothing is written through a link that stands under either name.
    """
    arrays: list[np.ndarray] = []
    header = pack(tree, arrays)
    if len(header) > HEADER_LIMIT:
        raise RunError(f"checkpoint {path}: {len(header):,} bytes of plain values are too many")
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)  # left by a process that was killed
    try:
        with open(temporary, "xb") as file:
            file.write(header)
            for array in arrays:
                file.write(array_bytes(array))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(tree: Any) -> str:
    """Return the SHA-256 of a tree; trees of one digest are equal to the last bit."""
    return hashlib.sha256(pack(tree, [])).hexdigest()


def pack(tree: Any, arrays: list[np.ndarray]) -> bytes:
    """Return the file up to the arrays' bytes, and append the arrays to the list."""
    entries: list[dict[str, Any]] = []

    def add(array: np.ndarray) -> int:
        if array.dtype.name not in DTYPES:
            raise TypeError(f"an array of {array.dtype} cannot be saved")
        array = np.asarray(array, array.dtype.name, order="C")  # in this computer's byte order
        entries.append(array_entry(array))
        arrays.append(array)
        return len(entries) - 1

    header = to_json(encode(tree, add), entries)
    return MAGIC + f"{hashlib.sha256(header).hexdigest()} {len(header):020d}\n".encode() + header


def to_json(tree: Any, entries: list[dict[str, Any]]) -> bytes:
    """Return the header as JSON."""
    content = {"tree": tree, "arrays": entries}
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def array_entry(array: np.ndarray) -> dict[str, Any]:
    """Return an array's entry in the header."""
    sha = hashlib.sha256(array_bytes(array)).hexdigest()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": sha}


def array_bytes(array: np.ndarray) -> memoryview:
    """Return the bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def encode(tree: Any, add: Callable[[np.ndarray], int]) -> Any:
    """Return a tree as JSON values; what JSON lacks becomes an object of one key."""
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


def load(path: Path, limit: int = MEMORY_LIMIT) -> Any:
    """Load a tree; refuse anything that is not exactly what was written (UsageError).

    `limit` bounds the bytes of all arrays together (default: half of this computer's memory);
    sizes are checked before anything is allocated, and an entry that is damaged is named.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # a pipe could block for ever
            raise Damaged("it is a link, a folder or a device, expected a plain file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return read(file, limit)
    except OSError as error:
        raise UsageError(f"checkpoint {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise UsageError(f"checkpoint {path}: it does not fit into memory") from error
    except Damaged as error:
        raise UsageError(f"checkpoint {path}: {error}; take an older checkpoint") from error
    except MALFORMED as error:
        problem = "the header describes no checkpoint of ours"
        raise UsageError(f"checkpoint {path}: {problem}; take an older checkpoint") from error


def read(file: Any, limit: int) -> Any:
    """Read a tree from an open file; a malformed header raises one of MALFORMED."""
    if file.read(len(MAGIC)) != MAGIC:
        raise Damaged(f"the first line is not {MAGIC.decode().strip()!r}")
    match = HASH_LINE.fullmatch(file.read(HASH_SIZE))
    if not match or int(match[2]) > HEADER_LIMIT:
        raise Damaged("the header has no believable size")
    array_bytes_left = os.fstat(file.fileno()).st_size - file.tell() - int(match[2])
    if array_bytes_left < 0:
        raise Damaged(f"the header is cut off, {-array_bytes_left:,} bytes are missing")
    if array_bytes_left > limit:
        raise Damaged(f"the file has {array_bytes_left:,} bytes of arrays, more than {limit:,}")
    header = file.read(int(match[2]))
    if hashlib.sha256(header).hexdigest() != match[1].decode():
        raise Damaged("the header is damaged")
    content = json.loads(header)
    arrays = ArrayReader(file, content["arrays"], array_bytes_left)
    tree = decode(content["tree"], arrays.read)
    if arrays.left:
        raise Damaged(f"the file has {arrays.left:,} bytes behind its last array")
    numbers = itertools.count()
    if to_json(encode(tree, lambda _: next(numbers)), arrays.entries) != header:
        raise Damaged("the header is not what was written")
    return tree


class ArrayReader:
    """Reads the arrays of an open file in order; `left` bytes of them remain."""

    def __init__(self, file: Any, entries: list[dict[str, Any]], left: int):
        self.file, self.expected, self.left = file, entries, left
        self.entries: list[dict[str, Any]] = []  # of the arrays read so far

    def read(self, number: int, keys: tuple[Any, ...]) -> np.ndarray:
        """Return the next array, which the tree holds under `keys`."""
        if number != len(self.entries):
            raise ValueError(f"array {number} out of turn")
        entry = self.expected[number]
        dtype, shape = entry["dtype"], entry["shape"]
        size = array_size(dtype, shape)
        if size > self.left:
            lack = f"{size:,} bytes expected, {self.left:,} are there"
            raise Damaged(f"entry {key_path(keys)} is cut off: {lack}")
        array = np.empty(shape, dtype)
        self.file.readinto(array_bytes(array))
        self.left -= size
        actual = array_entry(array)
        if actual["sha256"] != entry["sha256"]:
            raise Damaged(f"entry {key_path(keys)} is damaged")
        self.entries.append(actual)
        return array


def array_size(dtype: str, shape: list[int]) -> int:
    """Return the bytes of an array from its dtype and shape in the header."""
    if dtype not in DTYPES or len(shape) > MAX_DIMS or not all(0 <= n < MAX_AXIS for n in shape):
        raise ValueError(f"an array of {dtype} {shape}")
    return math.prod(shape) * np.dtype(dtype).itemsize


def key_path(keys: tuple[Any, ...]) -> str:
    """Return untrusted keys of a tree as a short printable path."""
    text = "/".join(map(str, keys))
    return "".join(c if c.isprintable() else "?" for c in text[:100]) or "tree"


ReadArray = Callable[[int, tuple[Any, ...]], np.ndarray]


def decode(tree: Any, read_array: ReadArray, keys: tuple[Any, ...] = ()) -> Any:
    """Invert `encode`; arrays are read in order, with their keys in the tree."""

    def decode_part(key: Any, part: Any) -> Any:
        return decode(part, read_array, (*keys, key))

    if isinstance(tree, list):
        return [decode_part(i, part) for i, part in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "array":
        return read_array(value, keys)
    if kind == "float":
        return float(value)
    if kind == "tuple":
        return tuple(decode_part(i, part) for i, part in enumerate(value))
    if kind == "items":
        pairs = ((decode(key, read_array, keys), part) for key, part in value)
        return {key: decode_part(key, part) for key, part in pairs}
    return {key: decode_part(key, part) for key, part in value.items()}
