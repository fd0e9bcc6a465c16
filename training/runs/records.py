"""TensorBoard's records, of hyper-parameters and text too, as its own functions write them.

Those import most of TensorBoard, a fifth of the time in which a tabular run begins.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData


def session_start(settings: Mapping[str, bool | int | float | str], name: str) -> Summary:
    """Return the record that opens a run's row under HPARAMS."""
    start = SessionStartInfo(group_name=name, start_time_secs=time.time())
    for setting, value in sorted(settings.items()):
        kind = "string" if isinstance(value, str) else "number"
        kind = "bool" if isinstance(value, bool) else kind
        setattr(start.hparams[setting], f"{kind}_value", value)
    return hparams("session_start_info", HParamsPluginData(session_start_info=start))


def session_end(success: bool) -> Summary:
    """Return the record that tells HPARAMS that a run has ended, and how."""
    status = "STATUS_SUCCESS" if success else "STATUS_FAILURE"
    end = SessionEndInfo(status=status, end_time_secs=time.time())
    return hparams("session_end_info", HParamsPluginData(session_end_info=end))


def hparams(name: str, data: HParamsPluginData) -> Summary:
    """Return a record under HPARAMS: its data are in the metadata, its tensor is empty."""
    data.version = 0
    nothing = TensorProto(dtype=DT_FLOAT, tensor_shape=shape(0))
    return record(f"_hparams_/{name}", "hparams", data.SerializeToString(), nothing)


def text(tag: str, markdown: str) -> Summary:
    """Return a record under TEXT."""
    data = TextPluginData(version=0).SerializeToString()
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape(), string_val=[markdown.encode()])
    return record(tag, "text", data, tensor)


def shape(*sizes: int) -> TensorShapeProto:
    """Return the shape of a tensor."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def record(tag: str, plugin: str, content: bytes, tensor: TensorProto) -> Summary:
    """Return a record of one value, for a part of TensorBoard."""
    data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    about = SummaryMetadata(plugin_data=data)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])


def framed(data: bytes) -> bytes:
    """Return an event as it stands in an event file: its length, its data, the CRC of each."""
    size = struct.pack("<Q", len(data))
    return b"".join((size, masked_crc(size), data, masked_crc(data)))


def masked_crc(data: bytes) -> bytes:
    """Return the CRC-32C of some bytes (Castagnoli), masked as TensorFlow's record files do."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc_entry(byte: int) -> int:
    """Return what a byte adds to a CRC-32C, by the reflected polynomial."""
    for _ in range(8):
        byte = byte >> 1 ^ 0x82F63B78 * (byte & 1)
    return byte


CRC = [crc_entry(byte) for byte in range(256)]
