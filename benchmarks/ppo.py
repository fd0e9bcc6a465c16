"""Env steps a CPU second of PPO beside its peers, at the same settings, in one run.

`python benchmarks/ppo.py` (one thread): CartPole-v1, 8 environments x 128 turns, 4 passes of 4
minibatches. Without memory two layers of 64; with memory an LSTM of 128, CartPole's velocities
hidden, networks of policy and values apart and shared; then 8, 64 and 1,024 environments. Peers are
a single file in CleanRL's manner, and Stable-Baselines3 where it is installed (`pip install
stable-baselines3 sb3-contrib`).
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from single_file import single_file_ppo
from timing import interleaved, report

from seqrl.agents import PPO
from seqrl.envs import Mask, make
from seqrl.networks import build
from seqrl.training import train

ENVS, TURNS, PASSES, MINIBATCHES, HIDDEN = 8, 128, 4, 4, 128
Run = Callable[[int], object]


def masked() -> gym.Env:
    """CartPole without its velocities."""
    return Mask(gym.make("CartPole-v1"), keep=[0, 2])


def ours(network: str = "mlp", share: bool = False, num_envs: int = ENVS, **args: Any) -> Run:
    """Return a function that trains our PPO for some env steps, a rollout at least."""
    wrappers = [partial(Mask, keep=[0, 2])] if args else []
    envs = make("CartPole-v1", num_envs, wrappers=wrappers)
    space = envs.single_observation_space
    agent = PPO(
        build(network, space, seed=0, **args),
        envs.single_action_space,
        space,
        share=share,
        rollout=TURNS,
        epochs=PASSES,
        minibatches=MINIBATCHES,
        device="cpu",
        seed=0,
    )
    return lambda steps: train(agent, envs, max(steps, num_envs * TURNS), seed=0)


def sb3(share: bool | None = None) -> Run:
    """Return a function that trains Stable-Baselines3's PPO, or contrib's recurrent one."""
    from stable_baselines3.common.env_util import make_vec_env

    args: dict[str, Any] = {"n_steps": TURNS, "n_epochs": PASSES, "device": "cpu", "seed": 0}
    args["batch_size"] = ENVS * TURNS // MINIBATCHES
    if share is None:
        from stable_baselines3 import PPO as Peer

        model: Any = Peer("MlpPolicy", make_vec_env("CartPole-v1", ENVS, seed=0), **args)
    else:
        from sb3_contrib import RecurrentPPO

        lstm = {"shared_lstm": share, "enable_critic_lstm": not share, "lstm_hidden_size": HIDDEN}
        args["policy_kwargs"] = lstm
        model = RecurrentPPO("MlpLstmPolicy", make_vec_env(masked, ENVS, seed=0), **args)
    return lambda steps: model.learn(max(steps, ENVS * TURNS))


def single_file(lstm: int = 0) -> Run:
    """Return a function that trains the PPO of a single file."""
    make_env = masked if lstm else partial(gym.make, "CartPole-v1")
    return single_file_ppo(make_env, ENVS, TURNS, PASSES, MINIBATCHES, lstm)


def main() -> None:
    """Measure, and print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16_384)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lstm = {"network": "lstm", "hidden_size": HIDDEN, "hidden": []}
    of_lstm, one_file = ours(share=True, **lstm), "a single file"
    groups: dict[str, tuple[dict[str, Run], Callable[[], Run]]] = {
        "no memory": ({"seqrl PPO": ours(), one_file: single_file()}, sb3),
        "LSTM, apart": ({"seqrl PPO": ours(**lstm)}, lambda: sb3(False)),
        "LSTM, shared": (
            {"seqrl PPO": of_lstm, one_file: single_file(HIDDEN)},
            lambda: sb3(True),
        ),
    }
    there = all(map(importlib.util.find_spec, ("stable_baselines3", "sb3_contrib")))
    for name, (runs, peer) in groups.items():
        runs = runs | ({"Stable-Baselines3": peer()} if there else {})
        cases = {f"{name}: {case}": (run, args.steps) for case, run in runs.items()}
        rates = interleaved(cases, args.rounds)
        for case in list(cases)[1:]:
            report(rates, case)
    many = {f"seqrl PPO, {n:,} environments": ours(num_envs=n) for n in (8, 64, 1024)}
    most = {name: (run, max(args.steps, 1024 * TURNS)) for name, run in many.items()}
    report(interleaved(most, args.rounds), next(iter(most)))


if __name__ == "__main__":
    main()
