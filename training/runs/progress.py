"""The callback that shows a progress bar with return, speed and time left."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from seqrl.training.loop.interaction import Interaction


class Progress:
    """A callback that draws a progress bar on stderr."""

    def __init__(self, steps: int):
        self.every = max(1, steps // 500)
        self.bar = tqdm(total=steps, unit=" steps", unit_scale=True, leave=False, file=sys.stderr)

    @classmethod
    def on_terminal(cls, steps: int) -> list[Progress]:
        """Return one bar where stderr is a terminal, else none."""
        return [cls(steps)] if sys.stderr.isatty() else []

    def __call__(self, loop: Interaction) -> None:
        """Show the mean return and the env steps done."""
        if loop.books.recent:
            self.bar.set_postfix_str(f"return {loop.books.ep_rew_mean:.4g}", refresh=False)
        self.bar.update(loop.steps - self.bar.n)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: no run depends on it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
