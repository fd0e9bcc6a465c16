"""Does a representation that was learned before reward help? Three comparisons over seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from report import draw, table

from seqrl.agents import PPO, Imitation, Optim
from seqrl.agents.deep.warm_start import WarmStart
from seqrl.envs import Reconstruction, make
from seqrl.networks import MLP, VAE, AutoEncoder, Network
from seqrl.training import evaluate, train, warm_start

ADAM = Optim(0.003, 1.0)
FROZEN = Optim(0.003, 1.0, freeze="encoder")
Numbers = dict[str, Any]
POINTS = 5
QUANTILE = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # of Student's t, for intervals of 95 %


def spaces_of(envs: Any) -> tuple[Any, Any]:
    """Return the spaces of actions and observations."""
    return envs.single_action_space, envs.single_observation_space


def pretrained(make_network: Callable[[Any], Network], steps: int, seed: int, **env: Any) -> Any:
    """Return an agent whose network has given observations back."""
    envs = make(num_envs=64, wrappers=[Reconstruction], **env)
    torch.manual_seed(seed)
    network = make_network(envs.single_observation_space)
    agent = Imitation(network, *spaces_of(envs), teacher="observation", seed=seed)
    train(agent, envs, steps=steps, seed=seed)
    return agent


def returns(
    network: Callable[[Any], Network], steps: int, seed: int, begin: Any, optim: Optim, **env: Any
) -> list[float]:
    """Return the mean returns of greedy episodes after each part of a run of PPO."""
    envs, judged = make(num_envs=16, **env), make(num_envs=100, **env)
    torch.manual_seed(1000 + seed)
    numbers: Numbers = {"optim": optim, "rollout": 32, "warm_start": WarmStart(), "seed": seed}
    agent = PPO(network(envs.single_observation_space), *spaces_of(envs), **numbers)
    if begin is not None:
        warm_start(agent, begin)
    found = []
    for point in range(POINTS):
        train(agent, envs, steps=steps // POINTS, seed=100 * seed + point)
        found.append(float(evaluate(copy.deepcopy(agent), judged, 200, seed=7).mean))
    return found


CATCH = {"env": "seqrl/Catch-v0"}
NOISY = {"env": "seqrl/Samples-v0", "set": "digits", "noise": 0.3}


def code(space: Any) -> Network:
    """Return the autoencoder of the first comparison."""
    return AutoEncoder(space, 16, hidden=(64,))


def drawn(space: Any) -> Network:
    """Return the variational one of the third."""
    return VAE(space, 16, hidden=(64,), beta=0.01)


def plain(space: Any) -> Network:
    """Return one that has seen digits without noise."""
    return AutoEncoder(space, 16)


def denoising(space: Any) -> Network:
    """Return one that has learned to take noise away."""
    return AutoEncoder(space, 16, gaussian=0.3)


def linear(space: Any) -> Network:
    """Return pixels, flattened, for a linear policy."""
    return MLP(space, ())


def runs(steps: int, before: int, seed: int) -> dict[str, list[float]]:
    """Return the curves of a seed, by name: of each comparison two."""
    clean = {**NOISY, "noise": 0.0}
    return {
        "Catch from nothing": returns(code, steps, seed, None, ADAM, **CATCH),
        "Catch, pre-trained": returns(
            code, steps, seed, pretrained(code, before, seed, **CATCH), ADAM, **CATCH
        ),
        "noise, plain encoder": returns(
            plain, steps, seed, pretrained(plain, before, seed, **clean), FROZEN, **NOISY
        ),
        "noise, denoising encoder": returns(
            denoising, steps, seed, pretrained(denoising, before, seed, **clean), FROZEN, **NOISY
        ),
        "linear on pixels": returns(linear, steps, seed, None, ADAM, **CATCH),
        "linear on VAE's code": returns(
            drawn, steps, seed, pretrained(drawn, before, seed, **CATCH), FROZEN, **CATCH
        ),
    }


def main(seeds: int = 4, steps: int = 10_000, before: int = 20_000) -> dict[str, np.ndarray]:
    """Run all; return the curves [seeds, points] by name."""
    each = [runs(steps, before, seed) for seed in range(seeds)]
    found = {name: np.array([run[name] for run in each]) for name in each[0]}
    names = list(found)
    rows = []
    for first, second in zip(names[::2], names[1::2], strict=True):
        gain = (found[second] - found[first]).mean(1)
        half = QUANTILE[seeds] * gain.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
        ends = (found[name][:, -1].mean() for name in (first, second))
        rows.append((f"{second} / {first}", *ends, gain.mean(), half))
    table(["", "end, first", "end, second", "gain over the run", "+-"], rows)
    at = np.arange(1, POINTS + 1) * steps // POINTS
    draw(__file__, {name: (at, x.mean(0)) for name, x in found.items()}, "env steps", "return")
    return found


if __name__ == "__main__":
    main()
