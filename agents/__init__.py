"""Who decides and learns. Agents on networks are imported when asked for: tables need no torch."""

from typing import TYPE_CHECKING, Any

from seqrl.agents.exploration import Boltzmann, EpsilonGreedy, Exploration
from seqrl.agents.indexing import TableIndex
from seqrl.agents.monte_carlo import MonteCarlo
from seqrl.agents.protocol import Agent
from seqrl.agents.q_learning import QLearning
from seqrl.agents.sarsa import Sarsa
from seqrl.agents.schedules import Rate, Schedule, exponential, inverse, linear

if TYPE_CHECKING:
    from seqrl.agents.reinforce import Reinforce
    from seqrl.agents.value import ValueAgent

__all__ = [
    "Agent",
    "Boltzmann",
    "EpsilonGreedy",
    "Exploration",
    "MonteCarlo",
    "QLearning",
    "Rate",
    "Reinforce",
    "Sarsa",
    "Schedule",
    "TableIndex",
    "ValueAgent",
    "exponential",
    "inverse",
    "linear",
]


def __getattr__(name: str) -> Any:
    if name == "Reinforce":
        from seqrl.agents.reinforce import Reinforce

        return Reinforce
    if name == "ValueAgent":
        from seqrl.agents.value import ValueAgent

        return ValueAgent
    raise AttributeError(f"module {__name__} has no attribute {name}")
