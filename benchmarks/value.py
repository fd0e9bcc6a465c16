"""Q-learning on a network beside Stable-Baselines3's DQN and the bare computation in PyTorch.

`python benchmarks/value.py` (`pip install stable-baselines3` adds the peers). One thread, CPU time,
the same network (two layers of 64, ReLU), batch, train frequency and replay on both sides, in turn
in one run. CleanRL's dqn.py is represented by a script like it: a loop over a vector of one
environment, Stable-Baselines3's replay, and a step of torch.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from timing import interleaved, ratio, report
from torch import nn
from torch.nn import functional

from seqrl.agents.deep.deep_q import DeepQ, ReplaySettings
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.value_agent import Updates
from seqrl.agents.experience.replay import Replay
from seqrl.core import Transition
from seqrl.core.seeding import Streams
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import Interaction

CPU = torch.device("cpu")
CAPACITY = 100_000  # env steps that a replay holds
PIXELS, BATCH = (4, 84, 84), 256
Run = Callable[[int], object]


def ours(train_every: int, batch_size: int) -> Run:
    """Return the loop of a DeepQ that has begun to learn."""
    torch.manual_seed(0)
    envs = make("CartPole-v1")
    space = envs.single_observation_space
    agent = DeepQ(
        MLP(space, activation="ReLU"),
        envs.single_action_space,
        space,
        optim=Optim(2.5e-4, max_grad_norm=10.0),
        double=False,
        n_step=1,
        updates=Updates(batch_size, train_every, updates=1),
        replay=ReplaySettings(buffer_size=10_000, learning_starts=1000),
        seed=0,
        device="cpu",
    )
    agent.horizon = 20_000
    loop = Interaction(agent, envs)
    loop.reset(Streams.of(0).envs)
    loop.run(6000)
    return loop.run


def stable_baselines(train_every: int, batch_size: int) -> Run:
    """Return the loop of Stable-Baselines3's DQN that has begun to learn."""
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=2.5e-4,
        train_freq=train_every,
        batch_size=batch_size,
        learning_starts=1000,
        buffer_size=10_000,
        target_update_interval=500,
        seed=0,
        device="cpu",
    )
    model.learn(6000)
    return lambda steps: model.learn(steps, reset_num_timesteps=False)


