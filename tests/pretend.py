"""A pretend accelerator on a CPU build of torch: real numbers, and every crossing counted.

A backend in Python (PrivateUse1): its tensors hold one on the CPU, whose kernels do the work. What
mixes devices is refused as a GPU refuses it. Counted, with file and line, is every time the host
waits for a number (`to_host`) and every copy to the device (`to_device`).
"""

from __future__ import annotations

import linecache
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # before a mode is on, as torch imports it on the way
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
CPU = torch.device("cpu")
ROOT = f"{Path(__file__).parents[1]}{os.sep}"
aten = torch.ops.aten

WAITS = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.is_nonzero.default: "bool",
    aten.equal.default: "equal",
    aten._unique2.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}
COPYING = {aten._to_copy.default, aten.copy_.default}


def is_ours(name: str) -> bool:
    """Return whether a file is the project's, and not this one."""
    return name.startswith(ROOT) and "site-packages" not in name and name != __file__


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class Crossings:
    """How often numbers went from one side to the other, by kind and place."""

    def __init__(self) -> None:
        self.to_host: Counter[str] = Counter()
        self.to_device: Counter[str] = Counter()

    def note(self, table: Counter[str], kind: str) -> None:
        """Count a crossing at the innermost line of the project."""
        frame: Any = sys._getframe(1)
        while frame is not None and not is_ours(frame.f_code.co_filename):
            frame = frame.f_back
        place = ""
        if frame is not None:
            name, line = frame.f_code.co_filename, frame.f_lineno
            place = f"{name[len(ROOT) :]}:{line} {linecache.getline(name, line).strip()}: "
        table[place + kind] += 1

    def waited(self, kind: str) -> None:
        """Count a number that the host waited for."""
        self.note(self.to_host, kind)

    def sent(self, kind: str) -> None:
        """Count a copy to the device."""
        self.note(self.to_device, kind)

    def clear(self) -> None:
        """Begin anew."""
        self.to_host.clear()
        self.to_device.clear()


crossings = Crossings()


class Pretend(torch.Tensor):
    """A tensor on the pretend device, around one on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Any:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        crossings.waited("tolist")
        return self.inner.tolist()

    def __repr__(self) -> str:
        return f"Pretend({tuple(self.shape)})"


def inner(x: Any) -> Any:
    """Return the CPU tensor of one on the device; anything else as it is."""
    return x.inner if isinstance(x, Pretend) else x


def outer(x: Any) -> Any:
    """Return a tensor as one on the device; anything else as it is."""
    return Pretend(x) if isinstance(x, torch.Tensor) else x


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Carry out an operation where its tensors are."""
    kwargs = {name: x for name, x in kwargs.items() if name != "pin_memory"}
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    here = [x for x in tensors if isinstance(x, Pretend)]
    wanted = kwargs.get("device")
    onto = wanted is not None and torch.device(wanted).type == NAME
    if not here and not onto:
        return func(*args, **kwargs)
    if wanted is not None:
        kwargs["device"] = CPU
    if func in COPYING:
        return copied(func, args, kwargs, onto or (bool(here) and wanted is None))
    check_devices(func, args, tensors)
    if func in WAITS:
        crossings.waited(WAITS[func])
    on_host = tree_map(inner, args)
    if func in CELLS:
        return tree_map(outer, CELLS[func](*on_host))
    made = func(*on_host, **tree_map(inner, kwargs))
    if func is aten._local_scalar_dense.default:
        return made
    known = {id(x.inner): x for x in here}  # in place: the very argument is returned
    return tree_map(lambda x: known.get(id(x), outer(x)), made)


