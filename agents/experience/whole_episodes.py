"""Finished episodes side by side: their steps, their returns, and both as a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.agents.experience.batches import Sequences, Steps
from seqrl.agents.experience.episodes import EpisodeBatch
from seqrl.core import tree


def sequence(batch: EpisodeBatch) -> tuple[Any, Tensor]:
    """The observations with what followed the last one behind them [T + 1, B, ...]; the starts."""

    def behind(obs: Tensor, last: Tensor) -> Tensor:
        longer = torch.cat([obs, obs[:1] * 0])
        longer[batch.length, torch.arange(len(last), device=last.device)] = last
        return longer

    start = torch.zeros((len(batch.reward) + 1, len(batch.length)), dtype=torch.bool)
    start[0] = True
    return tree.map(behind, batch.obs, batch.last), start.to(batch.reward.device)


def valid_steps(length: Tensor, longest: int) -> Tensor:
    """bool [T, B]: where an episode still is."""
    return torch.arange(longest, device=length.device)[:, None] < length


def at_end(values: Tensor, length: Tensor) -> Tensor:
    """values [T + 1, B] at each episode's end [B]."""
    return values.gather(0, length[None].long())[0]


def discounted(reward: Tensor, bootstrap: Tensor, length: Tensor, gamma: float) -> Tensor:
    """G_t = R_{t+1} + gamma G_{t+1}, from `bootstrap` [B] at the end; [T, B], 0 behind it.

    Sutton & Barto (2018), eq. 3.9, p. 55.
    """
    inside = valid_steps(length, len(reward))
    total, totals = bootstrap, []
    for t in range(len(reward) - 1, -1, -1):
        total = torch.where(inside[t], reward[t] + gamma * total, total)
        totals.append(total)
    return torch.stack(totals[::-1]) * inside


def with_returns(batch: EpisodeBatch, bootstrap: Tensor, gamma: float) -> Sequences:
    """Whole episodes with the return where the reward was; `bootstrap` [B] follows."""
    inside = valid_steps(batch.length, len(batch.reward))
    obs, start = sequence(batch)
    total = discounted(batch.reward.float(), bootstrap, batch.length, gamma)
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
