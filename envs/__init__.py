"""Making, adapting and saving Gymnasium environments, and our own environments."""

from seqrl.envs.action_mask import ActionMask
from seqrl.envs.adapter import Environments, Outcome, Serial, Vector, adapt
from seqrl.envs.finite import FiniteMDP, garnet
from seqrl.envs.making import find, make, may_never_end, time_limit
from seqrl.envs.mask import Mask
from seqrl.envs.reconstruction import Reconstruction
from seqrl.envs.reference import reference_scores
from seqrl.envs.registry import register_all
from seqrl.envs.return_wanted import ReturnWanted
from seqrl.envs.state import get_state, set_state
from seqrl.envs.workers import Workers

register_all()

__all__ = [
    "ActionMask",
    "Environments",
    "FiniteMDP",
    "Mask",
    "Outcome",
    "Reconstruction",
    "ReturnWanted",
    "Serial",
    "Vector",
    "Workers",
    "adapt",
    "find",
    "garnet",
    "get_state",
    "make",
    "may_never_end",
    "reference_scores",
    "set_state",
    "time_limit",
]
