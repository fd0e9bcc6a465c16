"""Causal self-attention over a window of past steps, with its cache as memory."""

from __future__ import annotations

import math

import torch
from gymnasium import Space
from torch import Tensor, nn
from torch.nn import functional

from seqrl.core import State, UsageError
from seqrl.networks.base import Core
from seqrl.networks.encoders import as_source
from seqrl.networks.options import initialise_layer, share, whole


class Attention(Core):
    """A small transformer (Vaswani et al. 2017; LayerNorm first, as in Xiong et al. 2020).

    encoder: an observation space, a network, a plain module, or a number of features.
    hidden_size: features, shared by `heads` heads.  layers: of attention and an MLP each.
    window: a step sees itself and the window - 1 steps before it, of its own episode only.
    A step's position is its age in the episode, as sines, so it is the same however the episode
    is cut into calls.
    Memory: keys and values side by side [N, layers, window - 1, 2 * hidden_size], and the age
    [N], the number of the episode's steps so far, which says how much of the cache counts.
    """

    remembers = True

    def __init__(
        self,
        encoder: Space | nn.Module | int,
        hidden_size: int = 64,
        *,
        layers: int = 1,
        heads: int = 4,
        window: int = 64,
        dropout: float = 0.0,
        init: str | float | None = None,
    ) -> None:
        super().__init__(as_source(encoder))
        self.features = whole("hidden_size", hidden_size)
        self.window, self.init = whole("window", window), init
        if hidden_size % whole("heads", heads) or hidden_size % 2:
            raise UsageError(
                f"hidden_size {hidden_size}: expected an even multiple of heads = {heads}"
            )
        self.blocks = nn.ModuleList(
            Block(hidden_size, heads, share("dropout", dropout), init)
            for _ in range(whole("layers", layers))
        )
        self.norm = nn.LayerNorm(hidden_size)
        octaves = torch.arange(hidden_size // 2) * (-2 * math.log(10_000.0) / hidden_size)
        self.register_buffer("rates", octaves.exp(), persistent=False)
        self.ready()

    rates: Tensor

    def build(self, features: int) -> None:
        """The layer that brings the encoder's features to hidden_size."""
        self.enter = nn.Linear(features, self.features)
        initialise_layer(self.enter, self.init)

    def fresh(self, n: int) -> State:
        """Zeros: the cache and the age."""
        cache = self.rates.new_zeros(n, len(self.blocks), self.window - 1, 2 * self.features)
        return cache, torch.zeros(n, dtype=torch.int64, device=cache.device)

    def run(self, x: Tensor, start: Tensor, own: State) -> tuple[Tensor, State]:
        """[T, N, F] -> [T, N, hidden_size]."""
        cache, age = own
        now = ages(start, age)  # [T, N]
        angles = now[..., None] * self.rates
        x = self.enter(x) + torch.cat([angles.sin(), angles.cos()], -1)
        x = x.transpose(0, 1)  # [N, T, H]
        sees = Window(start, age, self.window)
        kept = []
        for i, block in enumerate(self.blocks):
            x, last = block(x, cache[:, i], sees)
            kept.append(last)
        cache = torch.stack(kept, 1) if len(kept) > 1 else kept[0][:, None]
        return self.norm(x).transpose(0, 1), (cache, now[-1] + 1)


class Block(nn.Module):
    """One layer: attention, then an MLP, each beside the identity."""

    def __init__(self, size: int, heads: int, dropout: float, init: str | float | None) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project = nn.Linear(size, 3 * size)
        self.merge = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size)
        )
        for layer in (self.project, self.merge, self.mlp[1], self.mlp[3]):
            initialise_layer(layer, init)

    def forward(self, x: Tensor, cache: Tensor, sees: Window) -> tuple[Tensor, Tensor]:
        """x [N, T, H] and the cache [N, window - 1, 2 H] -> the same, T steps later."""
        size = x.shape[-1]
        queries, new = self.project(self.norm(x)).split([size, 2 * size], -1)
        cache = torch.cat([cache, new], 1)
        dropout = self.dropout if self.training else 0.0
        keys, values = cache.split(size, -1)
        seen = sees.attend(queries, keys, values, self.heads, dropout)
        x = x + functional.dropout(self.merge(seen), dropout)
        x = x + functional.dropout(self.mlp(x), dropout)
        return x, cache[:, sees.steps :]


class Window:
    """Which steps of a rollout see which, and attention among those.

    Time is cut into blocks of at most `window` steps; each block sees itself and the window - 1
    steps before it, so the cost grows with T, not with T squared.
    """

    def __init__(self, start: Tensor, age: Tensor, window: int) -> None:
        steps = len(start)
        self.steps, self.past = steps, window - 1
        self.block = min(steps, window)
        self.span = self.block + self.past
        self.filler = -steps % self.block
        lags = torch.arange(self.past, 0, -1, device=start.device)
        old = torch.where(lags <= age[:, None], 0, -1)  # [N, window - 1]: of this episode or not
        owner = torch.cat([old, start.cumsum(0).t()], 1)  # [N, window - 1 + T]: which episode
        owner = functional.pad(owner, (0, self.filler), value=-2)
        key = owner.unfold(1, self.span, self.block)[:, :, None]  # [N, blocks, 1, span]
        query = owner[:, self.past :].unfold(1, self.block, self.block)[..., None]
        lag = torch.arange(self.block, device=start.device)[:, None] + self.past
        lag = lag - torch.arange(self.span, device=start.device)  # [block, span]
        self.mask = ((key == query) & (lag >= 0) & (lag < window)).flatten(0, 1)[:, None]

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, heads: int, dropout: float
    ) -> Tensor:
        """queries [N, T, H], keys and values [N, window - 1 + T, H] -> [N, T, H]."""
        out = functional.scaled_dot_product_attention(
            self._cut(queries, self.block, heads),
            self._cut(keys, self.span, heads),
            self._cut(values, self.span, heads),
            self.mask,
            dropout,
        )  # [N * blocks, heads, block, H / heads]
        out = out.transpose(1, 2).flatten(2)
        return out.unflatten(0, (len(queries), -1)).flatten(1, 2)[:, : self.steps]

    def _cut(self, x: Tensor, size: int, heads: int) -> Tensor:
        if self.filler:
            x = functional.pad(x, (0, 0, 0, self.filler))
        pieces = x.unfold(1, size, self.block)  # [N, blocks, H, size], a view
        return pieces.flatten(0, 1).unflatten(1, (heads, -1)).transpose(-1, -2)


def ages(start: Tensor, age: Tensor) -> Tensor:
    """Steps since the episode began [T, N]; `age` [N] at t = 0 where none starts there."""
    time = torch.arange(len(start), device=start.device)[:, None]
    began = torch.where(start, time, -1).cummax(0).values
    return torch.where(began < 0, time + age, time - began)
