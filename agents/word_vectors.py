"""The word vectors of an agent: the tables of embeddings in its networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from seqrl.core.errors import UsageError

EMBEDDING = "embedding"  # the argument of a network that names a file of vectors


def tables(agent: Any, count: int) -> Iterator[Any]:
    """Yield the embeddings of `count` tokens, torch modules, of all networks of an agent."""
    from torch import nn

    parts = getattr(agent, "parts", {})
    modules = [part.module for part in parts.values()] or [getattr(agent, "network", nn.Module())]
    for layer in (layer for module in modules for layer in module.modules()):
        if isinstance(layer, nn.Embedding) and layer.num_embeddings == count:
            yield layer


def vectors_of(agent: Any, count: int) -> np.ndarray:
    """Return the vectors [V, E] of `count` tokens; UsageError where the agent has none."""
    found = next(tables(agent, count), None)
    if found is None:
        raise UsageError(f"{type(agent).__name__} has no embedding of {count:,} tokens")
    vectors: np.ndarray = found.weight.detach().cpu().numpy()
    return vectors


def place(agent: Any, vectors: np.ndarray, known: np.ndarray) -> None:
    """Let tokens begin with vectors [K, E], those where `known` bool [V] holds, in every network.

    UsageError where no network has an embedding of so many tokens and numbers.
    """
    import torch

    found, size = list(tables(agent, len(known))), vectors.shape[1]
    if not found:
        expected = "expected a network that embeds them, as seq2seq or gru does"
        raise UsageError(f"embedding: the network has none of {len(known):,} tokens; {expected}")
    for layer in found:
        if layer.embedding_dim != size:
            has = f"the network's has {layer.embedding_dim}"
            remedy = f"add --network-arg size={size}, of tree hidden_size={size}"
            raise UsageError(f"embedding: {size} numbers a word, {has}; {remedy}")
        with torch.no_grad():
            layer.weight[torch.as_tensor(known)] = torch.as_tensor(vectors).to(layer.weight)
