"""What an agent replies, as text: sources, right replies, what was said, and where it looked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.core import tree
from seqrl.core.tokens import BEGIN, END
from seqrl.core.types import Array
from seqrl.envs.adapter import Environments
from seqrl.training.loop.interaction import Interaction

MOST = 5  # replies shown
SHADES = " .:-=+*#%@"  # of weights from 0 to 1


class Exchange(NamedTuple):
    """A turn as tokens: what the user said, what is right, what was said; and what was observed."""

    user: list[int]
    right: list[int]
    said: list[int]
    obs: Array  # [T, ...] a tree


def exchanges(
    agent: Agent, envs: Environments, seed: np.random.SeedSequence | None
) -> Iterator[Exchange]:
    """Yield turn after turn of an agent in one environment of replies, without an end."""
    made: Any = envs
    env = made.envs[0].unwrapped
    loop = Interaction(agent, envs, learn=False)
    loop.reset(seed)
    said: list[int] = []
    seen: list[Any] = []
    while True:
        now = env.get_state()["episodes"]
        user, right = now["user"][0, now["turn"][0]], env.task.right(np, now)[0]
        step, _, _ = loop.stepped.play()
        said.append(int(step.action[0]) or BEGIN)  # as an environment takes it
        seen.append(tree.take(step.obs, 0))
        if said[-1] == END or len(said) == env.task.room:
            obs = tree.map(lambda *leaves: np.stack(leaves), *seen)
            yield Exchange(user.tolist(), right.tolist(), said, obs)
            said, seen = [], []


def show_replies(
    agent: Agent,
    envs: Environments,
    seed: np.random.SeedSequence | None,
    reading_of: Callable[[Agent, Array], np.ndarray | None],
) -> str:
    """Return some turns as text, and of the first where the network looked in its source.

    reading_of: returns the weights [T, L] over observations [T, ...], None where there are none.
    """
    made: Any = envs
    vocabulary = made.envs[0].unwrapped.task.vocabulary
    shown = list(islice(exchanges(agent, envs, seed), MOST))
    lines = []
    for exchange in shown:
        for name, tokens in zip(("source", "right", "said"), exchange[:3], strict=True):
            lines.append(f"{name:<7} {vocabulary.decode(tokens)}".rstrip())
        lines.append("")
    weights = reading_of(agent, shown[0].obs)
    if weights is not None:
        source = words(vocabulary, shown[0].obs["source"][0][: weights.shape[1]])
        said = words(vocabulary, shown[0].said)
        lines += ["attention of the first reply, a token a line, to its source", ""]
        lines += [*shaded(weights, said, source), ""]
    return "\n".join(lines)


def words(vocabulary: Any, tokens: Sequence[int]) -> list[str]:
    """Return how each token is written, special ones too."""
    return [vocabulary.word(token) for token in map(int, tokens)]


def shaded(weights: np.ndarray, said: Sequence[str], source: Sequence[str]) -> Iterator[str]:
    """Yield lines that show weights [T, L] as shades, with a word before each and a heading."""
    left = max(map(len, said))
    widths = [len(word) + 1 for word in source]
    yield " " * (left + 2) + " ".join(source)
    for word, row in zip(said, weights, strict=True):
        marks = [SHADES[min(int(x * len(SHADES)), len(SHADES) - 1)] for x in row]
        cells = (f"{mark:<{width}}" for mark, width in zip(marks, widths, strict=True))
        yield f"{word:<{left}}  {''.join(cells)}".rstrip()
