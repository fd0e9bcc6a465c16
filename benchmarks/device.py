"""REINFORCE and PPO on a device: env steps a second, looks of the host, and time in kernels.

`python benchmarks/device.py` (a GPU, at most 6 minutes) trains both, mlp and gru, on CartPole and
RepeatPrevious of ours, with 1,024 to 65,536 environments on the device, beside a bare loop of the
same network and task in plain torch, and prints a table; `--json FILE` keeps it. A row that would
take more than its share of the time is stopped. `--device cpu` is a small form of it, in CPU
seconds of one thread.

It needs torch, numpy, numba and Gymnasium, and no installation: in a checkout
`PYTHONPATH=typings:gymnasium.whl:cloudpickle.whl:farama_notifications.whl`, with their paths.

Looks are what `torch.cuda.set_sync_debug_mode` warns of. The bare loop takes one gradient step in
32 turns: it does less than an agent, and is the speed that the task and the network allow.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from seqrl.agents import PPO, Reinforce
from seqrl.envs import make
from seqrl.envs.draws import TorchDraws
from seqrl.envs.registry import task
from seqrl.networks import build
from seqrl.training import Interaction

TURNS = 32  # of a rollout
CYCLE, PIECE = 64, 4  # turns that are measured together, and between two looks at the clock
TASKS = {"CartPole": "seqrl/CartPole-v0", "RepeatPrevious": "seqrl/RepeatPrevious-v0"}
NETWORKS, AGENTS = ("mlp", "gru"), ("bare", "reinforce", "ppo")
SIZES = {"cuda": [1_024, 8_192, 65_536], "cpu": [64, 1_024]}
Play = Callable[[int], object]  # plays so many turns, and learns where that is due


class Row(NamedTuple):
    """What one agent did with one network on one task."""

    task: str
    network: str
    environments: int
    agent: str
    rate: float | None = None  # env steps a second of the clock
    looks: float | None = None  # of the host at the device, a turn
    busy: float | None = None  # share of the time in kernels; on the CPU in torch's operations
    note: str = ""


class TooLong(Exception):
    """A row has taken more than its share of the time."""


class Bare:
    """A rollout and a gradient step on its returns, in plain torch, again and again."""

    def __init__(self, env_id: str, network: str, n: int, device: str):
        self.task, self.n, self.turn = task(env_id), n, 0
        self.draws = TorchDraws(device)
        self.draws.seed(np.random.default_rng(0))
        self.network = build(network, self.task.observation_space, seed=0).to(device)
        self.head = nn.Linear(self.network.features, self.task.action_space.n + 1).to(device)
        weights = [*self.network.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(weights, 1e-3)
        self.episodes = self.begun()
        self.start = torch.ones(n, dtype=torch.bool, device=device)
        self.state = self.entered = self.network.initial_state(n)
        self.rows: list[tuple[torch.Tensor, ...]] = []

    def begun(self) -> dict[str, torch.Tensor]:
        """Return N new episodes."""
        time = torch.zeros(self.n, dtype=torch.int64, device=self.draws.device)
        return {"time": time, **self.task.begin(self.draws, self.n)}

    def __call__(self, turns: int) -> None:
        """Play turns, and learn from every rollout."""
        for _ in range(turns):
            self.step()
            if len(self.rows) == TURNS:
                self.learn()
                self.rows, self.entered = [], self.state

    @torch.no_grad()
    def step(self) -> None:
        """Act, advance the task, and begin anew what is over: the shapes are always the same."""
        obs = self.task.observe(torch, self.episodes)
        out, self.state = self.network(obs[None], self.start[None], self.state)
        logits = self.head(out[0])[:, :-1]
        action = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
        self.episodes["time"] = self.episodes["time"] + 1
        changed, reward, over = self.task.advance(torch, self.episodes, action)
        self.episodes |= changed
        limit, horizon = getattr(self.task, "time_limit", None), self.task.horizon
        self.turn += 1
        if limit is not None:
            over = over | (self.episodes["time"] >= limit)
        self.rows.append((obs, self.start, action, reward, over))
        self.start = over
        if horizon is None or self.turn % horizon == 0:  # they all end together, or at any time
            for name, fresh in self.begun().items():
                mask = over.reshape(-1, *[1] * (fresh.ndim - 1))
                self.episodes[name] = torch.where(mask, fresh, self.episodes[name])

    def learn(self) -> None:
        """Take one gradient step along the policy gradient, with a learned baseline."""
        obs, start, action, reward, over = (torch.stack(x) for x in zip(*self.rows, strict=True))
        out = self.head(self.network(obs, start, self.entered)[0])
        value, log_prob = out[..., -1], out[..., :-1].log_softmax(-1)
        returns, ahead = [], value[-1].detach()
        for t in reversed(range(TURNS)):
            ahead = reward[t] + 0.99 * torch.where(over[t], 0.0, ahead)
            returns.append(ahead)
        error = torch.stack(returns[::-1]) - value
        gain = log_prob.gather(-1, action[..., None])[..., 0] * error.detach()
        self.optimizer.zero_grad()
        (0.5 * error.square() - gain).mean().backward()
        self.optimizer.step()


def agent(name: str, env_id: str, network: str, n: int, device: str) -> Play:
    """Return what plays turns of one of our agents, with the environments on the device."""
    envs = make(env_id, n, device=device)
    space = envs.single_observation_space
    settings: dict[str, Any] = {"device": device, "seed": 0}
    cls: Any = {"reinforce": Reinforce, "ppo": PPO}[name]
    settings |= {"batch_episodes": n} if name == "reinforce" else {"rollout": TURNS}
    net = build(network, space, seed=0)
    loop = Interaction(cls(net, envs.single_action_space, space, **settings), envs)
    loop.agent.horizon = 10**9
    loop.reset(np.random.SeedSequence(0))
    return lambda turns: loop.run(turns * n)


class Place:
    """A device and its clock, seconds: of the wall, on the CPU of the process."""

    def __init__(self, device: str):
        self.device, self.gpu = device, device != "cpu"

    def now(self) -> float:
        """Return the time."""
        return time.perf_counter() if self.gpu else time.process_time()

    @property
    def name(self) -> str:
        """What the device is called."""
        return torch.cuda.get_device_name(self.device) if self.gpu else "CPU, one thread"

    def cycle(self, play: Play, until: float) -> float:
        """Play a cycle and return its seconds; TooLong where the clock is past `until`."""
        began = self.now()
        for _ in range(CYCLE // PIECE):
            play(PIECE)
            if self.now() > until:
                raise TooLong
        if self.gpu:
            torch.cuda.synchronize(self.device)
        return self.now() - began

    def looks(self, play: Play, until: float) -> float | None:
        """Return how often a turn the host waits for the device, None on the CPU."""
        if not self.gpu:
            return None
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                for _ in range(CYCLE // PIECE):  # without the clock's own wait at the end
                    play(PIECE)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        if self.now() > until:
            raise TooLong
        return sum("synchroniz" in str(one.message) for one in seen) / CYCLE

    def busy(self, play: Play, until: float) -> float:
        """Return the share of the time that kernels run; on the CPU torch's operations."""
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.gpu else [])]
        with profile(activities=kinds) as seen:
            began = time.perf_counter()
            self.cycle(play, until)
            seconds = time.perf_counter() - began
        events = seen.key_averages()
        if self.gpu:
            kernels = (event for event in events if event.device_type == DeviceType.CUDA)
            return sum(event.self_device_time_total for event in kernels) / 1e6 / seconds
        return sum(event.self_cpu_time_total for event in events) / 1e6 / seconds


