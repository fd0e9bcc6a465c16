"""HalfCheetah-v5, 500,000 env steps: our preset beside Stable-Baselines3's PPO, in one run.

`python benchmarks/half_cheetah.py` (extra `mujoco`; `pip install stable-baselines3`). The peer has
its default settings and observations in units of their running mean and spread. One thread, 100
greedy episodes after training, all seeds, in turn.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import time

import torch

ENV, STEPS, SEEDS, EPISODES = "HalfCheetah-v5", 500_000, 3, 100
Reached = tuple[float, float]  # mean return and seconds of training


def ours(seed: int) -> Reached:
    from figures import figures, measure

    found = measure({ENV: figures()["ppo-half-cheetah"]}, seed)[ENV]
    return found["score"], found["seconds"]


def peer(seed: int) -> Reached:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    envs = VecNormalize(make_vec_env(ENV, 1, seed=seed), norm_reward=False)
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu")
    began = time.perf_counter()
    model.learn(STEPS)
    seconds = time.perf_counter() - began
    envs.training = False
    mean, _ = evaluate_policy(model, envs, EPISODES)
    return float(mean), seconds


def main() -> None:
    """Train both with each seed, and print what each reached."""
    torch.set_num_threads(1)
    try:
        import stable_baselines3  # noqa: F401
    except ImportError as error:
        sys.exit(f"{error}; pip install stable-baselines3")
    cases = {"PPO (preset half-cheetah)": ours, "Stable-Baselines3 PPO, normalised": peer}
    runs: dict[str, list[Reached]] = {name: [] for name in cases}
    for seed in range(SEEDS):
        for name, run in cases.items():
            runs[name].append(run(seed))
            print(f"  seed {seed} {name}: {runs[name][-1][0]:,.0f}, {runs[name][-1][1]:.0f} s")
    for name, pairs in runs.items():
        score, seconds = (statistics.median(part) for part in zip(*pairs, strict=True))
        print(f"{name:<50} {score:>8,.0f} {seconds:6.0f} s")


if __name__ == "__main__":
    main()
