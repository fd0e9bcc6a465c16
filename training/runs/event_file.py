"""Reading curves back from a run's event files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event

from seqrl.core.errors import UsageError

HEAD, FOOT = 12, 4  # bytes around a record: length and its checksum, the record's checksum


def read_scalar(folder: Path, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Return env steps [P], ascending, and values [P] of a tag; of equal steps the last counts.

    Checksums are not checked: in Python that takes longer than all the rest.
    """
    points: dict[int, float] = {}
    for path in sorted(folder.glob("events.out.tfevents.*.seqrl")):
        try:
            events = [Event.FromString(part) for part in records(path) if tag.encode() in part]
        except (OSError, DecodeError) as error:
            raise UsageError(f"{path} is not what a run writes: {error}") from error
        for event in events:
            for value in event.summary.value:
                if value.tag == tag:
                    points[event.step] = value.simple_value
    steps = sorted(points)
    return np.array(steps, float), np.array([points[step] for step in steps], float)


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of an event file, without one that is cut off at its end."""
    data, at = path.read_bytes(), 0
    while at + HEAD <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        if at + HEAD + length + FOOT > len(data):
            return
        yield data[at + HEAD : at + HEAD + length]
        at += HEAD + length + FOOT
