"""The callback that shows a progress bar with return, speed and time left."""

from __future__ import annotations

import sys

from tqdm import tqdm

from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback


class Progress(Callback):
    """A callback that draws a progress bar on stderr."""

    def __init__(self, steps: int):
        self.every = max(1, steps // 500)
        self.bar = tqdm(total=steps, unit=" steps", unit_scale=True, leave=False, file=sys.stderr)

    def __call__(self, loop: Interaction) -> None:
        """Show the mean return and the env steps done."""
        if loop.books.recent:
            self.bar.set_postfix_str(f"return {loop.books.ep_rew_mean:.4g}", refresh=False)
        self.bar.update(loop.steps - self.bar.n)
