"""What an agent has learned, as text."""

from __future__ import annotations

import numpy as np

from seqrl.envs.registry import replies_of
from seqrl.training.pictures.as_text import show_table
from seqrl.training.pictures.replies import show_replies
from seqrl.training.runs.parts import RunParts, cpu_envs, network_reading
from seqrl.training.runs.word_vectors import rules_with_vectors, show_vectors


def show(parts: RunParts, seed: int) -> str:
    """Return a table's values and policy, replies of a token task, or word vectors."""
    rules = rules_with_vectors(parts.config)
    if rules is not None:
        return show_vectors(parts.agent, rules)
    if replies_of(parts.envs) is None:
        return show_table(parts.agent, parts.envs)
    envs = cpu_envs(parts.config)
    return show_replies(parts.agent, envs, np.random.SeedSequence(seed), network_reading)
