"""Causal self-attention over a window of past steps; the memory is a key-value cache."""

from __future__ import annotations

import math

import torch
from gymnasium import Space
from torch import Tensor, nn
from torch.nn import functional

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.types import State
from seqrl.networks.base import Core
from seqrl.networks.encoders import as_source
from seqrl.networks.options import initialise_layer, probability


class Attention(Core):
    """A small transformer (Vaswani et al. 2017; LayerNorm first, as in Xiong et al. 2020).

    encoder: an observation space, a network, a plain module, or a number of features.
    hidden_size: features, shared by `heads` heads.  layers: of attention and an MLP each.
    window: a step attends to itself and the window - 1 steps before it in its episode.
    The position encoding is sinusoidal in the step's age in the episode, so it is the same
    however the episode is cut into calls.
    Memory: keys and values concatenated [N, layers, window - 1, 2 * hidden_size], and the age
    [N], the number of the episode's steps so far, which says how much of the cache is valid.
    """

    has_own_memory = True

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
        self.features = check_whole("hidden_size", hidden_size)
        self.window, self.init = check_whole("window", window), init
        if hidden_size % check_whole("heads", heads) or hidden_size % 2:
            expected = f"expected an even multiple of heads = {heads}"
            raise UsageError(f"hidden_size {hidden_size}: {expected}")
        self.blocks = nn.ModuleList(
            Block(hidden_size, heads, probability("dropout", dropout), init)
            for _ in range(check_whole("layers", layers))
        )
        self.norm = nn.LayerNorm(hidden_size)
        exponents = torch.arange(hidden_size // 2) * (-2 * math.log(10_000.0) / hidden_size)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)
        self.build_once()

    frequencies: Tensor

    def build(self, features: int) -> None:
        """Make the layer from the encoder's features to hidden_size."""
        self.enter = nn.Linear(features, self.features)
        initialise_layer(self.enter, self.init)

    def own_initial_state(self, n: int) -> State:
        """Return zeros: the cache and the age."""
        cache = self.frequencies.new_zeros(n, len(self.blocks), self.window - 1, 2 * self.features)
        return cache, torch.zeros(n, dtype=torch.int64, device=cache.device)

    def run(self, x: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
        """Map [T, N, F] to [T, N, hidden_size]."""
        cache, age = state
        position = ages(start, age)  # [T, N]
        angles = position[..., None] * self.frequencies
        x = self.enter(x) + torch.cat([angles.sin(), angles.cos()], -1)
        x = x.transpose(0, 1)  # [N, T, H]
        window = Window(start, age, self.window)
        caches = []
        for i, block in enumerate(self.blocks):
            x, new = block(x, cache[:, i], window)
            caches.append(new)
        cache = torch.stack(caches, 1) if len(caches) > 1 else caches[0][:, None]
        return self.norm(x).transpose(0, 1), (cache, position[-1] + 1)


class Block(nn.Module):
    """One layer: attention, then an MLP, each with a skip connection."""

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

    def forward(self, x: Tensor, cache: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """Map x [N, T, H] and the cache [N, window - 1, 2 H] to the same, T steps later."""
        size = x.shape[-1]
        queries, new = self.project(self.norm(x)).split([size, 2 * size], -1)
        cache = torch.cat([cache, new], 1)
        dropout = self.dropout if self.training else 0.0
        keys, values = cache.split(size, -1)
        attended = window.attend(queries, keys, values, self.heads, dropout)
        x = x + functional.dropout(self.merge(attended), dropout)
        x = x + functional.dropout(self.mlp(x), dropout)
        return x, cache[:, window.steps :]


class Window:
    """Causal attention over a rollout [T, N], within a window and within an episode.

    Time is cut into chunks of at most `window` steps; each chunk attends to itself and the
    window - 1 steps before it, so the cost grows with T, not with T squared.
    """

    def __init__(self, start: Tensor, age: Tensor, window: int) -> None:
        steps = len(start)
        self.steps, self.past = steps, window - 1
        self.chunk = min(steps, window)
        self.span = self.chunk + self.past
        self.padding = -steps % self.chunk
        lags = torch.arange(self.past, 0, -1, device=start.device)
        cached = torch.where(lags <= age[:, None], 0, -1)  # [N, window - 1]: of this episode or not
        episode = torch.cat([cached, start.cumsum(0).t()], 1)  # [N, window - 1 + T]: which episode
        episode = functional.pad(episode, (0, self.padding), value=-2)
        key = episode.unfold(1, self.span, self.chunk)[:, :, None]  # [N, chunks, 1, span]
        query = episode[:, self.past :].unfold(1, self.chunk, self.chunk)[..., None]
        lag = torch.arange(self.chunk, device=start.device)[:, None] + self.past
        lag = lag - torch.arange(self.span, device=start.device)  # [chunk, span]
        self.mask = ((key == query) & (lag >= 0) & (lag < window)).flatten(0, 1)[:, None]

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, heads: int, dropout: float
    ) -> Tensor:
        """Return [N, T, H] for queries [N, T, H], keys and values [N, window - 1 + T, H]."""
        q = self._chunks(queries, self.chunk, heads)  # [N * chunks, heads, chunk, H / heads]
        k, v = (self._chunks(x, self.span, heads) for x in (keys, values))
        out = functional.scaled_dot_product_attention(q, k, v, self.mask, dropout)
        out = out.transpose(1, 2).flatten(2)
        return out.unflatten(0, (queries.shape[0], -1)).flatten(1, 2)[:, : self.steps]

    def _chunks(self, x: Tensor, size: int, heads: int) -> Tensor:
        if self.padding:
            x = functional.pad(x, (0, 0, 0, self.padding))
        chunks = x.unfold(1, size, self.chunk)  # [N, chunks, H, size], a view
        return chunks.flatten(0, 1).unflatten(1, (heads, -1)).transpose(-1, -2)


def ages(start: Tensor, age: Tensor) -> Tensor:
    """Return the steps since the episode began [T, N]; `age` [N] is that of t = 0."""
    time = torch.arange(len(start), device=start.device)[:, None]
    began = torch.where(start, time, -1).cummax(0).values
    return torch.where(began < 0, time + age, time - began)
