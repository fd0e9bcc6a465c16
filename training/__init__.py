"""Time: the loop, evaluation, logging, checkpoints, statistics."""

from typing import Any

from seqrl.training.evaluation import Evaluation, evaluate
from seqrl.training.interaction import Callback, Episode, Interaction, Recorder
from seqrl.training.many import Runs, train_many
from seqrl.training.training import Logger, results, run, train

__all__ = [
    "Callback",
    "Episode",
    "Evaluation",
    "Interaction",
    "Logger",
    "Recorder",
    "Runs",
    "TensorBoard",
    "evaluate",
    "results",
    "run",
    "train",
    "train_many",
]


def __getattr__(name: str) -> Any:
    """TensorBoard's packages take 0.2 s to import; only who logs pays."""
    if name == "TensorBoard":
        from seqrl.training.tensorboard import TensorBoard

        return TensorBoard
    raise AttributeError(name)
