"""Time: the loop, evaluation, logging, checkpoints, statistics."""

from importlib import import_module
from typing import Any

from seqrl.training.loop.books import Episode
from seqrl.training.loop.evaluation import Evaluation, evaluate
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.protocol import Callback, Recorder
from seqrl.training.loop.scalars import Scalars
from seqrl.training.loop.train import Logger, results, run_to, train
from seqrl.training.runs.seeds import Runs, train_seeds

__all__ = [
    "Callback",
    "Episode",
    "Evaluation",
    "Interaction",
    "Logger",
    "Policy",
    "Recorder",
    "Runs",
    "Scalars",
    "TensorBoard",
    "evaluate",
    "load",
    "results",
    "run_to",
    "train",
    "train_seeds",
]


LAZY = {
    "Policy": "seqrl.training.runs.policy",
    "TensorBoard": "seqrl.training.runs.tensorboard",
    "load": "seqrl.training.runs.policy",
}


def __getattr__(name: str) -> Any:
    """TensorBoard's packages take 0.2 s to import; only who logs or loads a run pays."""
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(name)