def measure(row: Row, place: Place, seconds: float) -> Row:
    """Return a row with what was measured in so many seconds; its note says what was not."""
    until = place.now() + seconds
    try:
        where = TASKS[row.task], row.network, row.environments, place.device
        play = Bare(*where) if row.agent == "bare" else agent(row.agent, *where)
        place.cycle(play, until)  # what is made once
        spent = [place.cycle(play, until)]
        while sum(spent) < seconds / 8:
            spent.append(place.cycle(play, until))
        row = row._replace(rate=CYCLE * row.environments * len(spent) / sum(spent))
        row = row._replace(looks=place.looks(play, until))
        return row._replace(busy=place.busy(play, until))
    except TooLong:
        return row._replace(note="stopped: it takes longer")
    except RuntimeError as error:  # as where its memory is full
        return row._replace(note=str(error).strip().split("\n")[0][:80])


def line(row: Row, bare: float | None) -> str:
    """Return a row of the table; `bare` is the rate of the bare loop of its case."""
    rate = "" if row.rate is None else f"{row.rate:,.0f}"
    ratio = "" if row.rate is None or bare is None else f"{row.rate / bare:.2f}"
    waits = "" if row.looks is None else f"{row.looks:.2f}"
    share = "" if row.busy is None else f"{row.busy:.0%}"
    what = f"{row.task} | {row.network} | {row.environments:,} | {row.agent}"
    return f"| {what} | {rate} | {ratio} | {waits} | {share} | {row.note} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table row by row; every row takes its share of what is left of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=330.0)
    parser.add_argument("--task", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--network", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--environments", nargs="*", type=int)
    parser.add_argument("--json")
    args = parser.parse_args(argv)
    place = Place(args.device)
    began = place.now()
    torch.set_num_threads(1)
    Bare(TASKS["CartPole"], "gru", 4, args.device)(TURNS)  # what torch loads once
    sizes = args.environments or SIZES["cuda" if place.gpu else "cpu"]
    cases = [(t, net, n) for n in sizes for t in args.task for net in args.network]
    todo = [partial(Row, *case, name) for case in cases for name in AGENTS]
    print(f"torch {torch.__version__}, {place.name}")
    print("| task | network | environments | agent | steps/s | of bare | looks a turn | busy | |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[Row] = []
    bare: float | None = None
    for i, empty in enumerate(todo):
        left = args.seconds - (place.now() - began)
        rows.append(measure(empty(), place, left / (len(todo) - i)))
        bare = rows[-1].rate if rows[-1].agent == "bare" else bare
        print(line(rows[-1], bare), flush=True)
    if args.json:
        found = {"torch": torch.__version__, "device": place.name}
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({**found, "rows": [row._asdict() for row in rows]}, file, indent=1)


if __name__ == "__main__":
    main()
