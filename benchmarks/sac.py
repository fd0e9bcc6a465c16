"""Env steps a CPU second of SAC beside Stable-Baselines3's, at the same updates, in one run.

`python benchmarks/sac.py [ENV]` (one thread): an update of a batch of 256 at each env step, two
layers of 256 for the policy and for the values; the peer where it is installed (`pip install
stable-baselines3`). Our two values are made of one such network, with a layer each of 128 units, as
by default, and of 256, as in some presets; the peer's have a network each.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable

import torch
from timing import interleaved, report

from seqrl.agents import SAC, ReplaySettings, Updates
from seqrl.envs import make
from seqrl.networks import build
from seqrl.training import train

BATCH, HIDDEN, FIRST, BUFFER = 256, (256, 256), 300, 100_000
Run = Callable[[int], object]


def ours(env: str, value_hidden: int | None = None) -> Run:
    """Return a function that trains our SAC for some env steps."""
    envs = make(env, 1)
    space = envs.single_observation_space
    agent = SAC(
        build("mlp", space, seed=0, hidden=HIDDEN, activation="ReLU"),
        envs.single_action_space,
        space,
        value_hidden=value_hidden,
        updates=Updates(BATCH, train_every=1, updates=1),
        replay=ReplaySettings(BUFFER, learning_starts=FIRST),
        device="cpu",
        seed=0,
    )
    train(agent, envs, FIRST, seed=0)
    return lambda steps: train(agent, envs, steps, seed=0)


def sb3(env: str) -> Run:
    """Return a function that trains Stable-Baselines3's SAC."""
    from stable_baselines3 import SAC as Peer

    numbers = {"batch_size": BATCH, "buffer_size": BUFFER, "learning_starts": FIRST, "seed": 0}
    kwargs = {"net_arch": list(HIDDEN)}
    model = Peer("MlpPolicy", env, **numbers, policy_kwargs=kwargs, device="cpu")  # type: ignore
    model.learn(FIRST)
    return lambda steps: model.learn(steps, reset_num_timesteps=False)


def main() -> None:
    """Print the rates of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env", nargs="?", default="Pendulum-v1")
    parser.add_argument("--steps", type=int, default=400, help="of each, in each of five rounds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = {"ours": (ours(args.env), args.steps)}
    cases["ours, 256 units a value"] = ours(args.env, 256), args.steps
    if importlib.util.find_spec("stable_baselines3"):
        cases["Stable-Baselines3"] = sb3(args.env), args.steps
    report(interleaved(cases), list(cases)[-1])


if __name__ == "__main__":
    main()
