"""Beam search and sampling beside greedy replies, on Translate: `python benchmarks/decoding.py`.

A network imitates for some seconds, so that replies end where they should, and then plays. Rates
are env steps (tokens said) a CPU second of one thread, in interleaved rounds of this one run; a
ratio is the median of the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from timing import interleaved, report

from seqrl.agents import Beam, Imitation, Sampling
from seqrl.envs import make
from seqrl.networks import build
from seqrl.training import evaluate, train
from seqrl.training.loop.interaction import Interaction

ENVS = 64


def player(agent: Any, **options: Any) -> Callable[[int], object]:
    """Return what plays so many env steps."""
    loop = Interaction(agent, make("seqrl/Translate-v0", ENVS, **options), learn=False)
    return loop.run


def main() -> None:
    """Imitate, then time each way to decode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--longest", type=int, default=8, help="letters of a source")
    parser.add_argument("--steps", type=int, default=200_000, help="env steps of imitation")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    envs = make("seqrl/Translate-v0", 256, longest=args.longest)
    space, actions = envs.single_observation_space, envs.single_action_space
    agent = Imitation(build("seq2seq", space, seed=0), actions, space, seed=0, device="cpu")
    train(agent, envs, args.steps)
    longest, ways = args.longest + 1, {"greedy": agent, "sampling": Sampling(agent, seed=0)}
    ways |= {f"beam {width}": Beam(agent, width, longest=longest) for width in (1, 5, 10)}
    for name, way in ways.items():
        played = make("seqrl/Translate-v0", ENVS, longest=args.longest)
        print(f"{name:<10} exact {evaluate(way, played, 500, seed=0).mean:.3f}")
    cases = {name: (player(way, longest=args.longest), 6_000) for name, way in ways.items()}
    print(f"1 thread, {ENVS} environments, medians of {args.rounds} rounds")
    report(interleaved(cases, args.rounds), "greedy")


if __name__ == "__main__":
    main()
