"""What an agent has learned, as text."""

from __future__ import annotations

import numpy as np

from seqrl.envs.registry import replies_of
from seqrl.training.pictures.as_text import show_table
from seqrl.training.pictures.replies import show_replies
from seqrl.training.runs.parts import RunParts, cpu_envs, network_reading


def show(parts: RunParts, seed: int) -> str:
    """Return a table's values and policy, or replies of a token task and where attention looks."""
    if replies_of(parts.envs) is None:
        return show_table(parts.agent, parts.envs)
    envs = cpu_envs(parts.config)
    return show_replies(parts.agent, envs, np.random.SeedSequence(seed), network_reading)
