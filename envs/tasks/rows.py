"""Data sets as rows: shipped, or read from a file of the user's."""

from __future__ import annotations

import csv
import io
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrl.core.errors import UsageError, counted, explain
from seqrl.envs.tasks.files import read_bytes, read_text

IRIS = Path(__file__).with_name("iris.csv")


class Rows(NamedTuple):
    """What is shown of M rows and what belongs to it."""

    shown: np.ndarray  # [M, ...]
    clean: np.ndarray  # the same without noise
    value: np.ndarray | None  # int64 [M], labels from 0, or float32 [M, K]
    labels: list[str]  # how they are written; none where the value is numbers


@cache
def iris() -> Rows:
    """Return Fisher's irises: sepal and petal length and width in cm, and the species.

    R. A. Fisher 1936, "The use of multiple measurements in taxonomic problems", from the flowers of
    E. Anderson; as printed there (copies elsewhere differ in the rows 35 and 38).
    """
    return from_csv("iris", IRIS.read_text(), None)


@lru_cache(8)
def load(path: str, answer: str | None, checksum: str) -> Rows:
    """Return the rows of a user's CSV or npz, read once; UsageError for what is wrong in it."""
    name = f"path {path!r}"
    if str(path).endswith(".npz"):
        return from_npz(name, path, answer)
    return from_csv(name, read_text("path", path), answer)


def from_csv(name: str, text: str, answer: str | None) -> Rows:
    """Return the rows of a CSV with a header; the last column belongs to the others.

    Where the row itself is asked for, every column is shown.
    """
    lines = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(lines) < 3:
        found = counted(len(lines), "line")
        raise UsageError(f"{name}: {found}; expected a header and two rows or more")
    header, rows = lines[0], lines[1:]
    named = header[:-1] or header
    if all(map(is_number, named)) and named != [str(i) for i in range(len(named))]:
        raise UsageError(f"{name}: its first line has numbers; expected a header, names of columns")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            found = f"row {i + 1} has {counted(len(row), 'cell')}"
            raise UsageError(f"{name}: {found}, the header {len(header)}")
    if answer == "observation":
        shown = numbers(name, header, rows)
        return Rows(shown, shown, None, [])
    if len(header) < 2:
        raise UsageError(f"{name}: one column; expected what is shown, and behind it the answer")
    shown = numbers(name, header[:-1], [row[:-1] for row in rows])
    last = [row[-1].strip() for row in rows]
    if answer == "label" or (answer is None and not any(map(is_number, last))):
        check_labels(name, header[-1], last)
        return labelled(shown, np.array(last))
    try:
        value = numbers(name, header[-1:], [[cell] for cell in last])
    except UsageError as error:
        raise UsageError(f"{error}, as others there are, or answer=label") from error
    return Rows(shown, shown, value, [])


def check_labels(name: str, column: str, labels: list[str]) -> None:
    """Refuse a column in which a label is missing."""
    if "" in labels:
        where = f"{name}: row {labels.index('') + 1}, column {column!r}"
        raise UsageError(f"{where}: nothing, expected a label")


def numbers(name: str, header: list[str], rows: list[list[str]]) -> np.ndarray:
    """Return cells as float32 [M, F]; UsageError for the first that is no finite number."""
    for i, row in enumerate(rows):
        for column, cell in zip(header, row, strict=True):
            if not is_number(cell):
                where = f"{name}: row {i + 1}, column {column!r}"
                raise UsageError(f"{where}: {cell!r}, expected a finite number")
    return np.array(rows, np.float32)


def is_number(cell: str) -> bool:
    """Return whether a cell is a finite number."""
    try:
        return bool(np.isfinite(np.float32(cell)))
    except ValueError:
        return False


def from_npz(name: str, path: str, answer: str | None) -> Rows:
    """Return the rows of an npz with arrays x [M, ...] and y [M, ...]."""
    try:
        with np.load(io.BytesIO(read_bytes("path", path))) as archive:
            found = {key: archive[key] for key in archive.files}
    except UsageError:
        raise
    except Exception as error:  # of whatever is in the file
        raise UsageError(f"{name}: no npz of arrays: {explain(error)}") from error
    wanted = ["x"] if answer == "observation" else ["x", "y"]
    for key in wanted:
        if key not in found:
            there = ", ".join(found) or "none"
            raise UsageError(f"{name}: arrays {there}; expected {' and '.join(wanted)}")
    shown = real(name, "x", found["x"])
    if shown.ndim < 2 or len(shown) < 2:
        raise UsageError(f"{name}: x {list(shown.shape)}; expected two rows or more, [M, ...]")
    if answer == "observation":
        return Rows(shown, shown, None, [])
    y = found["y"]
    if y.shape[:1] != shown.shape[:1]:
        raise UsageError(f"{name}: x {list(shown.shape)}, y {list(y.shape)}; expected equal length")
    if answer == "label" or (answer is None and y.dtype.kind in "biuU"):
        if y.ndim != 1:
            raise UsageError(f"{name}: y {list(y.shape)}; expected a label a row, [M]")
        return labelled(shown, real(name, "y", y) if y.dtype.kind == "f" else y)
    return Rows(shown, shown, real(name, "y", y).astype(np.float32).reshape(len(y), -1), [])


def real(name: str, key: str, array: np.ndarray) -> np.ndarray:
    """Return an array of pictures (uint8) or of finite numbers, as float32."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{name}: {key} of {array.dtype}; expected numbers")
    with np.errstate(over="ignore"):
        found = array.astype(np.float32)
    if not found.size:
        raise UsageError(f"{name}: {key} {list(array.shape)}; expected at least one number a row")
    if not np.isfinite(found).all():
        raise UsageError(f"{name}: {key} has numbers that are not finite, or beyond float32")
    return found


def labelled(shown: np.ndarray, value: np.ndarray) -> Rows:
    """Return rows with their labels numbered in order."""
    kinds, number = np.unique(value, return_inverse=True)
    return Rows(shown, shown, number.astype(np.int64), [str(kind) for kind in kinds])
