"""Checks whether a network can learn from an environment; each returns findings."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from seqrl.agents.factory import build_network
from seqrl.core import action_mask, tree
from seqrl.core.errors import UsageError, explain
from seqrl.core.seeding import Streams
from seqrl.envs.env_check import Finding, Play
from seqrl.envs.observations import observations
from seqrl.networks.base import Network, as_network, has_memory, name_of
from seqrl.networks.cnn import is_image
from seqrl.networks.contract import probe
from seqrl.networks.diagnosis.check import check_network
from seqrl.networks.diagnosis.vital_signs import VitalSigns, first_not_finite

MAX_OBSERVATIONS = 200
MAX_INPUT = 10.0  # root mean square at the first layer; 1 is best
MAX_DEAD = 0.9  # share of features that never change
VANISHING = 1e-5  # share of the total norm; healthy gradients stay above 3e-4
EXPLODING = 1e4  # total norm; healthy networks stay below 300
SEE_DOCS = "docs/plug_your_network.md says what a network has to do"


def new_network(config: dict[str, Any], space: gym.Space) -> Network:
    """Return a new network of a run, as its seed makes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(Streams.of(config["seed"]).network.generate_state(1)[0]))
        return as_network(
            build_network(
                config["network"], space, config["network_args"], config.get("normalize_obs", False)
            )
        )


def as_rollout(space: gym.Space, seen: Play) -> tuple[Any, Tensor]:
    """Return the first observations [T, 1, ...] as a rollout of one environment, and its starts."""
    obs = observations(space).stack(seen.observations[:MAX_OBSERVATIONS])
    start = torch.tensor(seen.start[:MAX_OBSERVATIONS])[:, None]
    shown, _ = action_mask.split(obs)
    return tree.map(lambda leaf: torch.as_tensor(leaf)[:, None], shown), start


def check_works(network: Network, space: gym.Space, obs: Any, start: Tensor) -> list[Finding]:
    """Check that the network maps observations to finite features."""
    try:
        probe(network, space)
        source = first_not_finite(network, obs, start)
    except UsageError as error:
        return [Finding(str(error), non_finite_source(network, obs, start))]
    except Exception as error:  # a user's network may raise anything
        what = f"network {name_of(network)} fails on what was seen: {explain(error)}"
        return [Finding(what, SEE_DOCS)]
    if not source:
        return []
    what = f"network {name_of(network)} gives NaN or infinity on what was seen, first {source}"
    return [Finding(what, "keep what it takes the log or root of, or divides by, above 1e-8")]


def non_finite_source(network: Network, obs: Any, start: Tensor) -> str:
    """Return a remedy that names the source of NaN or infinity, if there is one."""
    try:
        source = first_not_finite(network, obs, start)
    except Exception:  # the network does not run
        source = ""
    return f"NaN or infinity comes first from {source}" if source else SEE_DOCS


def check_contract(network: Network, space: gym.Space) -> list[Finding]:
    """Check the network contract (see `check_network`)."""
    try:
        check_network(network, space)
    except UsageError as error:
        return [Finding(str(error), SEE_DOCS)]
    return []


def check_inputs(signs: VitalSigns, space: gym.Space) -> list[Finding]:
    """Check that the inputs of the first layer are normalised."""
    if signs.inputs <= MAX_INPUT:
        return []
    around = f"the first layer gets numbers around {signs.inputs:.3g}"
    scaled = "observation_space of dtype uint8, which is divided by its bound"
    remedy = scaled if is_image(space) else "--network-arg normalize=True"
    return [Finding(f"observations are not normalised: {around}", remedy)]


def check_features(signs: VitalSigns, obs: Any) -> list[Finding]:
    """Check that different observations give different features."""
    varied = any(bool((leaf != leaf[:1]).any()) for leaf in tree.leaves(obs))
    if signs.dead <= MAX_DEAD or not varied:
        return []
    what = f"dead: {signs.dead:.0%} of the network's features are the same for all observations"
    remedy = (
        "--network-arg layer_norm=True; in one of your own smaller weights and biases, "
        "nn.LayerNorm, LeakyReLU or Tanh for ReLU, or fewer layers"
    )
    return [Finding(what, remedy)]


def check_gradients(signs: VitalSigns) -> list[Finding]:
    """Check that gradients neither vanish in a layer nor explode."""
    norms = signs.gradients
    total = math.hypot(*norms.values())
    if not total <= EXPLODING:
        worst = max(norms, key=lambda name: norms[name])
        what = f"exploding gradients: {total:.2g} for features of size 1, most in {worst}"
        remedy = "--network lstm or gru for rnn; in one of your own, weights of norm 1 at most"
        return [Finding(what, remedy)]
    dead = [name for name, norm in norms.items() if norm <= VANISHING * total]
    if not dead:
        return []
    what = f"dead gradients: none arrives at {', '.join(dead[:3])}{' ...' * (len(dead) > 3)}"
    remedy = (
        "look for .detach(), no_grad or a layer that is not used; else fewer layers, ReLU or Tanh "
        "for Sigmoid, or layer_norm"
    )
    return [Finding(what, remedy)]


def summary(network: Network, signs: VitalSigns) -> str:
    """Return name, size and vital signs in a line."""
    weights = sum(weight.numel() for weight in network.parameters())
    memory = "memory" if has_memory(network) else "no memory"
    size = math.hypot(*signs.gradients.values())
    inputs = f", inputs around {signs.inputs:.2g}" if signs.inputs else ""
    return f"{name_of(network)}: {weights:,} weights, {memory}{inputs}, gradient {size:.2g}"
