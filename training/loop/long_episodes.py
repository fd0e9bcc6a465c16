"""Episodes that have grown long where nothing is known to end them."""

from __future__ import annotations

import logging
import math
from typing import Any

from seqrl.envs.making import may_never_end

LOG = logging.getLogger("seqrl")
LONG = 10_000  # env steps


class LongEpisodes:
    """Tells once of an episode of a loop that is long, has not ended and has no known limit.

    `next_look` is the env step to look at next: seldom enough to cost nothing, compiled or not.
    """

    def __init__(self, loop: Any):
        self.loop = loop
        endless = loop.max_episode_steps is None and may_never_end(loop.envs)
        self.next_look = LONG * loop.envs.num_envs if endless else math.inf

    def look(self) -> None:
        """Look at the episodes under way where it is time to."""
        steps, lengths = self.loop.steps, self.loop.books.lengths
        if steps < self.next_look:
            return
        self.next_look = steps + max(LONG * len(lengths), steps // 8)
        longest = int(lengths.max())
        if longest >= LONG:
            self.next_look = math.inf
            text = "an episode has taken %s env steps without an end and no step limit is known"
            remedy = "; --max-episode-steps 1000 (max_episode_steps of make) would cut it"
            LOG.warning(f"seqrl: {text}{remedy}", f"{longest:,}")
