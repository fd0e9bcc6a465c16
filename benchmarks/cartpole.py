"""Seconds to a mean of 475 over 100 episodes of CartPole-v1: REINFORCE beside Stable-Baselines3.

`python benchmarks/cartpole.py` (`pip install stable-baselines3` adds the peer: PPO with the
settings of RL-Zoo). One thread, wall-clock, median of 3 seeds, the two in turn.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time

import torch

from seqrl.agents import Reinforce
from seqrl.core.seeding import Streams
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import Episode, Interaction

TARGET, LIMIT, SEEDS = 475, 500_000, 3


class StopAtTarget:
    """Stops the loop when the mean of the last 100 episodes reaches TARGET."""

    def episode(self, loop: Interaction, episode: Episode) -> None:
        if (
            len(loop.books.recent) == 100
            and sum(total for total, _ in loop.books.recent) >= 100 * TARGET
        ):
            loop.stopped = True


def ours(seed: int) -> tuple[int, float]:
    torch.manual_seed(seed)
    began = time.perf_counter()
    envs = make("CartPole-v1", num_envs=16)
    space = envs.single_observation_space
    agent = Reinforce(MLP(space), envs.single_action_space, space, seed=seed)
    agent.horizon = LIMIT
    loop = Interaction(agent, envs, recorder=StopAtTarget())
    loop.reset(Streams.of(seed).envs)
    loop.run(LIMIT)
    return loop.steps, time.perf_counter() - began


def peer(seed: int) -> tuple[int, float]:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class StopPeer(BaseCallback):
        def _on_step(self) -> bool:
            recent = self.model.ep_info_buffer
            return not (len(recent) == 100 and sum(e["r"] for e in recent) >= 100 * TARGET)

    began = time.perf_counter()
    zoo = dict(n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0)
    rates = dict(learning_rate=lambda left: left * 1e-3, clip_range=lambda left: left * 0.2)
    envs = make_vec_env("CartPole-v1", 8, seed=seed)
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **zoo, **rates)
    model.learn(100_000, callback=StopPeer())
    return model.num_timesteps, time.perf_counter() - began


def main() -> None:
    torch.set_num_threads(1)
    cases = {"REINFORCE, value baseline (defaults, 16 environments)": ours}
    try:
        import stable_baselines3  # noqa: F401

        cases["Stable-Baselines3 PPO (RL-Zoo settings, 8 environments)"] = peer
    except ImportError as error:
        print(f"Stable-Baselines3 left out: {error}")
    ours(100)  # the first optimiser of a process imports a second's worth of modules
    runs = {name: [] for name in cases}
    for seed in range(SEEDS):
        for name, run in cases.items():
            runs[name].append(run(seed))
            print(f"  seed {seed} {name}: {runs[name][-1][0]:,} steps, {runs[name][-1][1]:.1f} s")
    medians = []
    for name, pairs in runs.items():
        steps, seconds = (statistics.median(part) for part in zip(*pairs, strict=True))
        medians.append(seconds)
        print(f"{name:<58} {steps:>8,.0f} steps {seconds:6.1f} s")
    if len(medians) > 1:
        print(f"{medians[1] / medians[0]:.1f} x faster to the mark (asked 4)")


if __name__ == "__main__":
    main()
