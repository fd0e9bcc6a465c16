"""Returns of our presets beside those of Stable-Baselines3 after the same env steps.

`python benchmarks/beside_sb3.py NAME ...` (extras `mujoco` and `box2d`; `pip install
stable-baselines3`), NAME a figure of CASES. Ours is the figure itself: its command, measured where
there is no result yet. PPO is the peer's by its default settings, with observations in units of
their running mean and spread; One thread, 100 greedy episodes after
training, all seeds in turn, ours and the peer's. What the peer reached is kept in
results/beside_sb3 seed by seed, as a figure's runs are, so that it may be stopped anywhere; delete
it where CASES change. SAC has RL Zoo's settings on both sides, but for the form of our values: two
of one network, with a layer each (`value_hidden`).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from figures import RESULTS, figures, measure_missing, results

EPISODES = 100
KEPT = RESULTS / "beside_sb3"
Reached = tuple[float, float]  # mean return and seconds of training


def ours(name: str, seed: int) -> Reached:
    """Return what a figure's command reached."""
    figure = figures()[name]
    measure_missing({name: figure}, seed)
    run = results(name, figure)["runs"][str(seed)]
    return run["score"], run["seconds"]


def theirs(name: str, seed: int) -> Reached:
    """Return what the peer reached, measured where there is no result yet."""
    file = KEPT / f"{name}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if str(seed) not in found:
        from stable_baselines3 import __version__

        score, seconds = CASES[name](seed)
        told = {"date": str(datetime.date.today()), "stable_baselines3": __version__}
        found[str(seed)] = {"score": score, "seconds": seconds, **told}
        KEPT.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found[str(seed)]["score"], found[str(seed)]["seconds"]


def learned(model: Any, envs: Any, steps: int) -> Reached:
    """Train a peer's model; return what it reaches."""
    from stable_baselines3.common.evaluation import evaluate_policy

    began = time.perf_counter()
    model.learn(steps)
    seconds = time.perf_counter() - began
    return float(evaluate_policy(model, envs, EPISODES)[0]), seconds


def peer_ppo(seed: int) -> Reached:
    """Return what PPO reaches on HalfCheetah-v5."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    def made() -> Any:
        return VecNormalize(make_vec_env("HalfCheetah-v5", 1, seed=seed), norm_reward=False)

    envs, shown = made(), made()
    shown.training, shown.obs_rms = False, envs.obs_rms
    return learned(PPO("MlpPolicy", envs, seed=seed, device="cpu"), shown, 500_000)


def peer_sac(steps: int, settings: dict[str, Any], env: str, **env_args: Any) -> Any:
    """Return a function of a seed that gives what SAC reaches."""

    def run(seed: int) -> Reached:
        from stable_baselines3 import SAC

        model = SAC("MlpPolicy", gym.make(env, **env_args), seed=seed, device="cpu", **settings)
        return learned(model, gym.make(env, **env_args), steps)

    return run


LUNAR = {
    "learning_rate": lambda remaining: 7.3e-4 * remaining,
    "tau": 0.01,
    "learning_starts": 10_000,
    "policy_kwargs": {"net_arch": [400, 300]},
}
CASES: dict[str, Callable[[int], Reached]] = {
    "ppo-half-cheetah": peer_ppo,
    "sac-half-cheetah": peer_sac(60_000, {"learning_starts": 10_000}, "HalfCheetah-v5"),
    "sac-lunar-lander-continuous": peer_sac(150_000, LUNAR, "LunarLander-v3", continuous=True),
}


def main() -> None:
    """Train both with each seed, and print what each reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=CASES, metavar="NAME")
    torch.set_num_threads(1)
    for name in parser.parse_args().names:
        both = {"ours": ours, "Stable-Baselines3": theirs}
        runs: dict[str, list[Reached]] = {side: [] for side in both}
        for seed in range(figures()[name]["seeds"]):
            for side, run in both.items():
                runs[side].append(run(name, seed))
                score, seconds = runs[side][-1]
                print(f"  {name}, seed {seed}, {side}: {score:,.1f}, {seconds:.0f} s", flush=True)
        for side, pairs in runs.items():
            score, seconds = (statistics.median(part) for part in zip(*pairs, strict=True))
            print(f"{name}, {side:<40} {score:>8,.1f} {seconds:6.0f} s", flush=True)


if __name__ == "__main__":
    main()
