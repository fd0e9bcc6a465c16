"""The callback that draws a run's curve of evaluations, in a twentieth of its time."""

from __future__ import annotations

import math
from typing import Any

from seqrl.agents.protocol import Agent
from seqrl.envs.adapter import Environments
from seqrl.envs.making import time_limit
from seqrl.training.loop.evaluation import CUT, Evaluator, Player, Share
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback

POINTS = 20  # a run, the final evaluation among them
TIME_SHARE = 0.05  # of a run's time that its curve may take, the final evaluation apart
MARGIN = 2  # times as long as expected may the episodes of a point be
GUESS = 2  # times as long as those of training, where none was played greedily
LEARNING = 0.2  # of the time of a turn of one environment that it takes to learn from a step once
SMALL, SMALL_ON_GPU = 64, 4  # batches up to which that time grows with their size


class EvaluationCurve(Callback):
    """A callback that evaluates a run as often and with as many episodes as its time allows.

    The allowance is counted in env steps, so that it is the same every time; what they cost was
    measured on small networks (see `price_of`). How many episodes a point has is settled before
    they are played, by the lengths of earlier ones: to stop after the first short ones would count
    these more. A point that has no room for one is left out, and what is not used is there for the
    next. `envs`: a single one, the curve's own.
    """

    def __init__(self, evaluator: Evaluator, envs: Environments, *, steps: int, price: float = 1.0):
        self.evaluator, self.steps, self.player = evaluator, steps, Player(envs)
        self.share = TIME_SHARE * price  # of the env steps trained
        self.every = -(-steps // POINTS)  # rounded up
        self.limit = min(CUT, time_limit(self.player.envs) or CUT)  # of an episode
        self.spent = 0  # env steps played
        self.length = 0.0  # mean of the last episodes, 0 for unknown

    def __call__(self, loop: Interaction) -> None:
        """Log a point of `eval/` where there is room for one."""
        room = int(self.share * loop.steps) - self.spent
        length = self._longest(loop)
        episodes = int(min(self.evaluator.episodes, room / length))
        if episodes < 1 or loop.steps >= self.steps:  # the final evaluation stands there
            return
        share, seed = Share(episodes, 1), self.evaluator.seed
        self.spent += self.evaluator.play(loop, self.player, share, seed, room)
        if any(share.left):  # longer than expected by far
            self.length = max(length, room / (1 + len(share.episodes)))
            return
        found = share.evaluation
        self.length = float(found.lengths.mean())
        self.evaluator.log(loop, found)

    def _longest(self, loop: Interaction) -> float:
        """Return how long greedy episodes may be in the mean."""
        trained = loop.books.ep_len_mean  # NaN where none has ended
        known = max(self.length, trained) if self.length else GUESS * trained
        return self.limit if math.isnan(known) else min(self.limit, MARGIN * known)

    def state_dict(self) -> dict[str, Any]:
        """Return what was spent, and the length to expect."""
        return {"spent": self.spent, "length": self.length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.spent, self.length = int(state["spent"]), float(state["length"])


def price_of(agent: Agent, num_envs: int) -> float:
    """Return what an env step of training costs at least, in turns played in one environment."""
    small = SMALL if str(agent.device) == "cpu" else SMALL_ON_GPU
    learned = LEARNING * getattr(agent, "passes", 1.0) * min(num_envs, small)
    return (1.0 + learned) / num_envs
