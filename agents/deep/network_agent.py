"""What agents on a network share: device, random numbers, schedules, the network's trial."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seqrl.agents.deep.devices import pick_device
from seqrl.agents.deep.optim import make_optimizer
from seqrl.agents.schedules import Rate, Schedule, rate, schedule
from seqrl.core import (
    Array,
    RunError,
    State,
    UsageError,
    generator,
    get_rng_state,
    schema,
    set_rng_state,
    tree,
)
from seqrl.core.arrays import to_tensor
from seqrl.core.seeding import Seed
from seqrl.networks import as_network, probe
from seqrl.networks.base import check_output

RNG_SIZES = (16, 5056)  # bytes of a torch generator's state on a GPU, on a CPU


class NetworkAgent:
    """An agent around one network. A subclass makes its layers in `_build`.

    The subclass calls `_prepare` at the end of its constructor and `_try_once` before it acts; what
    it keeps beside what is kept here goes through `_parts`, `_parts_form` and `_load_parts`.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: Rate,
        optimizer: str,
        weight_decay: float,
        device: str,
        seed: Seed,
    ):
        self.device, self.device_reason = pick_device(device)
        self.network = as_network(network).to(self.device)
        self.learning_rate = schedule("learning_rate", learning_rate, 0.0, math.inf)
        self.optimizer, self.weight_decay = optimizer, weight_decay
        make_optimizer(optimizer, [nn.Parameter(torch.zeros(1))], 0.0, weight_decay)  # known?
        self.horizon: int | None = None
        self.steps = 0
        self.built = self.checked = False  # are the layers there; has the network been tried
        self.reseed(seed)

    def reseed(self, seed: Seed) -> None:
        """Draw from a new stream from now on."""
        self.rng = generator(seed)
        self.torch_rng = torch.Generator(self.device)
        self.torch_rng.manual_seed(int(self.rng.integers(2**62)))

    # the network

    def _build(self) -> None:
        """Make the layers behind the network, whose number of features is known."""
        raise NotImplementedError

    def _prepare(self, space: gym.Space | None) -> None:
        """Build at once what can be: by trying the network on the space, if it is given."""
        if space is not None:
            probe(self.network, space)
            self.checked = True
        if self.network.features and not any(map(is_lazy, self.network.parameters())):
            self._finish()

    def _try_once(self, obs: Array, start: Array) -> None:
        """Try the network on the first observations; they build what is lazy."""
        if self.checked:
            return
        features, state = self._forward(obs, start, None)
        check_output(self.network, features, state, (1, len(start)))
        self.network.features = features.shape[-1]
        if not self.built:
            self._finish()
        self.checked = True

    def _finish(self) -> None:
        self._build()
        self.built = True

    def _forward(self, obs: Array, start: Array, state: State) -> tuple[Tensor, State]:
        """One step of the network: features [1, N, F] and memory."""
        rolled = tree.map(lambda leaf: leaf[None], to_tensor((obs, start), self.device))
        self.network.eval()
        with torch.inference_mode():
            return self.network(*rolled, to_tensor(state, self.device))

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        begin = self.learning_rate.start
        return make_optimizer(self.optimizer, module.parameters(), begin, self.weight_decay)

    def _now(self, number: Schedule) -> float:
        """What a scheduled number is at this env step."""
        return rate(*number.bind(self.horizon), self.steps)

    # state

    def _parts(self) -> dict[str, Any]:
        """What the subclass keeps."""
        raise NotImplementedError

    def _parts_form(self, state: dict[str, Any]) -> dict[str, Any]:
        """What that looks like in a saved state (see `core.forms`)."""
        raise NotImplementedError

    def _load_parts(self, state: dict[str, Any]) -> None:
        """Take it in."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, what was met and not yet learned from, counters, random numbers."""
        return {
            **self._parts(),
            "steps": self.steps,
            "horizon": self.horizon,
            "rng": get_rng_state(self.rng),
            "torch_rng": self.torch_rng.get_state().numpy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; refuses what is not of this agent's form."""
        with schema.loading("agent"):
            own = {"steps": 0, "horizon": schema.maybe(0)}
            drawn = {"rng": schema.anything, "torch_rng": check_torch_rng}
            schema.check("agent", state, {**self._parts_form(state), **own, **drawn})
            self._load_parts(state)
            self.steps, self.horizon = state["steps"], state["horizon"]
            set_rng_state(self.rng, state["rng"])
            saved = torch.tensor(state["torch_rng"])
            if saved.shape == self.torch_rng.get_state().shape:  # else of another kind of device
                self.torch_rng.set_state(saved)

    def _check_built(self) -> None:
        """Refuse weights for layers that are not there yet."""
        if not self.built:
            raise UsageError("the network is not built yet: give the agent the observation_space")


def check_finite(out: Array, obs: Array) -> None:
    """Refuse to act on numbers that are not finite."""
    if not math.isfinite(float(out.sum())):
        raise RunError(f"the network gave {out.ravel()[:4].tolist()} ... at {obs}"[:200])


def check_torch_rng(name: str, saved: Any) -> None:
    """Refuse what is no state of a torch generator on any device."""
    if not hasattr(saved, "dtype") or saved.shape not in [(size,) for size in RNG_SIZES]:
        schema.refuse(name, saved, f"uint8 {' or '.join(map(str, RNG_SIZES))}")
    schema.check(name, saved, np.zeros(saved.shape, np.uint8))
