"""Seconds to a mean of 475 over 100 episodes of CartPole-v1: ours beside Stable-Baselines3.

`python benchmarks/cartpole.py` (`pip install stable-baselines3` adds the peer: PPO with the
settings of RL-Zoo). One thread, wall-clock from the first env step, all seeds, in turn.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from seqrl.agents import PPO, Reinforce
from seqrl.core.seeding import Streams
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import Episode, Interaction

TARGET, LIMIT, SEEDS = 475, 500_000, 5
Reached = tuple[int, float]  # env steps and seconds


class StopAtTarget:
    """Stops the loop when the mean of the last 100 episodes reaches TARGET."""

    def episode(self, loop: Interaction, episode: Episode) -> None:
        if (
            len(loop.books.recent) == 100
            and sum(total for total, _ in loop.books.recent) >= 100 * TARGET
        ):
            loop.stopped = True


def ours(make_agent: type[Reinforce] | type[PPO], num_envs: int, limit: int, seed: int) -> Reached:
    torch.manual_seed(seed)
    envs = make("CartPole-v1", num_envs=num_envs)
    space = envs.single_observation_space
    agent = make_agent(MLP(space), envs.single_action_space, space, seed=seed)
    agent.horizon = limit
    loop = Interaction(agent, envs, recorder=StopAtTarget())
    loop.reset(Streams.of(seed).envs)
    began = time.perf_counter()
    loop.run(limit)
    return loop.steps, time.perf_counter() - began


def peer(seed: int) -> Reached:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class StopPeer(BaseCallback):
        def _on_step(self) -> bool:
            recent = self.model.ep_info_buffer
            return not (len(recent) == 100 and sum(e["r"] for e in recent) >= 100 * TARGET)

    zoo = dict(n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0)
    rates = dict(learning_rate=lambda left: left * 1e-3, clip_range=lambda left: left * 0.2)
    envs = make_vec_env("CartPole-v1", 8, seed=seed)
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **zoo, **rates)
    began = time.perf_counter()
    model.learn(100_000, callback=StopPeer())
    return model.num_timesteps, time.perf_counter() - began


def main() -> None:
    torch.set_num_threads(1)
    cases: dict[str, Callable[[int], Reached]] = {
        "REINFORCE (defaults, 16 environments)": partial(ours, Reinforce, 16, LIMIT),
        "PPO (defaults, 8 environments)": partial(ours, PPO, 8, 100_000),
    }
    try:
        import stable_baselines3  # noqa: F401

        cases["Stable-Baselines3 PPO (RL-Zoo settings, 8 environments)"] = peer
    except ImportError as error:
        print(f"Stable-Baselines3 left out: {error}")
    for run in cases.values():
        run(100)  # the first optimiser of a process imports a second's worth of modules
    runs: dict[str, list[Reached]] = {name: [] for name in cases}
    for seed in range(SEEDS):
        for name, run in cases.items():
            runs[name].append(run(seed))
            print(f"  seed {seed} {name}: {runs[name][-1][0]:,} steps, {runs[name][-1][1]:.1f} s")
    for name, pairs in runs.items():
        steps, seconds = (statistics.median(part) for part in zip(*pairs, strict=True))
        print(f"{name:<58} {steps:>8,.0f} steps {seconds:6.1f} s")
    first, *_, last = runs.values()
    if len(runs) > 2:
        each = [there[1] / here[1] for here, there in zip(first, last, strict=True)]
        print(f"{', '.join(f'{x:.1f}' for x in each)} x faster to the mark (asked 10)")


if __name__ == "__main__":
    main()
