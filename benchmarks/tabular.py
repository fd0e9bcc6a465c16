"""Speed of tabular agents on FrozenLake-v1, beside the loop of the tutorials and a peer.

`python benchmarks/tabular.py` (`pip install mushroom-rl` adds the peer). One thread, CPU time; the
many seeds at the end in one and in two threads, wall-clock time.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numba
import numpy as np
from timing import interleaved, ratio, report

from seqrl.agents import EpsilonGreedy, MonteCarlo, QLearning, Sarsa, TableIndex
from seqrl.envs import make
from seqrl.envs.finite import finite_model
from seqrl.training import Interaction, TensorBoard
from seqrl.training.runs.seeds import SeedTrainer

ENV, ALPHA, GAMMA, EPSILON = "FrozenLake-v1", 0.1, 0.99, 0.1
BLACKJACK = "Blackjack-v1"
CLIFF, SEEDS, EPISODES = "CliffWalking-v1", 1000, 500  # with alpha .5, gamma 1, the same epsilon
Run = Callable[[int], object]


def tutorial(env_id: str = ENV, alpha: float = ALPHA, gamma: float = GAMMA) -> Run:
    """Return the loop of the tutorials: a dict of arrays and `env.step`, without logging."""
    env = gym.make(env_id)
    q: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))
    td_errors: list[float] = []
    current = [env.reset(seed=0)[0]]

    def run(steps: int) -> None:
        obs = current[0]
        for _ in range(steps):
            explore = np.random.random() < EPSILON
            action = env.action_space.sample() if explore else int(np.argmax(q[obs]))
            next_obs, reward, terminated, truncated, _ = env.step(action)
            bootstrap = (not terminated) * np.max(q[next_obs])
            td_error = reward + gamma * bootstrap - q[obs][action]
            q[obs][action] += alpha * td_error
            td_errors.append(td_error)
            obs = env.reset()[0] if terminated or truncated else next_obs
        current[0] = obs
        td_errors.clear()

    return run


def ours(cls: type, folder: Path, *, compile: bool) -> Run:
    """Return our loop with logging on."""
    envs = make(ENV)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = cls(
        *spaces, learning_rate=ALPHA, gamma=GAMMA, exploration=EpsilonGreedy(EPSILON), seed=0
    )
    logger = TensorBoard(folder / f"{cls.__name__}-{compile}")
    loop = Interaction(agent, envs, recorder=logger, compile=compile)
    loop.reset(np.random.SeedSequence(0))

    def run(steps: int) -> None:
        logger.begin(loop, loop.steps + steps)
        loop.run(steps)

    return run


def by_hand() -> Run:
    """Return a loop written for this one task in Numba, with the same Generators, no log."""
    env = gym.make(ENV)
    env.reset(seed=0)
    model = finite_model(env)
    assert model is not None
    q, state = np.zeros((16, 4)), np.zeros(2, np.int64)
    rngs = env.unwrapped.np_random, np.random.default_rng(0)
    return lambda steps: q_learning(q, state, *model[1:4], model.cumulative, *rngs, steps)


@numba.njit
def greedy(q, s, rng):
    a, count = 0, 1
    for b in range(1, 4):
        if q[s, b] > q[s, a]:
            a, count = b, 1
        elif q[s, b] == q[s, a]:
            count += 1
    if count > 1:
        skip = int(rng.random() * count)
        for b in range(a, 4):
            if q[s, b] == q[s, a]:
                if skip == 0:
                    return b
                skip -= 1
    return a


@numba.njit
def q_learning(q, state, next_states, rewards, terminated, cumulative, env_rng, rng, steps):
    s, t = state
    for _ in range(steps):
        if rng.random() < EPSILON:
            a = int(rng.random() * 4)
        else:
            a = greedy(q, s, rng)
        u, k = env_rng.random(), 0
        while k < 2 and cumulative[s, a, k] <= u:
            k += 1
        s_next, t = next_states[s, a, k], t + 1
        target = rewards[s, a, k]
        if not terminated[s, a, k]:
            target += GAMMA * max(q[s_next, 0], q[s_next, 1], q[s_next, 2], q[s_next, 3])
        q[s, a] += ALPHA * (target - q[s, a])
        s = s_next
        if terminated[s, a, k] or t == 100:
            env_rng.random()
            s, t = 0, 0
    state[0], state[1] = s, t


def mushroom() -> dict[str, tuple[Run, int]]:
    """Return MushroomRL's Q-learning on the same environment, where it is installed."""
    try:
        from mushroom_rl.algorithms.value import QLearning as Peer
        from mushroom_rl.core import Core, Environment, MDPInfo
        from mushroom_rl.policy import EpsGreedy
        from mushroom_rl.utils.parameters import Parameter
        from mushroom_rl.utils.spaces import Discrete
    except ImportError as error:
        print(f"MushroomRL left out: {error}")
        return {}

    class PeerEnv(Environment):
        def __init__(self) -> None:
            self.env = gym.make(ENV)
            super().__init__(MDPInfo(Discrete(16), Discrete(4), GAMMA, 100))

        def reset(self, state=None):
            return np.array([self.env.reset()[0]])

        def step(self, action):
            state, reward, absorbing, _, _ = self.env.step(int(action[0]))
            return np.array([state]), reward, absorbing, {}

    peer_env = PeerEnv()
    core = Core(Peer(peer_env.info, EpsGreedy(Parameter(EPSILON)), Parameter(ALPHA)), peer_env)
    learn = core.learn
    return {
        "MushroomRL QLearning": (lambda n: learn(n_steps=n, n_steps_per_fit=1, quiet=True), 15_000)
    }


