"""Random draws and other operations that differ between NumPy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.core.arrays import to_tensor
from seqrl.core.errors import UsageError
from seqrl.core.picking import where
from seqrl.core.seeding import get_rng_state, set_rng_state
from seqrl.core.types import Array


class Draws:
    """Draws of a batch of environments in NumPy; `xp` is the array module."""

    xp: Any = np
    device: Any = "cpu"
    _rng: np.random.Generator

    def seed(self, rng: np.random.Generator) -> None:
        """Draw from `rng` from now on."""
        self._rng = rng

    def integers(self, high: int, n: int) -> Array:
        """Return N whole numbers below `high`, int64."""
        return self._rng.integers(high, size=n)

    def permutations(self, count: int, n: int) -> Array:
        """Return N random permutations of 0 .. count-1, int64 [N, count]."""
        return self._rng.random((n, count)).argsort(1)  # twice as fast as Generator.permuted

    def uniform(self, *shape: int) -> Array:
        """Return numbers from [0, 1), float32."""
        return self._rng.random(shape, np.float32)

    def normal(self, *shape: int) -> Array:
        """Return numbers of mean 0 and spread 1, float32."""
        return self._rng.standard_normal(shape, np.float32)

    def get_state(self) -> Any:
        """Return the generator's state: plain values, or an array of bytes."""
        return get_rng_state(self._rng)

    def set_state(self, state: Any) -> None:
        """Restore the state of `get_state`; UsageError for one of another kind."""
        if not isinstance(state, dict):
            raise UsageError("the saved environments were on a device, these are in NumPy")
        set_rng_state(self._rng, state)

    def array(self, values: Array) -> Array:
        """Return the values as an array of `xp` on the device."""
        return np.asarray(values)

    def constant(self, values: np.ndarray) -> Array:
        """Return values that never change, as `array` does; moved to a device once."""
        return values

    def most(self, mask: Array) -> int:
        """Return how many entries of a mask [N] are True; on a device N, without a look."""
        return int(np.count_nonzero(mask))

    def replaced(self, mask: Array, old: Array, new: Array) -> Array:
        """Return `old` with `new` [most(mask), ...] where a mask holds, in place if not all are."""
        if len(new) == len(old):
            return new
        old[mask] = new
        return old


class TorchDraws(Draws):
    """Draws on a torch device, from a torch.Generator there."""

    def __init__(self, device: Any):
        import torch  # imported here, as NumPy batches must not need it

        try:
            self.device = torch.zeros(1, device=device).device
            self._generator = torch.Generator(self.device)
            self._generator.get_state()
            self._constants: dict[int, tuple[np.ndarray, Array]] = {}
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            known = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
            text = f"device {device!r}: expected None for NumPy, or one of {known}"
            raise UsageError(text) from error

    @property
    def xp(self) -> Any:
        """The array module, which as an attribute of the object could not be copied or pickled."""
        import torch

        return torch

    def seed(self, rng: np.random.Generator) -> None:
        """Draw from a stream seeded by `rng` from now on."""
        self._generator.manual_seed(int(rng.integers(2**63)))

    def integers(self, high: int, n: int) -> Array:
        """Return N whole numbers below `high`, int64."""
        return self.xp.randint(high, (n,), generator=self._generator, device=self.device)

    def permutations(self, count: int, n: int) -> Array:
        """Return N random permutations of 0 .. count-1, int64 [N, count]."""
        keys = self.xp.rand((n, count), generator=self._generator, device=self.device)
        return keys.argsort(dim=1, stable=True)  # float32 keys tie now and then

    def uniform(self, *shape: int) -> Array:
        """Return numbers from [0, 1), float32."""
        return self.xp.rand(shape, generator=self._generator, device=self.device)

    def normal(self, *shape: int) -> Array:
        """Return numbers of mean 0 and spread 1, float32."""
        return self.xp.randn(shape, generator=self._generator, device=self.device)

    def get_state(self) -> Any:
        """Return the generator's state: plain values, or an array of bytes."""
        return self._generator.get_state().numpy().copy()

    def set_state(self, state: Any) -> None:
        """Restore the state of `get_state`; UsageError for one of another kind."""
        if np.shape(state) != tuple(self._generator.get_state().shape):
            raise UsageError(f"the saved environments were not on {self.device.type}, these are")
        self._generator.set_state(self.xp.from_numpy(np.array(state, np.uint8)))

    def array(self, values: Array) -> Array:
        """Return the values as an array of `xp` on the device."""
        return to_tensor(values, self.device)

    def constant(self, values: np.ndarray) -> Array:
        """Return values that never change, as `array` does; moved to a device once."""
        found, there = self._constants.get(id(values), (None, None))
        if found is not values:
            there = self.array(values)
            self._constants[id(values)] = values, there  # kept, so that no other has its id
        return there

    @property
    def counts(self) -> bool:
        """Whether `most` counts: in the host's memory, where that waits for nothing."""
        return bool(self.device.type == "cpu")

    def most(self, mask: Array) -> int:
        """Return how many entries of a mask [N] are True; on a device N, without a look."""
        return int(mask.sum()) if self.counts else len(mask)

    def replaced(self, mask: Array, old: Array, new: Array) -> Array:
        """Return `old` with `new` [most(mask), ...] where a mask holds; on a device as a copy."""
        return super().replaced(mask, old, new) if self.counts else where(mask, new, old)


def between(draws: Draws, low: float, high: float, n: int) -> Array:
    """Return N numbers from [low, high), float64: states are, so that small steps add up."""
    return low + (high - low) * draws.xp.asarray(draws.uniform(n), dtype=draws.xp.float64)


def pick(xp: Any, rows: Array, column: Array) -> Array:
    """Return the entry `column[i]` of each row i, [N]; the last one where it is beyond the end."""
    last = rows.shape[1] - 1
    return rows[xp.arange(len(rows), device=column.device), column.clip(max=last)]
