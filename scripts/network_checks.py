"""Can a network learn from what an environment shows? Each check answers findings."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from seqrl.core import Streams, UsageError, explain, tree
from seqrl.envs.batches import batcher
from seqrl.networks import Network, as_network, check_network, is_image, probe
from seqrl.networks.base import has_memory, name_of
from seqrl.networks.vitals import Vitals, first_not_finite
from seqrl.scripts.networks import build_network
from seqrl.training.checkup import Finding, Play

VIEWS = 200  # observations looked at, at most
LARGE = 10.0  # of what enters the first layer; 1 is best
STILL = 0.9  # share of features that never change
VANISHED = 1e-5  # of all gradients together; healthy ones stay above 3e-4
EXPLODED = 1e4  # healthy networks stay below 300
READ = "docs/plug_your_network.md says what a network has to do"


def fresh(config: dict[str, Any], space: gym.Space) -> Network:
    """The network of a run, for the doctor's own use."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(Streams.of(config["seed"]).network.generate_state(1)[0]))
        return as_network(build_network(config["network"], space, config["network_args"]))


def rolled(space: gym.Space, seen: Play) -> tuple[Any, Tensor]:
    """The first observations as a rollout of one environment [T, 1, ...], and its starts."""
    obs = batcher(space)(seen.views[:VIEWS])
    start = torch.tensor(seen.start[:VIEWS])[:, None]
    return tree.map(lambda leaf: torch.as_tensor(leaf)[:, None], obs), start


def check_works(network: Network, space: gym.Space, obs: Any, start: Tensor) -> list[Finding]:
    """It takes observations and answers finite features."""
    try:
        probe(network, space)
        source = first_not_finite(network, obs, start)
    except UsageError as error:
        return [Finding(str(error), where_from(network, obs, start))]
    except Exception as error:  # whatever a network of the user's may do
        what = f"network {name_of(network)} fails on what was seen: {explain(error)}"
        return [Finding(what, READ)]
    if not source:
        return []
    what = f"network {name_of(network)} gives NaN or infinity on what was seen, first {source}"
    return [Finding(what, "keep what it takes the log or root of, or divides by, above 1e-8")]


def where_from(network: Network, obs: Any, start: Tensor) -> str:
    """Where NaN comes from, where that is what is wrong."""
    try:
        source = first_not_finite(network, obs, start)
    except Exception:  # it does not even run
        source = ""
    return f"NaN or infinity comes first from {source}" if source else READ


def check_contract(network: Network, space: gym.Space) -> list[Finding]:
    """Memory begins and ends with the episode (see `check_network`)."""
    try:
        check_network(network, space)
    except UsageError as error:
        return [Finding(str(error), READ)]
    return []


def check_inputs(found: Vitals, space: gym.Space) -> list[Finding]:
    """What enters the first layer is normalised."""
    if found.inputs <= LARGE:
        return []
    what = (
        f"observations are not normalised: the first layer gets numbers around {found.inputs:.3g}"
    )
    scaled = "observation_space of dtype uint8, which is divided by its bound"
    remedy = scaled if is_image(space) else "--network-arg normalize=True"
    return [Finding(what, remedy)]


def check_features(found: Vitals, obs: Any) -> list[Finding]:
    """Different observations give different features."""
    varied = any(bool((leaf != leaf[:1]).any()) for leaf in tree.leaves(obs))
    if found.still <= STILL or not varied:
        return []
    what = f"dead: {found.still:.0%} of the network's features are the same for all observations"
    remedy = (
        "--network-arg layer_norm=True; in one of your own smaller weights and biases, "
        "nn.LayerNorm, LeakyReLU or Tanh for ReLU, or fewer layers"
    )
    return [Finding(what, remedy)]


def check_gradients(found: Vitals) -> list[Finding]:
    """Gradients neither vanish in a layer nor explode."""
    norms = found.gradients
    total = math.hypot(*norms.values())
    if not total <= EXPLODED:
        worst = max(norms, key=lambda name: norms[name])
        what = f"exploding gradients: {total:.2g} for features of size 1, most in {worst}"
        remedy = "--network lstm or gru for rnn; in one of your own, weights of norm 1 at most"
        return [Finding(what, remedy)]
    dead = [name for name, norm in norms.items() if norm <= VANISHED * total]
    if not dead:
        return []
    what = f"dead gradients: none arrives at {', '.join(dead[:3])}{' ...' * (len(dead) > 3)}"
    remedy = (
        "look for .detach(), no_grad or a layer that is not used; else fewer layers, ReLU or Tanh "
        "for Sigmoid, or layer_norm"
    )
    return [Finding(what, remedy)]


def described(network: Network, found: Vitals) -> str:
    """Name, size and vital signs in a line."""
    weights = sum(weight.numel() for weight in network.parameters())
    memory = "memory" if has_memory(network) else "no memory"
    size = math.hypot(*found.gradients.values())
    inputs = f", inputs around {found.inputs:.2g}" if found.inputs else ""
    return f"{name_of(network)}: {weights:,} weights, {memory}{inputs}, gradient {size:.2g}"
