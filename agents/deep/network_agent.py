"""What agents on a network share: building, acting, gradient steps, schedules, saving."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, ClassVar, NoReturn

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seqrl.agents.deep.devices import pick_device
from seqrl.agents.deep.optim import Optim, keeper
from seqrl.agents.deep.outputs import BACKENDS, Part
from seqrl.agents.deep.targets import Loss
from seqrl.agents.deep.warm_start import (
    LAYER,
    Taken,
    acting_weights,
    fits_whole,
    form_of,
    take_weights,
    units_of_rewards,
    weights_of,
)
from seqrl.agents.schedules import Schedule, Scheduled, rate, schedule
from seqrl.core import action_mask, schema, team, tree
from seqrl.core.arrays import host_copy, to_tensor
from seqrl.core.checks import check_choice, check_unit
from seqrl.core.deferred import Transaction, require_finite
from seqrl.core.errors import RunError, UsageError
from seqrl.core.moments import RewardScale
from seqrl.core.saved import NUMBER, PART, RNG, Kept
from seqrl.core.seeding import Seed, drawing_from, generator, torch_generator
from seqrl.core.types import Array, Batch, DeferredChecks, Metrics, Transition
from seqrl.networks.base import Network, as_network, has_memory, kept_outputs, name_of
from seqrl.networks.contract import attempt, probe
from seqrl.networks.resets import starts_at_most

DROPOUTS = "dropout", "input_dropout", "recurrent_dropout"  # what layers of ours name them
COMPARED = 64  # updates after which the weights of a run's processes are compared
RNG_SIZES = (16, 5056)  # bytes of a torch generator's state on a GPU, on a CPU


def check_torch_rng(name: str, value: torch.Generator, saved: Any) -> None:
    """Refuse what is no state of a torch generator on any device."""
    if not hasattr(saved, "dtype") or saved.shape not in [(size,) for size in RNG_SIZES]:
        schema.refuse(name, saved, f"uint8 {' or '.join(map(str, RNG_SIZES))}")
    schema.check(name, saved, np.zeros(saved.shape, np.uint8))


def load_torch_rng(value: torch.Generator, saved: Any) -> torch.Generator:
    """Set a generator's state, unless it was saved on another kind of device."""
    state = torch.tensor(saved)
    if state.shape == value.get_state().shape:
        value.set_state(state)
    return value


def check_parts(name: str, parts: dict[str, Part], saved: Any) -> None:
    """Refuse other parts than these; none were saved before the network was built."""
    if not isinstance(saved, dict):
        schema.refuse(name, saved, "the parts of an agent")
    if saved:
        schema.check(name, saved, dict.fromkeys(parts, schema.anything))


def load_parts(parts: dict[str, Part], saved: Any) -> dict[str, Part]:
    """Load the weights and moments of each part."""
    for name, state in saved.items():
        parts[name].load_state_dict(state, f"agent/parts/{name}")
    return parts


