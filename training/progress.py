"""A progress bar with return, speed and time left."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from seqrl.training.interaction import Interaction


class Progress:
    """A callback that draws; `on_terminal` gives none where nobody watches."""

    def __init__(self, steps: int):
        self.every = max(1, steps // 500)
        self.bar = tqdm(total=steps, unit=" steps", unit_scale=True, leave=False, file=sys.stderr)

    @classmethod
    def on_terminal(cls, steps: int) -> list[Progress]:
        """One bar where stderr is a terminal, else none."""
        return [cls(steps)] if sys.stderr.isatty() else []

    def __call__(self, loop: Interaction) -> None:
        """Show where the run is."""
        if loop.recent:
            mean = sum(total for total, _ in loop.recent) / len(loop.recent)
            self.bar.set_postfix_str(f"return {mean:.4g}", refresh=False)
        self.bar.update(loop.steps - self.bar.n)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Nothing that a run depends on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
