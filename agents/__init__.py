"""Who decides and learns. Agents on networks are imported when asked for: tables need no torch."""

from typing import TYPE_CHECKING, Any

from seqrl.agents.protocol import Agent
from seqrl.agents.schedules import Rate, Schedule, exponential, inverse, linear
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.monte_carlo import MonteCarlo
from seqrl.agents.tabular.policy import Boltzmann, EpsilonGreedy, Exploration
from seqrl.agents.tabular.q_learning import QLearning
from seqrl.agents.tabular.sarsa import Sarsa

if TYPE_CHECKING:
    from seqrl.agents.deep.reinforce import Reinforce
    from seqrl.agents.deep.value_agent import ValueAgent

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
        from seqrl.agents.deep.reinforce import Reinforce

        return Reinforce
    if name == "ValueAgent":
        from seqrl.agents.deep.value_agent import ValueAgent

        return ValueAgent
    raise AttributeError(f"module {__name__} has no attribute {name}")