def plain_script(train_every: int, batch_size: int) -> Run:
    """Return the loop of a single-file DQN in CleanRL's manner that has begun to learn."""
    from stable_baselines3.common.buffers import ReplayBuffer

    torch.manual_seed(0)
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    q, target, optimizer = networks(4, 2, fused=False)
    spaces_of_one = (envs.single_observation_space, envs.single_action_space)
    replay = ReplayBuffer(10_000, *spaces_of_one, CPU, handle_timeout_termination=False)
    rng = np.random.default_rng(0)
    current: dict[str, Any] = {"obs": envs.reset(seed=0)[0], "steps": 0}

    def step() -> None:
        obs = current["obs"]
        if rng.random() < 0.05:
            actions = np.array([envs.single_action_space.sample()])
        else:
            actions = q(torch.Tensor(obs)).argmax(1).numpy()
        next_obs, reward, terminated, _, info = envs.step(actions)
        final_obs = next_obs.copy()
        if "final_obs" in info:
            final_obs[0] = info["final_obs"][0]
        replay.add(obs, final_obs, actions, reward, terminated, [info])
        current["obs"], current["steps"] = next_obs, current["steps"] + 1
        if current["steps"] > 1000 and current["steps"] % train_every == 0:
            data = replay.sample(batch_size)
            with torch.no_grad():
                bootstrap = target(data.next_observations).max(dim=1)[0]
                td_target = data.rewards.flatten() + 0.99 * bootstrap * (1 - data.dones.flatten())
            value = q(data.observations).gather(1, data.actions).squeeze()
            loss = functional.mse_loss(td_target, value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if current["steps"] % 500 == 0:
            target.load_state_dict(q.state_dict())

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    run(6000)
    return run


def networks(inputs: int, actions: int, *, fused: bool) -> tuple[nn.Module, nn.Module, Any]:
    """Return Q-network, target network, optimiser."""
    layers = [nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    q = nn.Sequential(*layers, nn.Linear(64, actions))
    optimizer = torch.optim.Adam(q.parameters(), 2.5e-4, fused=fused or None)
    return q, copy.deepcopy(q), optimizer


def our_step(batch_size: int) -> Run:
    """Return the gradient steps of a DeepQ, sampling included."""
    space = spaces.Box(-10, 10, (4,), np.float32)
    agent = DeepQ(
        MLP(space, activation="ReLU"),
        spaces.Discrete(2),
        space,
        double=False,
        n_step=1,
        updates=Updates(batch_size, train_every=10**9, updates=1),
        replay=ReplaySettings(CAPACITY),
        seed=0,
        device="cpu",
    )
    rng = np.random.default_rng(0)
    for _ in range(CAPACITY // 64):
        agent.learn(random_turn(rng, 64, lambda n: rng.standard_normal((n, 4), np.float32)))

    def run(times: int) -> None:
        for _ in range(times):
            agent.update(agent.store.sample(batch_size, agent.rng))

    return run


def random_turn(rng: np.random.Generator, n: int, draw: Callable[[int], Any]) -> Transition:
    """Return random transitions of N environments."""
    no, terminated = np.zeros(n, bool), rng.random(n) < 0.05
    action, reward = rng.integers(0, 2, n), np.ones(n)
    return Transition(draw(n), no, None, None, action, None, reward, terminated, no, draw(n), ~no)


def bare_step(batch_size: int) -> Run:
    """Return the same computation as a bare function."""
    q, target, optimizer = networks(4, 2, fused=True)
    rng = np.random.default_rng(0)
    obs, next_obs = (rng.standard_normal((CAPACITY, 4), np.float32) for _ in range(2))
    action, reward = rng.integers(0, 2, CAPACITY), np.ones(CAPACITY, np.float32)
    done = (rng.random(CAPACITY) < 0.05).astype(np.float32)

    def step() -> None:
        i = rng.integers(0, CAPACITY, batch_size)
        o, s, a, r, d = (torch.from_numpy(x[i]) for x in (obs, next_obs, action, reward, done))
        with torch.no_grad():
            td_target = r + 0.99 * (1 - d) * target(s).amax(1)
        loss = functional.huber_loss(q(o).gather(1, a[:, None])[:, 0], td_target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(q.parameters(), 10.0)
        optimizer.step()

    def run(times: int) -> None:
        for _ in range(times):
            step()

    return run


def our_draws() -> Run:
    """Return the sampling of batches of images from our full replay."""
    replay, rng = Replay(CAPACITY, gamma=0.99, device=CPU), np.random.default_rng(0)
    image = rng.integers(0, 255, (8, *PIXELS), np.uint8)
    for _ in range(CAPACITY // 8):
        replay.add(random_turn(rng, 8, lambda n: image))

    def run(times: int) -> None:
        for _ in range(times):
            replay.sample(BATCH, rng)

    return run


def peer_draws() -> Run:
    """Return the same of Stable-Baselines3's replay."""
    from stable_baselines3.common.buffers import ReplayBuffer

    space = spaces.Box(0, 255, PIXELS, np.uint8)
    replay = ReplayBuffer(
        CAPACITY,
        space,
        spaces.Discrete(2),
        CPU,
        optimize_memory_usage=True,
        handle_timeout_termination=False,
    )
    image = np.random.default_rng(0).integers(0, 255, (1, *PIXELS), np.uint8)
    one = np.ones(1)
    for _ in range(CAPACITY):
        replay.add(image, image, one, one, np.zeros(1), [{}])

    def run(times: int) -> None:
        for _ in range(times):
            replay.sample(BATCH)

    return run


def prioritised_draws(items: int) -> Run:
    """Return the sampling of 64 steps by priority, and their new priorities, from a full replay."""
    replay, rng = Replay(items, gamma=0.99, priority=0.6), np.random.default_rng(0)
    turn = random_turn(rng, 64, lambda n: np.zeros((n, 4), np.float32))
    for _ in range(items // 64):
        replay.add(turn)

    def run(times: int) -> None:
        for _ in range(times):
            batch = replay.sample(64, rng, 0.5)
            replay.prioritise(batch.indices, rng.random(64))

    return run


def compare(cases: dict[str, tuple[Run, int]], unit: str, asked: dict[str, float]) -> None:
    """Print the rates, and the ratios that are asked of the first case to the others."""
    rates = interleaved(cases)
    first = next(iter(cases))
    report(rates, first, unit)
    for other, least in asked.items():
        print(f"  {ratio(rates, first, other):.2f} x {other} (asked {least:.2f})")


def main() -> None:
    """Run all comparisons, the one with the largest memory last."""
    torch.set_num_threads(1)
    try:
        import stable_baselines3  # noqa: F401

        installed = True
    except ImportError as error:
        print(f"Stable-Baselines3 left out: {error}")
        installed = False
    for train_every, batch in ((4, 32), (10, 128)) if installed else ():
        name = f"every {train_every}, batch {batch}"
        theirs, script = f"Stable-Baselines3 DQN, {name}", f"CleanRL's manner, {name}"
        cases = {f"DeepQ, {name}": (ours(train_every, batch), 4000)}
        cases[theirs] = (stable_baselines(train_every, batch), 2000)
        cases[script] = (plain_script(train_every, batch), 2000)
        compare(cases, "steps/s", {theirs: 2.5, script: 1.5})
    for batch in (32, 128):
        bare = f"bare PyTorch, batch {batch}"
        cases = {
            f"DeepQ, batch {batch}": (our_step(batch), 500),
            bare: (bare_step(batch), 500),
        }
        compare(cases, "gradient steps/s", {bare: 1 / 1.3})
    few = "of 10,000"
    cases = {"of 1,000,000": (prioritised_draws(10**6), 500), few: (prioritised_draws(10**4), 500)}
    compare(cases, "prioritised draws/s", {few: 0.4})
    if installed:
        theirs = "Stable-Baselines3 replay"
        cases = {"Replay": (our_draws(), 40), theirs: (peer_draws(), 40)}
        compare(cases, f"batches of {BATCH} x {PIXELS}/s", {theirs: 1.0})


if __name__ == "__main__":
    main()
