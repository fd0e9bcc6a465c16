"""Where a run computes that leaves it to us (`--device auto`): chosen as it begins, and kept."""

from __future__ import annotations

from typing import Any, NamedTuple

from seqrl.agents.factory import Config
from seqrl.core import team
from seqrl.core.errors import explain
from seqrl.training.runs.defaults import AUTO
from seqrl.training.runs.global_state import restored
from seqrl.training.runs.parts import RunParts, build
from seqrl.training.runs.speed import measure_speed
from seqrl.training.runs.teaching import give_teacher
from seqrl.training.runs.warm_start import begin

LARGE = 10_000_000  # weights times environments, from which on a GPU is taken without a trial
Tried = float | Exception  # env steps a second, or what went wrong


class Choice(NamedTuple):
    """A device and why it was chosen."""

    device: str
    reason: str


def build_new(config: Config, *, many: bool = False) -> RunParts:
    """Build the parts of a run that begins, with the device in its config that it goes on on.

    `many`: it is one of many runs, which have to be on the same device, whatever a trial says.
    """
    chosen = choice(config, many=many)
    if chosen is None:
        return build(config)
    parts = build(on(config, chosen.device))
    agent: Any = parts.agent
    if hasattr(agent, "device_reason"):  # an agent of the user's need not tell it
        agent.device_reason = chosen.reason
    return parts


def choice(config: Config, *, many: bool = False) -> Choice | None:
    """Return where a run should compute, None where it says so itself or has no network.

    On both devices a copy of the run, with environments and random numbers of its own, plays and
    learns for some seconds; nothing of the run is touched. A rule by size decides where a choice by
    the clock could differ between runs that have to be alike: `many`, deterministic ones, and the
    processes of one.
    """
    if config["agent_args"].get("device") != AUTO:
        return None
    there = str(config.get("env_args", {}).get("device", "cpu"))
    if there != "cpu":
        return Choice(there, "the environments are there")
    if (device := gpu()) is None:
        return Choice("cpu", "no GPU is there")
    if many or config.get("deterministic") or team.size() > 1:
        return by_size(size(config), device)
    return by_speed(speed(config, "cpu"), speed(config, device), device)


def gpu() -> str | None:
    """Return the name of the GPU that there is, None without one."""
    import torch

    return "cuda" if torch.cuda.is_available() else None


def by_speed(cpu: Tried, gpu: Tried, device: str) -> Choice:
    """Return the faster one of two trials; the CPU where that of the GPU went wrong."""
    if isinstance(gpu, Exception):
        return Choice("cpu", f"the trial on {device} failed: {explain(gpu)}")
    if isinstance(cpu, Exception):
        return Choice(device, f"the trial on the CPU failed: {explain(cpu)}")
    told = f"{cpu:,.0f} env steps/s in a trial, {gpu:,.0f} on {device}"
    return Choice(device if gpu > cpu else "cpu", told)


def by_size(numbers: int, device: str) -> Choice:
    """Return a GPU for much work a turn: weights of the network times environments."""
    large = numbers >= LARGE
    compared = f"{numbers:,} weights times environments, {LARGE:,} or more take {device}"
    return Choice(device if large else "cpu", compared)


def speed(config: Config, device: str) -> Tried:
    """Return the env steps a second of a copy of the run on a device, or what went wrong there."""
    try:
        with restored(config):
            parts = build(on(config, device))
            try:
                begin(parts.agent, config, lambda text: None)
                give_teacher(parts.agent, config)
                parts.agent.horizon = config["steps"]
                return measure_speed(parts.agent, parts.envs, parts.streams.envs).together
            finally:
                parts.envs.close()
    except Exception as error:  # whatever code of the user's, or a device, may do
        return error


def size(config: Config) -> int:
    """Return the weights of a run's network times its environments."""
    from torch.nn.parameter import is_lazy

    with restored(config):
        parts = build(on(config, "cpu"))
        parts.envs.close()
    network: Any = getattr(parts.agent, "network", None)
    weights = network.parameters() if network is not None else ()
    count = sum(weight.numel() for weight in weights if not is_lazy(weight))
    return int(config["num_envs"] * count)


def on(config: Config, device: str) -> Config:
    """Return a config whose agent computes on a device."""
    return {**config, "agent_args": {**config["agent_args"], "device": device}}