class NetworkAgent(Scheduled):
    """An agent around one network: what is met goes into a store, and batches of it are learned.

    A subclass makes its parts and its store in `_build`, says in `batches` when it learns from
    what, and in `loss` what is minimised; it calls `_prepare` at the end of its constructor.
    """

    # Whether torchrun's processes may share its gradients; a subclass has to say so itself.
    data_parallel = False
    store: Any  # add(step), state_dict, load_state_dict
    parts: dict[str, Part]  # what is trained, by name; the first one acts

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        optim: Optim,
        gamma: float,
        normalize_reward: bool,
        backend: str,
        device: str,
        seed: Seed,
    ):
        check_unit("gamma", gamma)
        check_choice("backend", backend, BACKENDS)
        self.device, self.device_reason = pick_device(device)
        self.network = as_network(network).to(self.device)
        self.action_space = action_space
        self.optim, self.gamma, self.backend = optim, gamma, backend
        self.learning_rate = schedule("learning_rate", optim.learning_rate, 0.0, math.inf)
        self.normalize_reward, self.reward_scale = normalize_reward, RewardScale(gamma)
        self.updates = 0
        self.turn_steps = 0  # env steps of the turn that is being learned from
        self.parts, self.store = {}, None
        self.transaction = Transaction(on_host=self.device.type == "cpu")
        self.built = self.checked = False  # are the layers there; has the network been tried
        self.reseed(seed)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and deepcopy copy."""
        return dict(vars(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return an independent copy; of outputs that a network has kept, the numbers alone."""
        for module in (self.network, *(part.module for part in self.parts.values())):
            memo |= kept_outputs(module)
        made = memo[id(self)] = object.__new__(type(self))
        vars(made).update(copy.deepcopy(self.__getstate__(), memo))
        return made

    def reseed(self, seed: Seed) -> None:
        """Draw from a new stream from now on."""
        self.rng = generator(seed)
        self.torch_rng = torch_generator(self.rng, self.device)
        self.layers_rng = torch_generator(self.rng)  # of the weights of layers that are made

    # the network

    def _build(self) -> None:
        """Make parts and store; the network's number of features is known."""
        raise NotImplementedError

    def _prepare(self, space: gym.Space | None) -> None:
        """Build at once what can be: by trying the network on the space, if it is given."""
        if space is not None:
            action_mask.check_mask(space, self.action_space)
            with drawing_from(self.layers_rng):
                probe(self.network, action_mask.rest_space(space))
            self.checked = True
        if self.network.features and not any(map(is_lazy, self.network.parameters())):
            self._finish()

    def _try_once(self, obs: Array, start: Array) -> None:
        """Try the network on the first observations; they build what is lazy."""
        if self.checked:
            return
        shown, legal = action_mask.split(obs)
        if legal is not None:
            action_mask.check_size(legal.shape[1:], self.action_space)
        rolled = to_tensor((shown, start), self.device)
        seen, begins = tree.map(lambda leaf: leaf[None], rolled)
        self.network.eval()
        with drawing_from(self.layers_rng):
            attempt(self.network, seen, begins, "the first observations")
        if not self.built:
            self._finish()
        self.checked = True

    def _finish(self) -> None:
        self.memory = has_memory(self.network)
        with drawing_from(self.layers_rng):
            self._build()
        self._check_effect()
        self.built = True

    def _check_effect(self) -> None:
        """Refuse options that change nothing for this network."""
        layers = [part.module.layer.weight for part in self.parts.values()]
        if any(
            all(weight is not layer for layer in layers) for weight in shared_weights(self.network)
        ):
            layer = "layer of its own that gives the choices alone, on top of the network itself"
            raise UsageError(f"tied weights: no effect, as {type(self).__name__} has no {layer}")
        if self.optim.bptt and not self.memory:
            raise UsageError(f"bptt {self.optim.bptt}: {name_of(self.network)} has no memory")
        drawing = [part for part in self.parts.values() if part.draws and part.optim]
        regular = self.optim.regularisation
        for name in ("sparsity", "auxiliary") if team.size() > 1 else ():
            if number := getattr(regular, name):
                reason = "a batch's mean is nowhere whole in torchrun's processes"
                raise UsageError(f"{name} {number}: {reason}; leave it out")
        if regular.auxiliary and not self.network.has_auxiliary:
            reason = f"{name_of(self.network)} learns nothing from observations alone"
            remedy = "take --network autoencoder or vae"
            raise UsageError(f"auxiliary {regular.auxiliary}: {reason}; {remedy}")
        noise = regular.input_noise
        for name, number in (("input_noise", noise), ("dropout", own_dropout(self.network))):
            if number and not drawing:
                reason = "a policy learns as it acts, without draws, and there is no value network"
                raise UsageError(f"{name} {number}: no effect, as {reason} of its own")

    @property
    def learner(self) -> str:
        """What takes the gradient steps: NumPy or torch."""
        parts = self.parts.values()
        if any(part.learns_in_numpy for part in parts):
            return "NumPy learner"
        option = next((part.torch_for for part in parts if part.torch_for), "")
        return f"torch learner as NumPy has no {option}" if option else "torch learner"

    def greedy(self, out: Array) -> Array:
        """Return the actions [N, ...] where nothing is to be explored, by what acts' numbers."""
        raise NotImplementedError

    # learning

    def learn(self, step: Transition) -> Metrics:
        """Keep the turn, and learn from the batches that are due once the whole of it is there."""
        count = int((step.seen or step).valid.sum())
        self.steps += count
        self.turn_steps += count
        if self.normalize_reward:
            self.reward_scale.follow(step)
        self.store.add(step)
        if not step.whole:
            return {}
        told: Metrics | Callable[[], Metrics] = {}
        before = self.updates
        for batch in self.batches():
            told = self.update(batch)
        self.transaction.commit()
        if team.size() > 1 and self.updates // COMPARED > before // COMPARED:
            team.check_alike("the weights", team.all_of("a comparison", self._weights_digest))
        metrics = told() if callable(told) else told
        self.end_turn()
        self.turn_steps = 0
        return metrics

    def _weights_digest(self) -> str:
        """Return what differs where weights or running statistics differ in a bit."""
        modules = (part.module.state_dict() for part in self.parts.values())
        leaves = (host_copy(leaf).tobytes() for module in modules for leaf in module.values())
        return sha256(b"".join(leaves)).hexdigest()

    @property
    def reward_unit(self) -> float:
        """What rewards are divided by before they are learned from."""
        return self.reward_scale.unit if self.normalize_reward else 1.0

    def in_reward_units(self, batch: Batch) -> Batch:
        """Return a batch of the store with its rewards as they are to be learned from."""
        return self.reward_scale.scaled(batch) if self.normalize_reward else batch

    def passed(self, every: int) -> int:
        """Return how many multiples of a number of env steps the newest turn has reached."""
        return self.steps // every - (self.steps - self.turn_steps) // every

    def end_turn(self) -> None:
        """Do what is due after a turn was learned from."""

    def batches(self) -> Iterator[Batch]:
        """Yield what is to be learned from now, each when the one before has been learned from."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Loss:
        """Return what is minimised, summed over the valid steps, and their count."""
        raise NotImplementedError

    def update(self, batch: Batch) -> Metrics | Callable[[], Metrics]:
        """Take the gradient steps that a batch is for; return metrics, or what works them out.

        They are worked out for the last batch of a turn alone.
        """
        raise NotImplementedError

    def gradient_step(self, loss: Loss, *parts: Part, name: str = "loss") -> Tensor | float:
        """Step parts along the gradient of loss / count; return the first's norm before it was cut.

        What the parts add (see `Regularisation`) goes with the loss. Refused (RunError) by name,
        with the weights as they were, where a number is not finite.
        """
        average = loss.total / loss.count
        terms = [term for part in parts for term in part.take_terms()]
        self.transaction.begin(self._keepers)
        self.transaction.add(self._check_loss(team.total(average), name))
        now, most = self.now(self.learning_rate), self.optim.max_grad_norm
        for part in parts:
            if part.learns_in_numpy:  # others follow when they act
                part.refresh()
        if loss.gradient is not None:
            clipped = [parts[0].clip(most, loss.gradient / np.float32(loss.count))]
        else:
            for part in parts:
                part.clear()
            sum(terms, average).backward()
            clipped = [part.clip(most) for part in parts]
        for part, (_, checks) in zip(parts, clipped, strict=True):
            self.transaction.add(checks)
            part.step(now)
        return clipped[0][0]

    def _keepers(self) -> list[Callable[[], None]]:
        """Return what sets the parts that learn to what they are now."""
        learning = [part for part in self.parts.values() if part.optimizer is not None]
        return [keeper(part.module, part.optimizer) for part in learning]  # type: ignore

    def _check_loss(self, average: Array, name: str) -> DeferredChecks:
        """Refuse a loss that is not finite; return the check where a device knows."""
        update = self.updates + 1

        def refuse() -> NoReturn:
            remedy = "try a smaller --learning-rate, or --normalize-reward where rewards are large"
            raise RunError(f"the {name} is {average.item()} at update {update}: {remedy}")

        return require_finite(average.detach() if isinstance(average, Tensor) else average, refuse)

    @contextmanager
    def studying(self, batch: Batch) -> Iterator[None]:
        """Let networks know of a batch what the host does, and draw from the agent's numbers."""
        if all(part.learns_in_numpy for part in self.parts.values()):
            yield  # plain networks draw nothing
            return
        with drawing_from(self.torch_rng), starts_at_most(batch.starts):
            yield

    def now(self, number: Schedule) -> float:
        """Return what a scheduled number is at this env step."""
        return rate(*number.bind(self.horizon), self.steps - self.origin)

    # what another agent has learned

    def begin_from(self, saved: Mapping[str, Any]) -> Taken:
        """Take the weights, by name and shape, that another agent's `state_dict` holds.

        Those of the network that acts, its running statistics, and of its last layer the rows that
        prefer actions, or all where both have a row of values too; then other parts begin from
        these. Rewards go on in the other's unit. UsageError where nothing fits.
        """
        if not self.built:
            raise UsageError("the network is not built yet: give the agent the observation_space")
        kind, weights = acting_weights(saved.get("parts"))
        (name, part), *_ = self.parts.items()
        layer, theirs = part.module.layer.weight, weights.get("layer.weight")
        size = len(layer) - self.beside_actions
        apart = "critic" in saved["parts"]  # then no row there is of values
        own = {name: {"weights": each.module.state_dict()} for name, each in self.parts.items()}
        if form_of(own) != form_of(saved["parts"]):
            weights, theirs = {x: w for x, w in weights.items() if not x.startswith(LAYER)}, None
        same_shape = getattr(theirs, "shape", None) == layer.shape
        alike = kind == name and same_shape and not (apart and self.beside_actions)
        units = units_of_rewards(saved)
        values = kind == name == "values" or (alike and self.beside_actions)
        values = values or fits_whole(
            weights_of(own, "critic"), weights_of(saved["parts"], "critic")
        )
        if values and self.normalize_reward and not units.count:
            problem = "the values that are taken are of rewards as they are"
            raise UsageError(f"normalize_reward: {problem}; leave it out")

        def rows(leaf: Tensor, there: bool) -> Tensor:
            if alike or (there and apart):
                return leaf
            return preferring(leaf, size, last=(kind if there else name) == "values")

        taken = take_weights(part.module, weights, rows)
        if self.normalize_reward:
            self.reward_scale.moments = units
        self.begin_others(weights, saved, whole=alike)
        for each in self.parts.values():
            each.refresh()
        return taken

    @property
    def beside_actions(self) -> int:
        """How many numbers of the last layer of what acts prefer no action."""
        return 0

    def begin_others(
        self, weights: Mapping[str, Any], saved: Mapping[str, Any], *, whole: bool
    ) -> None:
        """Let the other parts begin from the weights that were taken.

        whole: whether all of the last layer was, with a row of values where it has one.
        """

    # state

    SAVED: ClassVar[dict[str, Kept]] = {
        "parts": Kept(
            lambda parts: {name: part.state_dict() for name, part in parts.items()},
            check_parts,
            load_parts,
        ),
        "store": PART,
        "updates": NUMBER,
        "turn_steps": NUMBER,
        "reward_scale": PART,
        **Scheduled.SAVED,
        "rng": RNG,
        "torch_rng": Kept(lambda rng: host_copy(rng.get_state()), check_torch_rng, load_torch_rng),
    }

    def check_state(self, state: Any, name: str) -> None:
        """Refuse what this agent has not saved; after a step there are parts and a store."""
        super().check_state(state, name)
        for entry in ("parts", "store"):
            saved = state[entry]
            if not (isinstance(saved, dict) and saved) and state["steps"]:
                schema.refuse(f"{name}/{entry}", saved, "what the steps before have left")

    def load_state_dict(self, state: dict[str, Any], name: str = "agent") -> None:
        """Continue where `state` was taken; refuse what is not of this agent's form."""
        with schema.loading(name):
            schema.check(name, state, dict.fromkeys(self.SAVED, schema.anything))
            if isinstance(state["parts"], dict) and state["parts"] and not self.built:
                text = "the network is not built yet: give the agent the observation_space"
                raise UsageError(text)
            super().load_state_dict(state, name)


def preferring(leaf: Tensor, size: int, *, last: bool) -> Tensor:
    """Return the rows [size, ...] of a last layer's weights that prefer actions.

    A value's row stands before them (`last`: in dueling values) or behind; other weights are whole.
    """
    if len(leaf) != size + 1:
        return leaf
    return leaf[1:] if last else leaf[:-1]


def shared_weights(network: nn.Module) -> list[Tensor]:
    """Return the weights that parts of a network would share with an output layer."""
    parts = (part for part in network.modules() if isinstance(part, Network))
    return [weight for part in parts if (weight := part.output_weight()) is not None]


def own_dropout(network: nn.Module) -> float:
    """Return the largest share that a network of ours is told to drop; 0 for a user's layers."""
    ours = [part for part in network.modules() if type(part).__module__.startswith("seqrl.")]
    shares = (getattr(part, name, 0.0) for part in ours for name in DROPOUTS)
    return max(shares, default=0.0)


def check_finite(out: Array, obs: Array) -> DeferredChecks:
    """Refuse to act on numbers that are not finite; return the check where a device knows."""

    def refuse() -> NoReturn:
        raise RunError(f"the network gave {out.ravel()[:4].tolist()} ... at {obs}"[:200])

    return require_finite(out.sum(), refuse)
