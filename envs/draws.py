"""Random draws and the little else that is not said alike in NumPy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.core import Array, UsageError, get_rng_state, set_rng_state


class Draws:
    """For a batch of environments in NumPy; all other words are those of `xp`, the module."""

    xp: Any = np
    device: Any = "cpu"
    _rng: np.random.Generator

    def seed(self, rng: np.random.Generator) -> None:
        """Draw from `rng` from now on."""
        self._rng = rng

    def integers(self, high: int, n: int) -> Array:
        """N whole numbers below `high`, int64."""
        return self._rng.integers(high, size=n)

    def orders(self, count: int, n: int) -> Array:
        """N random orders of 0 .. count-1, int64 [N, count]."""
        return self._rng.random((n, count)).argsort(1)  # half the time of Generator.permuted

    def get_state(self) -> Any:
        """Where the draws are: plain values, or an array of bytes."""
        return get_rng_state(self._rng)

    def set_state(self, state: Any) -> None:
        """Go on where `get_state` was called; UsageError for the state of another kind."""
        if not isinstance(state, dict):
            raise UsageError("the saved environments were on a device, these are in NumPy")
        set_rng_state(self._rng, state)

    def array(self, values: Array) -> Array:
        """What the batch computes with."""
        return np.asarray(values)

    def host(self, array: Array) -> np.ndarray:
        """A copy in NumPy."""
        return np.array(array)

    def counts(self, *masks: Array) -> list[int]:
        """How often each mask holds: the one look a step takes at what is on the device."""
        return [int(np.count_nonzero(mask)) for mask in masks]


class TorchDraws(Draws):
    """The same on a torch device, drawing from a torch.Generator there."""

    def __init__(self, device: Any):
        import torch  # here, as NumPy batches must not need it

        self.xp = torch
        try:
            self.device = torch.zeros(1, device=device).device
            self._generator = torch.Generator(self.device)
            self._generator.get_state()
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
            raise UsageError(
                f"device {device!r}: expected None for NumPy, or one of {', '.join(known)}"
            ) from error

    def seed(self, rng: np.random.Generator) -> None:
        """Draw from a stream that `rng` chooses from now on."""
        self._generator.manual_seed(int(rng.integers(2**63)))

    def integers(self, high: int, n: int) -> Array:
        """N whole numbers below `high`, int64."""
        return self.xp.randint(high, (n,), generator=self._generator, device=self.device)

    def orders(self, count: int, n: int) -> Array:
        """N random orders of 0 .. count-1, int64 [N, count]."""
        keys = self.xp.rand((n, count), generator=self._generator, device=self.device)
        return keys.argsort(dim=1, stable=True)  # float32 keys tie now and then

    def get_state(self) -> Any:
        """Where the draws are: plain values, or an array of bytes."""
        return self._generator.get_state().numpy().copy()

    def set_state(self, state: Any) -> None:
        """Go on where `get_state` was called; UsageError for the state of another kind."""
        if np.shape(state) != tuple(self._generator.get_state().shape):
            raise UsageError(f"the saved environments were not on {self.device.type}, these are")
        self._generator.set_state(self.xp.from_numpy(np.array(state, np.uint8)))

    def array(self, values: Array) -> Array:
        """What the batch computes with."""
        if isinstance(values, np.ndarray):
            values = values.copy()  # torch warns of arrays that cannot be written
        return self.xp.asarray(values, device=self.device)

    def host(self, array: Array) -> np.ndarray:
        """A copy in NumPy."""
        return array.cpu().numpy().copy()

    def counts(self, *masks: Array) -> list[int]:
        """How often each mask holds: the one look a step takes at what is on the device."""
        return self.xp.stack([mask.sum() for mask in masks]).tolist()
