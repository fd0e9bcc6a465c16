"""What else than the return of greedy episodes says how good a run has become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seqrl
from seqrl.core.tokens import BEGIN
from seqrl.envs.making import first_of
from seqrl.envs.tasks.dialogue import WORDS
from seqrl.training.loop.interaction import Interaction


def task_of(run: Any, **options: Any) -> Any:
    """Return the task that a run plays, with more options."""
    return first_of(run.make_envs(1, **options)).unwrapped.task


def exact_sums(run: Any) -> float:
    """Return how many of all sums of a BinaryAddition have every bit right."""
    bits = task_of(run).bits
    first, second = (x.ravel() for x in np.indices([2 ** (bits - 1)] * 2))
    right, state = first >= 0, None
    for place in range(bits):
        shown = np.stack([first >> place & 1, second >> place & 1], -1).astype(np.int8)
        start = np.full(len(shown), place == 0)
        said, state = run.agent.act(shown, start, state, explore=False)[:2]
        right &= said == (first + second) >> place & 1
    return float(right.sum())


def cross_entropy(run: Any, episodes: int = 1000) -> float:
    """Return the loss on fresh episodes, in nats a step: of imitation with the task as teacher."""
    agent, envs, losses = run.agent, run.make_envs(episodes), []
    loop = Interaction(agent, envs)
    agent.batch_size, agent.update = episodes, lambda batch: losses.append(agent.loss(batch)) or {}
    loop.reset(np.random.SeedSequence(1))
    with torch.no_grad():
        loop.run(episodes * task_of(run).horizon)
    return float(sum(loss.total for loss in losses) / sum(loss.count for loss in losses))


def gate_rows(run: Any) -> float:
    """Return the share of a gate's four rows that are right."""
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int8)
    said = run.agent.act(bits, np.ones(4, bool), explore=False).action
    right, _ = task_of(run).answer(np, {"bits": bits})
    return float((said == right).mean())


def right_rows(run: Any, part: str = "test") -> float:
    """Return the share of labels that are right in a part of Samples."""
    shown, value = task_of(run, part=part).data
    said = run.agent.act(shown, np.ones(len(shown), bool), explore=False).action
    return float((said == value).mean())


def off_least_squares(run: Any) -> float:
    """Return how far slope or intercept of a line is from least squares, of its size; the worse."""
    x, y = (column[:, 0].astype(float) for column in task_of(run).data)
    ends = run.agent.act(np.float32([[0], [1]]), np.ones(2, bool), explore=False).action[:, 0]
    found, best = np.array([ends[1] - ends[0], ends[0]]), np.polyfit(x, y, 1)
    return float((abs(found - best) / abs(best)).max())


def replies_given(run: Any, n: int = 250) -> np.ndarray:
    """Return how often each of its replies to chat is given by the agent of a Dialogue [replies].

    Tokens are the likeliest, latents are drawn. A reply stands in the source of the turn behind.
    """
    agent, envs = run.agent, run.make_envs(n)
    task = first_of(envs).unwrapped.task
    agent.head.sample = lambda out, draw: agent.head.mode(out)
    replies = task.first_reply + np.arange(task.replies * WORDS).reshape(-1, WORDS)
    obs, start, state = envs.reset(np.random.SeedSequence(1)), np.ones(n, bool), None
    count = np.zeros(task.replies)
    for _ in range(4 * task.horizon):
        before = obs["source"][obs["previous"] == BEGIN]
        count += (before[:, None, :WORDS] == replies).all(2).sum(0)
        action, state = agent.act(obs, start, state)[:2]
        outcome = envs.step(action)
        obs, start = outcome.obs, outcome.start
    return count


def variety(run: Any) -> float:
    """Return the entropy, in nats, of which reply to chat is given; wrong ones are left out."""
    count = replies_given(run)
    share = count[count > 0] / count.sum()
    return float(-(share * np.log(share)).sum())


JUDGES: dict[str, Callable[[Any], float]] = {
    "exact sums": exact_sums,
    "cross entropy": cross_entropy,
    "gate rows": gate_rows,
    "held out": right_rows,
    "off least squares": off_least_squares,
    "variety": variety,
}


def judged(judge: str, folder: Path) -> float:
    """Return what a judge says of a run's folder."""
    return JUDGES[judge](seqrl.load(folder))
