"""What else than the return of greedy episodes says how good a run has become."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seqrl
from seqrl.core.tokens import BEGIN
from seqrl.envs.finite import finite_model
from seqrl.envs.making import first_of
from seqrl.envs.optimum import policy_value, start_value
from seqrl.envs.tasks.dialogue import WORDS
from seqrl.networks.latents import kl
from seqrl.training.loop.interaction import Interaction
from seqrl.training.pictures.word_vectors import analogy, nearest, of_length_one
from seqrl.training.runs import folder as runs
from seqrl.training.runs.event_file import read_scalar
from seqrl.training.runs.word_vectors import learned, rules_with_vectors


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
    agent.columns, agent.update = episodes, lambda batch: losses.append(agent.loss(batch)) or {}
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


def slots(run: Any, **options: Any) -> float:
    """Return the share of questions for slots, in 1,000 dialogues, that are answered right."""
    envs, agent = run.make_envs(1000, judged="slots", **options), run.agent
    said = first_returns(envs, lambda *seen: agent.act(*seen, explore=False)[:2])
    return said / first_returns(envs, lambda *seen: (envs.answer()[0], None))


def slots_of_twelve(run: Any) -> float:
    """Return the same of dialogues of 12 turns."""
    return slots(run, turns=12)


def first_returns(envs: Any, choose: Callable[..., tuple[Any, Any]]) -> float:
    """Return the sum of the returns of each environment's first episode, of the same seed."""
    n = envs.num_envs
    obs, start, state = envs.reset(np.random.SeedSequence(1)), np.ones(n, bool), None
    total, going = 0.0, np.ones(n, bool)
    while going.any():
        action, state = choose(obs, start, state)
        outcome = envs.step(action)
        total += float(outcome.reward[going].sum(dtype=np.float64))
        going &= ~(outcome.terminated | outcome.truncated)
        obs, start = outcome.obs, outcome.start
    return total


def replies_given(run: Any, n: int = 250, times: int = 32) -> np.ndarray:
    """Return how often each reply is given in the second turn of N dialogues [N, replies].

    Each dialogue is begun as many times. Tokens are the likeliest, latents are drawn. A reply
    stands in the source of the turn behind; one to a question for a slot is none of these.
    """
    agent, envs = run.agent, run.make_envs(n)
    task = first_of(envs).unwrapped.task
    agent.head.sample = lambda out, draw: agent.head.mode(out)
    replies = task.first_reply + np.arange(task.replies * WORDS).reshape(-1, WORDS)
    count = np.zeros((n, task.replies))
    for _ in range(times):
        obs, start, state = envs.reset(np.random.SeedSequence(1)), np.ones(n, bool), None
        turn = np.zeros(n)
        for _ in range(2 * task.room):
            turn += obs["previous"] == BEGIN
            action, state = agent.act(obs, start, state)[:2]
            outcome = envs.step(action)
            obs, start = outcome.obs, outcome.start
            third = (turn == 2) & (obs["previous"] == BEGIN)
            given = (obs["source"][:, None, :WORDS] == replies).all(2)
            count += given & third[:, None]
    return count


def entropy(count: np.ndarray) -> float:
    """Return the entropy, in nats, of what was counted."""
    share = count[count > 0] / count.sum()
    return float(-(share * np.log(share)).sum())


def variety(run: Any) -> float:
    """Return the entropy of replies to the very same dialogue, the mean over dialogues."""
    return float(np.mean([entropy(row) for row in replies_given(run) if row.any()]))


def variety_of_all(run: Any) -> float:
    """Return the entropy of replies to whatever was said before."""
    return entropy(replies_given(run).sum(0))


def share_of_teacher(run: Any) -> float:
    """Return the exact return of a policy without memory, of that of the run that taught it."""
    env = first_of(run.make_envs(1))
    states = np.arange(env.observation_space.n)

    def worth(agent: Any) -> float:
        policy = agent.act(states, states >= 0, explore=False).action
        return start_value(finite_model(env), policy_value(env, policy, 1.0))

    return worth(run.agent) / worth(seqrl.load(run.config["agent_args"]["teacher"]).agent)


def gain_kept(folder: Path) -> float:
    """Return how far greedy evaluations rose above the run that a run began from, at its end.

    Where one on the way was more than a twentieth below it, the deepest fall.
    """
    before = Path(runs.read_config(folder)["from"])
    start = runs.read_summary(before, runs.read_config(before))
    assert start is not None
    change = read_scalar(folder, "eval/mean_reward")[1] - start["eval_mean_reward"]
    return float(change[-1] if change.min() >= -0.05 else change.min())


def words(run: Any) -> float:
    """Return the share of analogies, or of neighbours of the generated words, that are right.

    The lesser of both. The two words next to an adjective are to be verbs and adjectives of its
    kind.
    """
    rules = rules_with_vectors(run.config)
    assert rules is not None
    known, vectors = learned(run.agent, rules)
    place = {word: i for i, word in enumerate(known)}
    asked = [[place[word] for word in question] for question in rules.asked]
    right = [analogy(vectors, a, b, c) == d for a, b, c, d in asked]
    near = []
    for word in (word for word in known if word.startswith("adjective")):
        i, kind = place[word], word[len("adjective") : -1]
        found = nearest(vectors, of_length_one(vectors)[i], (i,), 2)
        near += [re.fullmatch(rf"(adjective|verb){kind}[abc]", known[j]) is not None for j in found]
    return float(min(np.mean(right), np.mean(near)))


def worst_fresh_seed(folder: Path) -> float:
    """Return the lowest score over fresh seeds of what the search beside a run has found."""
    found = json.loads((folder.parent / "search/best/compare.json").read_text(encoding="utf-8"))
    return float(min(run["score"] for row in found["rows"] for run in row["runs"]))


def share_of_steps(folder: Path) -> float:
    """Return the env steps of the search beside a run, of those of its trials played to the end."""
    with open(folder.parent / "search/search.csv", encoding="utf-8") as file:
        taken = [int(row["steps"]) for row in csv.DictReader(file)]
    return sum(taken) / len(taken) / float(runs.read_config(folder)["steps"])


def divergence_of_codes(run: Any) -> float:
    """Return the divergence of a VAE's codes from the prior, in nats, over a part of Samples."""
    shown = torch.as_tensor(task_of(run, part="test").data[0])
    with torch.no_grad():
        posterior = run.agent.network.posterior(shown)
    prior = [torch.zeros_like(posterior[0])] * 2
    return float(kl(posterior, prior).sum(1).mean())


OF_FOLDERS: dict[str, Callable[[Path], float]] = {
    "gain kept": gain_kept,
    "worst fresh seed": worst_fresh_seed,
    "share of steps": share_of_steps,
}
JUDGES: dict[str, Callable[[Any], float]] = {
    "exact sums": exact_sums,
    "cross entropy": cross_entropy,
    "gate rows": gate_rows,
    "held out": right_rows,
    "off least squares": off_least_squares,
    "slots": slots,
    "slots of twelve": slots_of_twelve,
    "divergence of codes": divergence_of_codes,
    "variety": variety,
    "variety of all": variety_of_all,
    "share of teacher": share_of_teacher,
    "words": words,
}


def judged(judge: str, folder: Path) -> float:
    """Return what a judge says of a run's folder."""
    if judge in OF_FOLDERS:
        return OF_FOLDERS[judge](folder)
    return JUDGES[judge](seqrl.load(folder))
