"""The callback that ends a run by its evaluations and saves the best agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from seqrl.training.loop.evaluation import Evaluator
from seqrl.training.loop.interaction import Interaction


class EarlyStopping:
    """A callback that saves the best agent of all evaluations and ends the run early.

    `stop_at`: the mean return at which the run ends. `patience`: evaluations in a row without a
    better mean after which it ends. The evaluation that ended it was chosen by its luck: the agent
    is evaluated again, on fresh episodes, and that is the run's last one. Call it right after the
    evaluator.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        save_best: Callable[[Interaction], None],
        *,
        stop_at: float | None = None,
        patience: int | None = None,
    ):
        self.every, self.evaluator, self.save_best = evaluator.every, evaluator, save_best
        self.stop_at, self.patience = stop_at, patience
        self.best_mean, self.waited = -np.inf, 0
        self.reason = ""  # why the run ended early, "" while it goes on

    def __call__(self, loop: Interaction) -> None:
        """Save the run if the last evaluation is the best one, and end it where that is due."""
        assert self.evaluator.last is not None
        mean = self.evaluator.last[1].mean
        better = mean > self.best_mean
        reason = self._reason(mean, 0 if better else self.waited + 1)
        if reason:
            fresh = self.evaluator.again(loop).mean
            reason += f", {fresh:.6g} on fresh episodes"
        # not before, for an evaluation may be interrupted and this be called once more
        self.best_mean, self.waited = max(mean, self.best_mean), 0 if better else self.waited + 1
        self.reason = reason
        loop.stopped = loop.stopped or bool(reason)
        if better:
            self.save_best(loop)

    def _reason(self, mean: float, waited: int) -> str:
        """Return why the run ends by an evaluation, after as many that were not better; or ""."""
        if self.stop_at is not None and mean >= self.stop_at:
            return f"evaluation {mean:.6g} reached {self.stop_at:g}"
        if self.patience is not None and waited >= self.patience:
            return f"no better evaluation than {self.best_mean:.6g} in {waited}"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return the best mean, the evaluations since and the reason to end."""
        return {"mean": float(self.best_mean), "waited": self.waited, "ended": self.reason}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best_mean, self.waited, self.reason = state["mean"], state["waited"], state["ended"]
