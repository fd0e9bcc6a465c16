"""Writing a policy to a file that runs without seqrl, once it has been seen to play the same."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np

from seqrl.agents.export import Exported, to_npz, to_pt2
from seqrl.agents.word_vectors import vectors_of
from seqrl.core import action_mask, tree
from seqrl.core.errors import RunError, UsageError
from seqrl.envs.batches import brief, clipper
from seqrl.training.runs.policy import Policy
from seqrl.training.runs.word_vectors import as_text, words_of

OBSERVATIONS = 1_000  # on which a file and its agent are compared
MOST = 1e-4  # by which real numbers may differ, relative to those beyond 1


def export(policy: Policy, path: Path) -> Exported:
    """Write the greedy policy to NAME.pt2, by torch.export, or to NAME.npz, for NumPy.

    It is first compared with the agent on 1,000 observations, met by playing greedily and at
    random by turns. RunError where they differ, UsageError for what cannot be exported; then
    nothing is written.
    """
    spaces = policy.observation_space, policy.action_space
    if path.suffix == ".npz":
        made = to_npz(policy.agent, *spaces)
    elif path.suffix == ".pt2":
        envs = policy.make_envs()
        made = to_pt2(policy.agent, policy.action_space, envs.reset(np.random.SeedSequence(0)))
        envs.close()
    else:
        raise UsageError(f"{path}: expected a name that ends in .pt2, .npz or .vec")
    compare(policy, made, str(path))
    write(path, made.data)
    return made


def export_vectors(policy: Policy, path: Path) -> tuple[int, int]:
    """Write the word vectors of an agent to NAME.vec; return how many words and numbers it has."""
    words = words_of(policy.config)
    vectors = vectors_of(policy.agent, len(words))
    if broken := [word for word in words if len(word.splitlines()) != 1]:
        raise UsageError(f"{path}: the word {broken[0]!r} would break a line; no file can have it")
    write(path, as_text(words, vectors).encode())
    return len(words), vectors.shape[1]


def compare(policy: Policy, made: Exported, name: str) -> None:
    """Raise RunError with the largest difference if an exported policy plays another way."""
    envs, rng = policy.make_envs(made.n), np.random.default_rng(0)
    obs, start, state = envs.reset(np.random.SeedSequence(0)), np.ones(made.n, bool), None
    clip, drawn = clipper(policy.action_space), copy.deepcopy(policy.action_space)
    drawn.seed(0)
    worst, told = 0.0, ""
    for _ in range(0, OBSERVATIONS, made.n):
        decision = policy.agent.act(obs, start, state, explore=False)
        action, state = clip(decision.action), decision.state
        found = made.play(obs, start)
        if (apart := difference(found, action)) > worst:
            worst, told = apart, f"{brief(found)} for {brief(action)} at {brief(obs)}"
        random = np.stack([action_mask.sample(drawn, tree.take(obs, i)) for i in range(made.n)])
        outcome = envs.step(np.where(at_random(rng, action), random, action))
        obs, start = outcome.obs, outcome.start
    envs.close()
    if worst:
        text = f"{name} is not written, it would not act as the agent does: {told}"
        raise RunError(f"{text}; the largest difference is {worst:.3g}; play it by seqrl.load")


def at_random(rng: np.random.Generator, action: np.ndarray) -> np.ndarray:
    """Return for which of N actions [N, ...] another one is drawn: half of them, in the mean."""
    return (rng.random(len(action)) < 0.5).reshape(-1, *[1] * (action.ndim - 1))


def difference(found: np.ndarray, action: np.ndarray) -> float:
    """Return the largest difference of actions [N, ...]; 0 where rounding alone explains it."""
    if found.shape != action.shape:
        return np.inf
    apart = abs(found.astype(float) - action)
    if action.dtype.kind == "f":
        apart = np.where(apart <= MOST * np.maximum(1.0, abs(action)), 0.0, apart)
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def write(path: Path, data: bytes) -> None:
    """Write a file whole: under another name first."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"{path}: {error.strerror}; name another file") from error
