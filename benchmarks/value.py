"""Q-learning on a network beside Stable-Baselines3's DQN and the bare computation in PyTorch.

`python benchmarks/value.py` (`pip install stable-baselines3` adds the peers). One thread, CPU time,
the same network (two layers of 64, ReLU), batch, train frequency and replay on both sides, in turn
in one run. CleanRL's dqn.py is stood in for by a script of its making: a loop over a vector of one
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
from timing import ratio, report, side_by_side
from torch import nn
from torch.nn import functional

from seqrl.agents.items import single_steps
from seqrl.agents.packing import pack
from seqrl.agents.replay import Replay
from seqrl.agents.value import ValueAgent
from seqrl.core import Transition
from seqrl.core.seeding import Streams
from seqrl.envs import make
from seqrl.networks import MLP
from seqrl.training import Interaction

CPU = torch.device("cpu")
FULL = 100_000  # steps of a replay
PIXELS, BATCH = (4, 84, 84), 256
Run = Callable[[int], object]


def ours(train_every: int, batch_size: int) -> Run:
    """Env steps of a ValueAgent that learns already."""
    torch.manual_seed(0)
    envs = make("CartPole-v1")
    space = envs.single_observation_space
    agent = ValueAgent(
        MLP(space, activation="ReLU"),
        envs.single_action_space,
        space,
        double=False,
        n_step=1,
        learning_rate=2.5e-4,
        train_every=train_every,
        batch_size=batch_size,
        learning_starts=1000,
        buffer_size=10_000,
        seed=0,
        device="cpu",
    )
    agent.horizon = 20_000
    loop = Interaction(agent, envs)
    loop.reset(Streams.of(0).envs)
    loop.run(6000)
    return loop.run


def stable_baselines(train_every: int, batch_size: int) -> Run:
    """Env steps of its DQN that learns already."""
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
    """Env steps of a single-file DQN in CleanRL's manner, that learns already."""
    from stable_baselines3.common.buffers import ReplayBuffer

    torch.manual_seed(0)
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    q, target, optimizer = networks(4, 2, fused=False)
    one = (envs.single_observation_space, envs.single_action_space)
    replay = ReplayBuffer(10_000, *one, CPU, handle_timeout_termination=False)
    rng = np.random.default_rng(0)
    seen: dict[str, Any] = {"obs": envs.reset(seed=0)[0], "steps": 0}

    def step() -> None:
        obs = seen["obs"]
        if rng.random() < 0.05:
            actions = np.array([envs.single_action_space.sample()])
        else:
            actions = q(torch.Tensor(obs)).argmax(1).numpy()
        after, reward, over, _, info = envs.step(actions)
        true = after.copy()
        if "final_obs" in info:
            true[0] = info["final_obs"][0]
        replay.add(obs, true, actions, reward, over, [info])
        seen["obs"], seen["steps"] = after, seen["steps"] + 1
        if seen["steps"] > 1000 and seen["steps"] % train_every == 0:
            data = replay.sample(batch_size)
            with torch.no_grad():
                best = target(data.next_observations).max(dim=1)[0]
                wanted = data.rewards.flatten() + 0.99 * best * (1 - data.dones.flatten())
            value = q(data.observations).gather(1, data.actions).squeeze()
            loss = functional.mse_loss(wanted, value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if seen["steps"] % 500 == 0:
            target.load_state_dict(q.state_dict())

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    run(6000)
    return run


def networks(inputs: int, actions: int, *, fused: bool) -> tuple[nn.Module, nn.Module, Any]:
    """Values, target network, optimiser."""
    layers = [nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    q = nn.Sequential(*layers, nn.Linear(64, actions))
    optimizer = torch.optim.Adam(q.parameters(), 2.5e-4, fused=fused or None)
    return q, copy.deepcopy(q), optimizer


def our_step(batch_size: int) -> Run:
    """Gradient steps of a ValueAgent, drawing included."""
    space = spaces.Box(-10, 10, (4,), np.float32)
    agent = ValueAgent(
        MLP(space, activation="ReLU"),
        spaces.Discrete(2),
        space,
        double=False,
        n_step=1,
        batch_size=batch_size,
        buffer_size=FULL,
        train_every=10**9,
        seed=0,
        device="cpu",
    )
    rng = np.random.default_rng(0)
    for _ in range(FULL // 64):
        agent.learn(random_turn(rng, 64, lambda n: rng.standard_normal((n, 4), np.float32)))
    return agent._learn


def random_turn(rng: np.random.Generator, n: int, draw: Callable[[int], Any]) -> Transition:
    """N steps that nobody took."""
    none, over = np.zeros(n, bool), rng.random(n) < 0.05
    action, reward = rng.integers(0, 2, n), np.ones(n)
    return Transition(draw(n), none, None, None, action, None, reward, over, none, draw(n), ~none)


def bare_step(batch_size: int) -> Run:
    """The same computation with nothing around it."""
    q, target, optimizer = networks(4, 2, fused=True)
    rng = np.random.default_rng(0)
    obs, after = (rng.standard_normal((FULL, 4), np.float32) for _ in range(2))
    action, reward = rng.integers(0, 2, FULL), np.ones(FULL, np.float32)
    over = (rng.random(FULL) < 0.05).astype(np.float32)

    def step() -> None:
        at = rng.integers(0, FULL, batch_size)
        o, s, a, r, d = (torch.from_numpy(x[at]) for x in (obs, after, action, reward, over))
        with torch.no_grad():
            wanted = r + 0.99 * (1 - d) * target(s).amax(1)
        loss = functional.huber_loss(q(o).gather(1, a[:, None])[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(q.parameters(), 10.0)
        optimizer.step()

    def run(times: int) -> None:
        for _ in range(times):
            step()

    return run


def our_draws() -> Run:
    """Batches of images from a full replay."""
    replay, rng = Replay(FULL), np.random.default_rng(0)
    image = rng.integers(0, 255, (8, *PIXELS), np.uint8)
    for _ in range(FULL // 8):
        replay.add(random_turn(rng, 8, lambda n: image))

    def run(times: int) -> None:
        for _ in range(times):
            items, _ = replay.draw(BATCH, rng)
            pack(tuple(single_steps(replay.rows, items, 1, 0.99, done=False)), CPU)

    return run


def their_draws() -> Run:
    """The same from Stable-Baselines3's."""
    from stable_baselines3.common.buffers import ReplayBuffer

    space = spaces.Box(0, 255, PIXELS, np.uint8)
    replay = ReplayBuffer(
        FULL,
        space,
        spaces.Discrete(2),
        CPU,
        optimize_memory_usage=True,
        handle_timeout_termination=False,
    )
    image = np.random.default_rng(0).integers(0, 255, (1, *PIXELS), np.uint8)
    one = np.ones(1)
    for _ in range(FULL):
        replay.add(image, image, one, one, np.zeros(1), [{}])

    def run(times: int) -> None:
        for _ in range(times):
            replay.sample(BATCH)

    return run


def compare(cases: dict[str, tuple[Run, int]], unit: str, asked: dict[str, float]) -> None:
    """Rates side by side, and what was asked of the first one against the others."""
    found = side_by_side(cases)
    first = next(iter(cases))
    report(found, first, unit)
    for other, least in asked.items():
        print(f"  {ratio(found, first, other):.2f} x {other} (asked {least:.2f})")


def main() -> None:
    """All comparisons, the larger memory last."""
    torch.set_num_threads(1)
    try:
        import stable_baselines3  # noqa: F401

        there = True
    except ImportError as error:
        print(f"Stable-Baselines3 left out: {error}")
        there = False
    for train_every, batch in ((4, 32), (10, 128)) if there else ():
        name = f"every {train_every}, batch {batch}"
        theirs, script = f"Stable-Baselines3 DQN, {name}", f"CleanRL's manner, {name}"
        cases = {f"ValueAgent, {name}": (ours(train_every, batch), 4000)}
        cases[theirs] = (stable_baselines(train_every, batch), 2000)
        cases[script] = (plain_script(train_every, batch), 2000)
        compare(cases, "steps/s", {theirs: 2.5, script: 1.5})
    for batch in (32, 128):
        bare = f"bare PyTorch, batch {batch}"
        cases = {
            f"ValueAgent, batch {batch}": (our_step(batch), 500),
            bare: (bare_step(batch), 500),
        }
        compare(cases, "gradient steps/s", {bare: 1 / 1.3})
    if there:
        theirs = "Stable-Baselines3 replay"
        cases = {"Replay": (our_draws(), 40), theirs: (their_draws(), 40)}
        compare(cases, f"batches of {BATCH} x {PIXELS}/s", {theirs: 1.0})


if __name__ == "__main__":
    main()
