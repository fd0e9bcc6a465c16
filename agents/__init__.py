"""Who decides and learns. Names are imported when first asked for: tables need no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqrl.agents.decoding.beam import Beam
    from seqrl.agents.decoding.sampling import Sampling
    from seqrl.agents.deep.deep_monte_carlo import DeepMonteCarlo
    from seqrl.agents.deep.deep_q import DeepQ, ReplaySettings
    from seqrl.agents.deep.deep_sarsa import DeepSarsa
    from seqrl.agents.deep.imitation import Imitation
    from seqrl.agents.deep.optim import Optim
    from seqrl.agents.deep.policy_agent import PolicyAgent
    from seqrl.agents.deep.ppo import PPO
    from seqrl.agents.deep.regularisation import Regularisation
    from seqrl.agents.deep.reinforce import Reinforce
    from seqrl.agents.deep.sac import SAC
    from seqrl.agents.deep.value_agent import TargetNetwork, Updates, ValueAgent
    from seqrl.agents.deep.warm_start import WarmStart
    from seqrl.agents.experience.dataset import Dataset
    from seqrl.agents.experience.recording import Recording
    from seqrl.agents.experience.replay import Sequences
    from seqrl.agents.protocol import Agent
    from seqrl.agents.schedules import Rate, Schedule, exponential, inverse, linear
    from seqrl.agents.tabular.indexing import TableIndex
    from seqrl.agents.tabular.monte_carlo import MonteCarlo
    from seqrl.agents.tabular.policy import Boltzmann, EpsilonGreedy, Exploration
    from seqrl.agents.tabular.q_learning import QLearning
    from seqrl.agents.tabular.sarsa import Sarsa
    from seqrl.agents.teachers import AgentTeacher, Teacher

MODULES = {
    "Agent": "seqrl.agents.protocol",
    "AgentTeacher": "seqrl.agents.teachers",
    "Beam": "seqrl.agents.decoding.beam",
    "Boltzmann": "seqrl.agents.tabular.policy",
    "Dataset": "seqrl.agents.experience.dataset",
    "DeepMonteCarlo": "seqrl.agents.deep.deep_monte_carlo",
    "DeepQ": "seqrl.agents.deep.deep_q",
    "DeepSarsa": "seqrl.agents.deep.deep_sarsa",
    "EpsilonGreedy": "seqrl.agents.tabular.policy",
    "Exploration": "seqrl.agents.tabular.policy",
    "Imitation": "seqrl.agents.deep.imitation",
    "MonteCarlo": "seqrl.agents.tabular.monte_carlo",
    "Optim": "seqrl.agents.deep.optim",
    "PPO": "seqrl.agents.deep.ppo",
    "PolicyAgent": "seqrl.agents.deep.policy_agent",
    "QLearning": "seqrl.agents.tabular.q_learning",
    "Rate": "seqrl.agents.schedules",
    "Regularisation": "seqrl.agents.deep.regularisation",
    "Recording": "seqrl.agents.experience.recording",
    "Reinforce": "seqrl.agents.deep.reinforce",
    "ReplaySettings": "seqrl.agents.deep.deep_q",
    "SAC": "seqrl.agents.deep.sac",
    "Sampling": "seqrl.agents.decoding.sampling",
    "Sarsa": "seqrl.agents.tabular.sarsa",
    "Schedule": "seqrl.agents.schedules",
    "Sequences": "seqrl.agents.experience.replay",
    "TableIndex": "seqrl.agents.tabular.indexing",
    "Teacher": "seqrl.agents.teachers",
    "TargetNetwork": "seqrl.agents.deep.value_agent",
    "Updates": "seqrl.agents.deep.value_agent",
    "ValueAgent": "seqrl.agents.deep.value_agent",
    "WarmStart": "seqrl.agents.deep.warm_start",
    "exponential": "seqrl.agents.schedules",
    "inverse": "seqrl.agents.schedules",
    "linear": "seqrl.agents.schedules",
}

__all__ = [
    "PPO",
    "SAC",
    "Agent",
    "AgentTeacher",
    "Beam",
    "Boltzmann",
    "Dataset",
    "DeepMonteCarlo",
    "DeepQ",
    "DeepSarsa",
    "EpsilonGreedy",
    "Exploration",
    "Imitation",
    "MonteCarlo",
    "Optim",
    "PolicyAgent",
    "QLearning",
    "Rate",
    "Recording",
    "Regularisation",
    "Reinforce",
    "ReplaySettings",
    "Sampling",
    "Sarsa",
    "Schedule",
    "Sequences",
    "TableIndex",
    "TargetNetwork",
    "Teacher",
    "Updates",
    "ValueAgent",
    "WarmStart",
    "exponential",
    "inverse",
    "linear",
]


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
