"""Event files: their records, what stands in them for TensorBoard's plugins, curves read back.

TensorBoard's own writers of texts and hyper-parameters import a file system for clouds and an event
loop, a fifth of the time until a table learns; the bytes here are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING

from seqrl.core.errors import UsageError

HEAD, FOOT = 12, 4  # bytes around a record: length and its checksum, the record's checksum
POLYNOMIAL = 0x82F63B78  # of CRC-32C (RFC 3720, appendix B.4), its bits in reverse order
MASK = 0xA282EAD8  # added to a checksum that is stored beside what it is of


def record(event: Event) -> bytes:
    """Return an event as a record: length and bytes, each with a checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + masked_checksum(length) + data + masked_checksum(data)


def masked_checksum(data: bytes) -> bytes:
    """Return the CRC-32C of bytes as a record has it: turned by 15 bits, plus MASK."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = REMAINDERS[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF)


def remainder(byte: int) -> int:
    """Return the remainder of a byte by the polynomial of CRC-32C."""
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


REMAINDERS = [remainder(byte) for byte in range(256)]


def plugin_summary(plugin: str, tag: str, tensor: TensorProto, content: bytes = b"") -> Summary:
    """Return the summary of a tensor that a plugin of TensorBoard shows, with the plugin's own."""
    about = SummaryMetadata(plugin_data={"plugin_name": plugin, "content": content})
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])


def text_summary(tag: str, markdown: str) -> Summary:
    """Return the summary of Markdown under TEXT."""
    words = [markdown.encode()]
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=words)
    return plugin_summary("text", tag, tensor)


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
