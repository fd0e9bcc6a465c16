"""Reinforcement learning and sequence agents in one training loop.

The rooms are imported by name: `seqrl.agents`, `seqrl.envs`, `seqrl.networks`, `seqrl.training`.
The functions used most are here as well; they are imported at their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqrl.training.loop.evaluation import evaluate
    from seqrl.training.loop.fit import fit
    from seqrl.training.loop.train import train
    from seqrl.training.runs.policy import load
    from seqrl.training.runs.run_one import run

    __version__: str

__all__ = ["__version__", "evaluate", "fit", "load", "run", "train"]

MODULES = {
    "evaluate": "seqrl.training.loop.evaluation",
    "fit": "seqrl.training.loop.fit",
    "load": "seqrl.training.runs.policy",
    "run": "seqrl.training.runs.run_one",
    "train": "seqrl.training.loop.train",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("seqrl")
    raise AttributeError(f"module {__name__} has no attribute {name}")