def copied(func: Any, args: Any, kwargs: dict[str, Any], onto: bool) -> Any:
    """Carry out a copy, which alone may have its ends on two devices."""
    source = args[1] if func is aten.copy_.default else args[0]
    if func is aten.copy_.default:
        onto = isinstance(args[0], Pretend)
    if onto and not isinstance(source, Pretend) and source.dim():
        crossings.sent("copy")
    if not onto:
        crossings.waited("copy")
    made = func(*tree_map(inner, args), **kwargs)
    if func is aten.copy_.default:
        return args[0]
    return Pretend(made) if onto else made


def check_devices(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse two devices; index tensors on the host are sent, and masks make the host wait."""
    others = [x for x in tensors if not isinstance(x, Pretend) and x.dim()]
    if func not in INDEXING:
        if others:
            shape = tuple(others[0].shape)
            raise MixedDevices(f"{func}: a CPU tensor {shape} beside one on {NAME}")
        return
    if any(x is args[0] or (len(args) > 2 and x is args[2]) for x in others):
        raise MixedDevices(f"{func}: a CPU tensor beside one on {NAME}")
    for index in args[1]:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            crossings.waited("mask as an index")
        if index is not None and not isinstance(index, Pretend) and index.dim():
            crossings.sent("index")


def gru_cell(x: Any, h: Any, state: Any, bias_x: Any = None, bias_h: Any = None) -> Any:
    """What a GPU computes in one kernel of which the CPU has none, and what is kept for later."""
    if bias_x is not None:
        x, h = x + bias_x, h + bias_h
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, 1), h.chunk(3, 1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return n + z * (state - n), torch.cat([r, z, n, state, hn], 1)


def gru_cell_backward(gradient: Any, kept: Any, bias: bool) -> Any:
    """Return the gradient of `gru_cell` by its arguments."""
    r, z, n, state, hn = kept.chunk(5, 1)
    dn = gradient * (1 - z) * (1 - n * n)
    dr, dz = dn * hn * r * (1 - r), gradient * (state - n) * z * (1 - z)
    by_x, by_h = torch.cat([dr, dz, dn], 1), torch.cat([dr, dz, dn * r], 1)
    sums = (by_x.sum(0), by_h.sum(0)) if bias else (None, None)
    return by_x, by_h, gradient * z, *sums


CELLS: dict[Any, Callable[..., Any]] = {
    aten._thnn_fused_gru_cell.default: gru_cell,
    aten._thnn_fused_gru_cell_backward.default: gru_cell_backward,
}


class Mode(TorchDispatchMode):
    """Under it tensors are made on the device where that is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Generator(torch.Generator):
    """A generator of the CPU's numbers that says it is on the device."""

    def __new__(cls) -> Any:
        return super().__new__(cls, "cpu")

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE


CPU_GENERATOR = torch.Generator


def generator(device: Any = "cpu") -> torch.Generator:
    """Return a generator on either device."""
    return Generator() if torch.device(device).type == NAME else CPU_GENERATOR(device)


# `torch.tensor(x, device=...)` switches modes off and asks the backend itself


@torch.library.impl("aten::empty_strided", "PrivateUse1")  # type: ignore[misc]
def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return Pretend(torch.empty_strided(size, stride, dtype=dtype))


@torch.library.impl("aten::empty.memory_format", "PrivateUse1")  # type: ignore[misc]
def empty(size: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return Pretend(torch.empty(size, dtype=dtype))


@torch.library.impl("aten::_copy_from", "PrivateUse1")  # type: ignore[misc]
def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> Any:
    if isinstance(target, Pretend):
        crossings.sent("copy")
    else:
        crossings.waited("copy")
    inner(target).copy_(inner(source))
    return target


@contextmanager
def device() -> Iterator[str]:
    """Let agents and environments be on the pretend device, by its name."""
    from seqrl.agents.deep import network_agent

    with ExitStack() as stack:
        for owner, name, value in (
            (torch, "Generator", generator),
            (torch, "inference_mode", torch.no_grad),  # wrapped tensors know no inference
            (network_agent, "pick_device", lambda name: (torch.device(name), "asked for")),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(Mode())
        yield NAME
