"""A run's row under HPARAMS in TensorBoard: the settings that stand in it, and its records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from seqrl.training.runs.event_file import plugin_summary

Setting = bool | int | float | str
# settings that are no hyper-parameters
UNCOMPARED = {"steps", "episodes", "eval_every", "eval_episodes", "compile", "seeds", "pictures"}
UNCOMPARED |= {"threads", "checkpoint_every", "processes", "worker_timeout", "restart_workers"}
UNCOMPARED |= {"eval_env_args", "env_args.vocabulary", "env_args.longest_source"}
UNCOMPARED |= {"device", "env_args.longest_target"}
LONGEST = 500  # characters of a setting as text


def flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, Setting]]:
    """Yield settings by name, nested ones but the agent's as env_args.x; others as text."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            prefix = "" if name == "agent_args" else f"{name}."
            yield from flatten({f"{prefix}{key}": inner for key, inner in value.items()})
        elif value is not None:
            yield name, value if isinstance(value, bool | int | float) else shortened(str(value))


def shortened(text: str) -> str:
    """Return a text, of a long one the beginning, and a checksum of it all."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} ... ({len(text):,} characters, checksum {crc32(text.encode()):08x})"


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the settings that may be hyper-parameters, by name."""
    compared = {name: value for name, value in config.items() if name not in UNCOMPARED}
    return {name: value for name, value in flatten(compared) if name not in UNCOMPARED}


def session_start(settings: Mapping[str, Setting]) -> Summary:
    """Return the record of a row's settings; TensorBoard names the row as the run."""
    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in settings.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = value
    data = HParamsPluginData(session_start_info=info)
    return _record("session_start_info", data)


def session_end(success: bool) -> Summary:
    """Return the record that says that a run has ended, and how."""
    status = "STATUS_SUCCESS" if success else "STATUS_FAILURE"
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _record("session_end_info", HParamsPluginData(session_end_info=info))


def _record(name: str, data: HParamsPluginData) -> Summary:
    empty = TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)])
    nothing = TensorProto(dtype=DT_FLOAT, tensor_shape=empty)
    return plugin_summary("hparams", f"_hparams_/{name}", nothing, data.SerializeToString())
