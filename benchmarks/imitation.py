"""Imitation beside a plain loop in PyTorch of the same network: `python benchmarks/imitation.py`.

Both draw the same kind of data as they go and take a step of Adam, with gradients cut to a norm of
1, for every 64 columns: episodes, of one-step tasks single rows. Rates are env steps a CPU second
of one thread, in interleaved rounds of this one run; a ratio is the median of the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import interleaved, ratio, report
from torch import Tensor, nn

from seqrl.agents import Imitation
from seqrl.core.tokens import BEGIN, PAD
from seqrl.envs import make
from seqrl.envs.draws import Draws
from seqrl.networks import build
from seqrl.networks.base import Network
from seqrl.training.loop.interaction import Interaction

BATCH = 64
UNKNOWN = -1  # an answer that is not learned
Data = Callable[[], tuple[Any, Tensor]]  # what is shown [T, B, ...], and the answers [T, B]


class Plain:
    """The loop that one would write: data, loss, gradient, step."""

    def __init__(self, network: Network, actions: int, data: Data):
        self.model = nn.ModuleList([network, nn.Linear(network.features, actions)])
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True)
        self.data = data

    def run(self, steps: int) -> None:
        """Learn from as many env steps."""
        network, layer = self.model
        while steps > 0:
            shown, answer = self.data()
            start = torch.zeros(answer.shape, dtype=torch.bool)
            start[0] = True
            out = layer(network(shown, start)[0])
            flat = out.flatten(0, 1), answer.flatten()
            loss = nn.functional.cross_entropy(*flat, ignore_index=UNKNOWN)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            steps -= int((answer != UNKNOWN).sum())


def from_task(task: Any) -> Data:
    """Return what draws episodes of a task at once, as a plain loop would."""
    rng = np.random.default_rng(0)
    drawn_by: dict[str, Callable[[Any, np.random.Generator], Data]] = {
        "BinaryAddition": sums,
        "NextToken": chains,
        "Gates": gates,
        "Samples": rows,
        "Translate": replies,
        "Dialogue": replies,
    }
    return drawn_by[type(task).__name__](task, rng)


def sums(task: Any, rng: np.random.Generator) -> Data:
    """Return what draws sums, their bits from the lowest on."""
    place = np.arange(task.bits)[:, None]

    def draw() -> tuple[Tensor, Tensor]:
        a, b = rng.integers(2 ** (task.bits - 1), size=(2, BATCH))
        shown = np.stack([a >> place & 1, b >> place & 1], -1)
        return torch.from_numpy(shown), torch.from_numpy(a + b >> place & 1)

    return draw


def chains(task: Any, rng: np.random.Generator) -> Data:
    """Return what draws stretches of a chain."""
    joint = task.joint.reshape(-1, task.tokens)
    next_token = (joint / joint.sum(1, keepdims=True)).cumsum(1)
    opening = joint.sum(1).cumsum()

    def draw() -> tuple[Tensor, Tensor]:
        context = opening[:-1].searchsorted(rng.random(BATCH))
        found = [context // task.tokens, context % task.tokens]
        for u in rng.random((task.length - 1, BATCH, 1)):
            found.append((next_token[context, :-1] <= u).sum(1))
            context = (context * task.tokens + found[-1]) % len(joint)
        tokens = torch.from_numpy(np.stack(found))
        return tokens[:-1], tokens[1:]

    return draw


def gates(task: Any, rng: np.random.Generator) -> Data:
    """Return what draws two bits."""

    def draw() -> tuple[Tensor, Tensor]:
        bits = torch.from_numpy(rng.integers(2, size=(1, BATCH, 2)))
        return bits, bits.sum(2) % 2

    return draw


def rows(task: Any, rng: np.random.Generator) -> Data:
    """Return what draws rows of a data set."""
    shown, value = map(torch.from_numpy, task.data)

    def draw() -> tuple[Tensor, Tensor]:
        at = torch.from_numpy(rng.integers(len(shown), size=BATCH))
        return shown[at][None], value[at][None]

    return draw


def replies(task: Any, rng: np.random.Generator) -> Data:
    """Return what draws sources and right replies, those of an episode one behind the other."""
    draws = Draws()
    draws.seed(rng)

    def draw() -> tuple[dict[str, Tensor], Tensor]:
        episodes = task.drawn(draws, BATCH)
        said, before, sources = episodes["right"], np.zeros((BATCH, task.room), np.int64), []
        for turn in range(task.turns):
            sources.append(task._source(np, before, episodes["user"][:, turn]))
            before = said[:, turn]
        time = np.arange(task.horizon)  # of a column that gives every reply its whole room
        begins = (time % task.room == 0)[:, None]
        right = said.transpose(1, 2, 0).reshape(task.horizon, BATCH)
        there = (right != PAD).any(1)
        previous = np.where(begins, BEGIN, np.roll(right, 1, 0))[there]
        source = torch.from_numpy(np.stack(sources))[torch.from_numpy(time[there] // task.room)]
        answer = torch.from_numpy(np.where(right == PAD, UNKNOWN, right)[there])
        return {"source": source, "previous": torch.from_numpy(previous)}, answer

    return draw


def ours(network: Network, envs: Any) -> Callable[[int], object]:
    """Return the same as an agent in the loop."""
    spaces = envs.single_action_space, envs.single_observation_space
    agent = Imitation(network, *spaces, seed=0, batch_size=BATCH, backend="torch")
    loop = Interaction(agent, envs)
    loop.agent.horizon = 1 << 40
    return loop.run


def main() -> None:
    """Time what is named, or all."""
    cases: dict[str, tuple[str, str, int, int, float, dict[str, Any]]] = {
        "next token, gru 64": ("NextToken", "gru", 256, 200_000, 0.9, {}),
        "addition, rnn 16": ("BinaryAddition", "rnn", 1024, 100_000, 0.7, {"hidden_size": 16}),
        "gates, mlp": ("Gates", "mlp", 1024, 50_000, 0.6, {}),
        "gates, gru": ("Gates", "gru", 1024, 30_000, 0.6, {}),
        "digits, mlp": ("Samples", "mlp", 1024, 50_000, 0.6, {}),
        "translate, seq2seq": ("Translate", "seq2seq", 256, 20_000, 0.9, {}),
        "dialogue, hred": ("Dialogue", "hred", 256, 15_000, 0.9, {}),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(cases)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"1 thread, medians of {args.rounds} rounds")
    for name in args.names or cases:
        task, kind, n, steps, least, options = cases[name]
        more = {"set": "digits"} if task == "Samples" else {}
        envs = make(f"seqrl/{task}-v0", n, **more)
        space, actions = envs.single_observation_space, envs.single_action_space
        nets = [build(kind, space, seed=0, **options) for _ in range(2)]
        plain = Plain(nets[0], int(actions.n), from_task(envs.envs.unwrapped.task))
        both = {"plain": (plain.run, steps), "seqrl": (ours(nets[1], envs), steps)}
        rates = interleaved(both, args.rounds)
        print(f"{name}, {n:,} environments: {ratio(rates, 'seqrl', 'plain'):.2f} asked {least}")
        report(rates, "plain")


if __name__ == "__main__":
    main()
