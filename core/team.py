"""The processes of one data-parallel run, one a rank, as torchrun starts them.

Every process holds the whole agent and what it learns from, and comes to the same decisions by the
same numbers; only what costs most is shared out, the environments and the gradients. Alone, a
process is rank 0 of size 1: nothing is sent, and torch is not imported.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from seqrl.core.arrays import like
from seqrl.core.errors import RunError, UsageError, UserError
from seqrl.core.types import Array, Batch

if TYPE_CHECKING:
    from torch import Tensor

LOG = logging.getLogger("seqrl")
T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # torchrun's
LAUNCHER = "TORCHELASTIC_RUN_ID"  # there where torchrun itself waits for the processes
GRACE = 30.0  # seconds for the process that prints to come as far
PATIENCE = timedelta(days=1)  # that ranks wait for one which evaluates; a death is noticed at once
LENGTH = 8  # bytes that say how many follow
ROOM = 16 << 10  # bytes of a value that are sent at once; more of them in a second exchange
AGAIN = "go on from its newest checkpoint: the same command with --resume RUN"


class Lost(UserError):
    """Another process of the run has ended, or does something else: a turn may be half done."""


class Place:
    """Which process of a run this is, and of how many."""

    rank, size = 0, 1


HERE = Place()


def rank() -> int:
    """Return the number of this process, from 0; the first one writes the run's folder."""
    return HERE.rank


def size() -> int:
    """Return how many processes the run has."""
    return HERE.size


def is_first() -> bool:
    """Return whether this process writes the run's folder."""
    return HERE.rank == 0


def started() -> bool:
    """Return whether torchrun has started this process as one of several."""
    return all(name in os.environ for name in VARIABLES) and os.environ["WORLD_SIZE"] != "1"


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun has started, if it has, until the end.

    The first one speaks for all: the others warn of nothing.
    """
    if not started():
        yield
        return
    import torch
    from torch import distributed

    gpus, local = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
    each = 0 < int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= gpus
    if gpus:
        torch.cuda.set_device(local % gpus)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if each else "gloo", timeout=PATIENCE)
    HERE.rank, HERE.size = distributed.get_rank(), distributed.get_world_size()
    level = LOG.level
    try:
        LOG.setLevel(level if is_first() else logging.ERROR)
        yield
    finally:
        LOG.setLevel(level)
        HERE.rank, HERE.size = 0, 1
        distributed.destroy_process_group()


@contextmanager
def losses() -> Iterator[None]:
    """Raise Lost where what is sent does not arrive, or not in time."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        why = "did not answer for a day" if "Timed out" in first else "has ended"
        raise Lost(f"another process of the run {why}: {AGAIN} ({first})") from error


def is_own(problem: BaseException | None) -> bool:
    """Return whether what went wrong did so in this process alone, or in the exchange with others.

    What a user can mend was found in numbers that all have, or was raised in all.
    """
    return problem is not None and (isinstance(problem, Lost) or not isinstance(problem, UserError))


def tells(problem: BaseException) -> bool:
    """Return whether this process prints what ended it: of a mistake that all have, one a machine.

    A RunError is told for what it was raised from. torchrun ends the other processes with the first
    that ends: they wait for the one that prints, and print as well where it does not end them.
    """
    cause = problem.__cause__ if isinstance(problem, RunError) else problem
    if not started() or os.environ["LOCAL_RANK"] == "0" or is_own(cause):
        return True
    if LAUNCHER not in os.environ:
        return False
    time.sleep(GRACE)
    return True


def refuse_several(what: str) -> None:
    """Refuse (UsageError) what torchrun's processes would each do for themselves."""
    if started():
        text = "torchrun's processes share one run, of ppo, a2c or reinforce; start it without"
        raise UsageError(f"{what}: {text}")


# ---- objects


def gather(what: str, value: T) -> list[T]:
    """Return the values of all ranks in their order; `what` has to be the same in each.

    They are sent by pickle, between processes of one run alone: at once where none is large.
    """
    if HERE.size == 1:
        return [value]
    data = pickle.dumps((what, value), pickle.HIGHEST_PROTOCOL)
    lengths, rows = exchanged(data, ROOM)
    if max(lengths) > ROOM:
        lengths, rows = exchanged(data, max(lengths))
    found = [pickle.loads(row[:n].data) for n, row in zip(lengths, rows, strict=True)]
    for other, (theirs, _) in enumerate(found):
        if theirs != what:
            where = f"process {other} is at {theirs}, process {HERE.rank} at {what}"
            raise Lost(f"{where}: {AGAIN}")
    return [each for _, each in found]


