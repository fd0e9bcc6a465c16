"""Time: the loop, evaluation, logging, checkpoints, statistics.

Names are imported at their first use: TensorBoard's packages alone take 0.2 s.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqrl.training.engines.choice import executor
    from seqrl.training.engines.executor import Executor, Job, Processes, Result
    from seqrl.training.loop.books import Episode
    from seqrl.training.loop.evaluation import Evaluation, evaluate
    from seqrl.training.loop.fit import fit
    from seqrl.training.loop.interaction import Interaction
    from seqrl.training.loop.protocol import Callback, Recorder
    from seqrl.training.loop.scalars import Scalars
    from seqrl.training.loop.train import Logger, results, run_to, train
    from seqrl.training.runs.conversation import Conversation
    from seqrl.training.runs.offline import load_recordings
    from seqrl.training.runs.policy import Policy, load
    from seqrl.training.runs.presets import Preset, preset
    from seqrl.training.runs.run_one import Summary, run
    from seqrl.training.runs.seeds import Runs, train_seeds
    from seqrl.training.runs.tensorboard import TensorBoard
    from seqrl.training.runs.warm_start import warm_start
    from seqrl.training.search.again import run_best
    from seqrl.training.search.search import Search

__all__ = [
    "Callback",
    "Conversation",
    "Episode",
    "Evaluation",
    "Executor",
    "Interaction",
    "Job",
    "Logger",
    "Policy",
    "Preset",
    "Processes",
    "Recorder",
    "Result",
    "Runs",
    "Scalars",
    "Search",
    "Summary",
    "TensorBoard",
    "evaluate",
    "executor",
    "fit",
    "load",
    "load_recordings",
    "preset",
    "results",
    "run",
    "run_best",
    "run_to",
    "train",
    "train_seeds",
    "warm_start",
]

FILES = {
    "loop.books": ("Episode",),
    "loop.evaluation": ("Evaluation", "evaluate"),
    "loop.fit": ("fit",),
    "loop.interaction": ("Interaction",),
    "loop.protocol": ("Callback", "Recorder"),
    "loop.scalars": ("Scalars",),
    "loop.train": ("Logger", "results", "run_to", "train"),
    "runs.conversation": ("Conversation",),
    "engines.choice": ("executor",),
    "engines.executor": ("Executor", "Job", "Processes", "Result"),
    "runs.offline": ("load_recordings",),
    "runs.policy": ("Policy", "load"),
    "runs.presets": ("Preset", "preset"),
    "runs.run_one": ("Summary", "run"),
    "runs.seeds": ("Runs", "train_seeds"),
    "runs.tensorboard": ("TensorBoard",),
    "runs.warm_start": ("warm_start",),
    "search.again": ("run_best",),
    "search.search": ("Search",),
}


def __getattr__(name: str) -> Any:
    for file, names in FILES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
