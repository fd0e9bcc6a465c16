"""Who decides and learns."""

from seqrl.agents.exploration import Boltzmann, EpsilonGreedy, Exploration
from seqrl.agents.indexing import TableIndex
from seqrl.agents.monte_carlo import MonteCarlo
from seqrl.agents.protocol import Agent
from seqrl.agents.q_learning import QLearning
from seqrl.agents.sarsa import Sarsa
from seqrl.agents.schedules import Rate, Schedule, exponential, inverse, linear

__all__ = [
    "Agent",
    "Boltzmann",
    "EpsilonGreedy",
    "Exploration",
    "MonteCarlo",
    "QLearning",
    "Rate",
    "Sarsa",
    "Schedule",
    "TableIndex",
    "exponential",
    "inverse",
    "linear",
]