def exchanged(data: bytes, room: int) -> tuple[list[int], list[np.ndarray]]:
    """Return how many bytes each rank has to send, and the first `room` of them."""
    import torch
    from torch import distributed

    own = torch.zeros(LENGTH + room, dtype=torch.uint8)
    sent = len(data).to_bytes(LENGTH, "little") + data[:room]
    own.numpy()[: len(sent)] = np.frombuffer(sent, np.uint8)
    every = [torch.empty_like(own) for _ in range(HERE.size)]
    with losses():
        distributed.all_gather(every, own)
    rows = [row.numpy() for row in every]
    lengths = [int.from_bytes(row[:LENGTH].tobytes(), "little") for row in rows]
    return lengths, [row[LENGTH:] for row in rows]


def all_of(what: str, action: Callable[[], T]) -> list[T]:
    """Return what an action gives in each process; raise in all what it raises in one."""
    if HERE.size == 1:
        return [action()]
    found: T | None = None
    problem: BaseException | None = None
    try:
        found = action()
    except BaseException as error:  # the others would wait for what never comes
        problem = error
    made = gather(what, (found, None if problem is None else sendable(problem)))
    for _, raised in made:
        if raised is not None:
            raise problem or raised
    return [each for each, _ in made]  # type: ignore[misc]


def sendable(problem: BaseException) -> BaseException:
    """Return an exception as others can have it: where its class is unknown there, its text."""
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:
        return RuntimeError(f"{type(problem).__name__}: {problem}")
    return problem


def in_all(what: str, action: Callable[[], T]) -> T:
    """Return what an action gives here, which is not sent; raise in all what it raises in one."""
    kept: list[T] = []
    all_of(what, lambda: kept.append(action()))
    return kept[0]


def in_first(what: str, action: Callable[[], T]) -> T | None:
    """Carry out an action in the first process; return what it gives there, None in the others."""
    return in_all(what, action if HERE.rank == 0 else lambda: None)


def of_first(what: str, action: Callable[[], T]) -> T:
    """Return what an action gives in the first process, which alone carries it out."""
    return all_of(what, action if HERE.rank == 0 else lambda: None)[0]  # type: ignore


def agreed(what: str, *flags: bool) -> tuple[bool, ...]:
    """Return each flag as True where it is in any process."""
    return tuple(map(any, zip(*gather(what, flags), strict=True)))


def check_alike(what: str, values: Sequence[Any]) -> None:
    """End the run (Lost) where the values of the processes are not the same."""
    for other, theirs in enumerate(values):
        if theirs != values[0]:
            remedy = "take machines of one kind, or --deterministic"
            raise Lost(f"drift: {what} of process {other} are not those of process 0; {remedy}")


# ---- numbers


def total(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without a gradient; alone itself."""
    if HERE.size == 1:
        return x
    summed = x.detach().clone()
    add_up([summed])
    return summed


def largest(x: Tensor) -> Tensor:
    """Return the largest of all processes' numbers of each entry; alone the tensor itself."""
    if HERE.size == 1:
        return x
    from torch import distributed

    found = x.detach().clone()
    with losses():
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return found


def add_up(leaves: Iterable[Array]) -> None:
    """Write into tensors, or arrays, their sums over all processes, in one exchange."""
    if HERE.size == 1:
        return
    import torch
    from torch import distributed

    tensors = [torch.as_tensor(leaf) for leaf in leaves]
    flat = torch.cat([x.reshape(-1) for x in tensors])
    with losses():
        distributed.all_reduce(flat)
    for x, part in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
        x.copy_(part.view_as(x))


def share(batch: Batch) -> Batch:
    """Return this process's share of a batch's columns; alone the batch itself.

    All shares have as many, so that layers which draw do so alike: where there are too few columns
    one of another share stands in, and is not valid.
    """
    if HERE.size == 1:
        return batch
    columns = batch.start.shape[1]
    index = HERE.rank + HERE.size * np.arange(-(-columns // HERE.size))
    mine = batch.columns(index % columns)
    own = like(np.broadcast_to(index < columns, mine.start.shape).copy(), mine.start)
    return mine._replace(valid=own if mine.valid is None else mine.valid & own)