def on_tiles(trace_decay: float) -> Run:
    """Return the loop of SARSA on a table of 331,776 rows, 16 of them active."""
    envs = make("CartPole-v1")
    agent = Sarsa(
        TableIndex(envs.single_observation_space, bins=11, tiles=16),
        envs.single_action_space,
        trace_decay=trace_decay,
        exploration=EpsilonGreedy(EPSILON),
        seed=0,
    )
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(0))
    return loop.run


def blackjack() -> Run:
    """Return our loop of Monte Carlo on Blackjack."""
    envs = make(BLACKJACK)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = MonteCarlo(*spaces, exploration=EpsilonGreedy(EPSILON), seed=0)
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(0))
    return loop.run


def blackjack_by_hand() -> Run:
    """Return the fifteen lines of every-visit Monte Carlo with dicts, without logging."""
    env, rng = gym.make(BLACKJACK), np.random.default_rng(0)
    q: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(2))
    visits: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(2))

    def run(steps: int) -> None:
        while steps > 0:
            obs, episode, over = env.reset()[0], [], False
            while not over:
                explore = rng.random() < EPSILON
                action = int(rng.integers(2)) if explore else int(np.argmax(q[obs]))
                next_obs, reward, terminated, truncated, _ = env.step(action)
                episode.append((obs, action, float(reward)))
                obs, over = next_obs, terminated or truncated
            steps, total = steps - len(episode), 0.0
            for obs, action, reward in reversed(episode):
                total += reward
                visits[obs][action] += 1
                q[obs][action] += (total - q[obs][action]) / visits[obs][action]

    return run


def many_seeds(threads: int) -> float:
    """Return the env steps a second of 1,000 seeds x 500 episodes on CliffWalking."""
    spaces = make(CLIFF)
    index = TableIndex(spaces.single_observation_space)
    seed_trainer = SeedTrainer(
        lambda envs, seed: QLearning(
            index,
            spaces.single_action_space,
            learning_rate=0.5,
            gamma=1.0,
            exploration=EpsilonGreedy(EPSILON),
            seed=seed,
        ),
        lambda: make(CLIFF),
        10_000_000,
        episodes=EPISODES,
        threads=threads,
    )
    runs = seed_trainer.run(SEEDS)
    assert runs.episodes.sum() == SEEDS * EPISODES
    return float(runs.steps.sum() / seed_trainer.seconds)


def report_seeds(rounds: int = 7) -> None:
    loop, steps = tutorial(CLIFF, 0.5, 1.0), 30_000
    many_seeds(2)
    runs = []
    for _ in range(rounds):
        one, two = many_seeds(1), many_seeds(2)
        began = time.perf_counter()
        loop(steps)
        runs.append((one, two, steps / (time.perf_counter() - began)))
    names = ("one thread", "two threads", "tutorial loop")
    print(f"\n{SEEDS:,} seeds x {EPISODES} episodes of Q-learning on {CLIFF}, wall-clock time")
    for name, rates in zip(names, zip(*runs, strict=True), strict=True):
        low, middle, high = min(rates), statistics.median(rates), max(rates)
        print(f"{name:<52} {middle:>13,.0f} steps/s ({low:,.0f} to {high:,.0f})")
    factor = statistics.median(two / one for one, two, _ in runs)
    print(f"{'ok  ' if factor >= 1.5 else 'MISS'} two threads = {factor:.3g} x one (asked 1.5)")
    for k, name in enumerate(names[:2]):
        print(f"     {name} = {statistics.median(run[k] / run[2] for run in runs):.3g} x the loop")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {
            "tutorial loop (dict of arrays, env.step)": (tutorial(), 30_000),
            **mushroom(),
            "q-learning stepped": (ours(QLearning, folder, compile=False), 30_000),
            "sarsa stepped": (ours(Sarsa, folder, compile=False), 30_000),
            "monte-carlo stepped": (ours(MonteCarlo, folder, compile=False), 30_000),
            "q-learning compiled": (ours(QLearning, folder, compile=True), 5_000_000),
            "sarsa compiled": (ours(Sarsa, folder, compile=True), 5_000_000),
            "monte-carlo compiled": (ours(MonteCarlo, folder, compile=True), 5_000_000),
            "by hand in Numba, same Generators": (by_hand(), 5_000_000),
            "sarsa on 331,776 rows": (on_tiles(0.0), 10_000),
            "sarsa(lambda) on 331,776 rows": (on_tiles(0.9), 10_000),
            "monte-carlo on Blackjack": (blackjack(), 20_000),
            "fifteen lines on Blackjack": (blackjack_by_hand(), 40_000),
        }
        results = interleaved(cases)
    base = "tutorial loop (dict of arrays, env.step)"
    report(results, base)
    print()
    asked = [("q-learning stepped", base, 0.45), ("q-learning compiled", base, 120)]
    if "MushroomRL QLearning" in cases:
        asked += [
            (f"q-learning {how}", "MushroomRL QLearning", x)
            for how, x in (("stepped", 1.2), ("compiled", 300))
        ]
    asked += [("q-learning compiled", "by hand in Numba, same Generators", 0.6)]
    for name in ("sarsa", "monte-carlo"):
        asked += [
            (f"{name} stepped", "q-learning stepped", 0.8),
            (f"{name} compiled", f"{name} stepped", 100),
        ]
    asked += [
        ("sarsa(lambda) on 331,776 rows", "sarsa on 331,776 rows", 0.6),
        ("monte-carlo on Blackjack", "fifteen lines on Blackjack", 0.38),
    ]
    for one, other, least in asked:
        factor = ratio(results, one, other)
        verdict = "ok  " if factor >= least else "MISS"
        print(f"{verdict} {one} = {factor:.3g} x {other} (asked {least:g})")
    report_seeds()


if __name__ == "__main__":
    main()
