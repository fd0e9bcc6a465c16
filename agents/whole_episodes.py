"""Finished episodes as what Monte Carlo learns from: every step's own return, nothing after it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from seqrl.agents.episodes import Batch
from seqrl.agents.items import Sequences, Steps
from seqrl.agents.reinforce import discounted, sequence, valid_steps
from seqrl.core import tree


def with_returns(batch: Batch, tail: Tensor, gamma: float) -> Sequences:
    """Episodes from their first step on, the return where the reward was; `tail` [B] follows."""
    inside = valid_steps(batch.length, len(batch.reward))
    obs, start = sequence(batch)
    total = discounted(batch.reward.float(), tail, batch.length, gamma)
    mask = longer(inside)
    return Sequences(
        obs=obs,
        action=longer(batch.action),
        reward=longer(total),
        start=start,
        terminated=torch.ones_like(mask),
        final=~mask,
        mask=mask,
        state=None,
    )


def longer(leaf: Tensor) -> Tensor:
    """[T, B] with a row of zeros behind it."""
    return torch.cat([leaf, torch.zeros_like(leaf[:1])])


def shuffled(whole: Sequences, size: int, rng: np.random.Generator) -> Iterator[Steps]:
    """Every step once, `size` at a time in random order."""
    mask = whole.mask
    rows = tree.map(lambda leaf: leaf[mask], (whole.obs, whole.action, whole.reward))
    order = torch.as_tensor(rng.permutation(len(rows[1])), device=mask.device)
    for part in order.split(size):
        obs, action, total = tree.map(lambda leaf, part=part: leaf[part][None], rows)
        nothing = torch.zeros_like(total)
        yield Steps(obs, action, total, nothing, obs, action, nothing.bool())
