"""Time: the loop, evaluation, logging, checkpoints, statistics."""

from typing import Any

from seqrl.training.loop.books import Episode
from seqrl.training.loop.evaluation import Evaluation, evaluate
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback, Recorder
from seqrl.training.loop.train import Logger, results, run, train
from seqrl.training.runs.seeds import Runs, train_seeds

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
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    """TensorBoard's packages take 0.2 s to import; only who logs pays."""
    if name == "TensorBoard":
        from seqrl.training.runs.tensorboard import TensorBoard

        return TensorBoard
    raise AttributeError(name)
