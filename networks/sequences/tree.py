"""Recursive networks: a parse tree is read from its leaves to its root."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.tokens import PAD
from seqrl.networks.base import Encoder, refuse
from seqrl.networks.sequences.spaces import vocabulary_parts


class Tree(Encoder):
    """A recursive network over a tree of tokens (Socher et al. 2011 and 2013), batched by depth.

    A node begins as its token's embedding and takes in its children, one after the other from the
    left, by a gated recurrent cell, so they may be of any number, and their order counts. All
    nodes of a depth are computed at once, the deepest first; the root's numbers are the features.

    space: a Dict of "tokens" and "parent", MultiDiscrete [L]: parent[i] < i is the place of the
        token that token i hangs from, so the first token is the root; 0 pads both behind.
    hidden_size: of a node, and the number of features.
    """

    def __init__(self, space: Space, hidden_size: int = 64) -> None:
        super().__init__()
        (count, _), _ = vocabulary_parts(space, "Tree", ("tokens", "parent"))
        self.features = check_whole("hidden_size", hidden_size)
        self.table = nn.Embedding(count, hidden_size)
        self.cell = nn.GRUCell(hidden_size, hidden_size)

    def encode(self, obs: Any) -> Tensor:
        """Map tokens and parents [B, L] to the root's numbers [B, hidden_size].

        UsageError for what is no tree. Of nothing but padding, by which a network is tried, it is
        the number of a root of padding.
        """
        tokens, parent = obs["tokens"].long(), obs["parent"].long()
        self._check(tokens, parent)
        here = torch.arange(tokens.shape[1], device=tokens.device)
        child = (tokens != PAD) & (here > 0)
        depth, rank = depths(parent, child), ranks(parent, child)
        first = torch.arange(len(tokens), device=tokens.device)[:, None] * tokens.shape[1]
        above, nodes = (first + parent).flatten(), self.table(tokens.flatten())
        for level in range(int(depth.max()), 0, -1):
            deep = child & (depth == level)
            for place in range(int(rank[deep].max()) + 1):
                below = (deep & (rank == place)).flatten().nonzero()[:, 0]
                into = above[below]
                nodes = nodes.index_copy(0, into, self.cell(nodes[below], nodes[into]))
        return nodes.unflatten(0, tokens.shape)[:, 0]

    def _check(self, tokens: Tensor, parent: Tensor) -> None:
        """Refuse tokens and parents [B, L] that are no trees, in a line."""
        if torch.compiler.is_compiling():
            return
        here = torch.arange(tokens.shape[1], device=tokens.device)
        late = (tokens[:, :-1] == PAD) & (tokens[:, 1:] != PAD)
        beyond = (parent >= here.clamp(min=1)) | (parent < 0)
        unknown = (tokens < 0) | (tokens >= self.table.num_embeddings)
        if not bool(torch.stack([late.any(), beyond.any(), unknown.any()]).any()):
            return
        if bool(unknown.any()):
            most = self.table.num_embeddings - 1
            refuse(self, f"token {int(tokens[unknown][0])}: unknown, expected 0 to {most}")
        if bool(late.any()):
            refuse(self, f"no tree: padding ({PAD}) before a token; expected it behind the last")
        row, node = beyond.nonzero()[0].tolist()
        problem = f"no tree: token {node} hangs from {int(parent[row, node])}"
        refuse(self, f"{problem}; expected a token before it, from the root, token 0, on")


def depths(parent: Tensor, child: Tensor) -> Tensor:
    """Return how far each node is from its root [B, L], 0 where there is no child [B, L]."""
    depth, ancestor, below = torch.zeros_like(parent), parent, child
    here = torch.arange(parent.shape[1], device=parent.device).expand_as(parent)
    ancestor = torch.where(child, parent, here)
    while bool(below.any()):
        depth = depth + below
        below = below & (ancestor > 0)
        ancestor = parent.gather(1, ancestor)
    return depth


def ranks(parent: Tensor, child: Tensor) -> Tensor:
    """Return how many children of the same parent stand before each node [B, L]."""
    same = (parent[:, :, None] == parent[:, None]) & child[:, None]
    return same.tril(-1).sum(2)
