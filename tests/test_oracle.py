"""What could have been reached: the optimum beside what an evaluation brought."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from seqrl.agents import EpsilonGreedy, QLearning, TableIndex
from seqrl.core import Decision
from seqrl.envs import Serial, make
from seqrl.envs.finite import FiniteMDP
from seqrl.training import Interaction
from seqrl.training.loop.evaluation import Evaluator
from seqrl.training.loop.oracle import Oracle, optimal_policy
from seqrl.training.pictures.as_text import draw_policy, show_table

# state 0: action 0 stays and pays 1, action 1 pays 5 and ends in state 1; 2 is never reached
P = [
    [[(1.0, 0, 1.0, False)], [(1.0, 1, 5.0, True)]],
    [[(1.0, 1, 0.0, True)], [(1.0, 1, 0.0, True)]],
    [[(1.0, 2, 9.0, False)], [(1.0, 2, 9.0, False)]],
]
INITIAL = [1.0, 0.0, 0.0]


def task(limit=3):
    env = FiniteMDP(P, INITIAL)
    return Serial([TimeLimit(env, limit) if limit else env])


def table(envs, q=None, **numbers):
    agent = QLearning(envs.single_observation_space, envs.single_action_space, **numbers)
    if q is not None:
        agent.q[:] = q
    return agent


class Log:
    def __init__(self):
        self.found = {}

    def scalars(self, step, values):
        self.found = dict(values)


def evaluated(envs, agent):
    log = Log()
    evaluator = Evaluator(envs, 4, every=10, logger=log)
    evaluator(Interaction(agent, envs))
    return log.found


def test_optimum_and_regret_by_hand():
    """Three steps: stay twice and leave, 1 + 1 + 5; who leaves at once gets 5."""
    envs = task()
    found = evaluated(envs, table(envs, q=[[0, 1], [0, 0], [0, 0]]))
    assert found["eval/mean_reward"] == 5
    assert found["eval/optimal_return"] == 7
    assert found["eval/regret"] == 2


class Leaving:
    """No table at all."""

    def act(self, obs, start, state=None, *, explore=True):
        return Decision(np.ones(len(start), int))


def test_any_agent_is_measured():
    found = evaluated(task(), Leaving())
    assert found["eval/regret"] == 2
    assert "eval/value_error" not in found


def test_value_error_by_hand():
    """v*(0) = max(5, 1 / (1 - gamma)): 5 at gamma .5; only state 0 is ever asked."""
    envs = task()
    agent = table(envs, q=[[0, 3], [77, 77], [88, 88]], gamma=0.5)
    assert evaluated(envs, agent)["eval/value_error"] == pytest.approx(2)
    agent = table(envs, q=[[9.5, 3], [77, 77], [88, 88]], gamma=0.9)
    assert evaluated(envs, agent)["eval/value_error"] == pytest.approx(0.5)


def test_value_error_is_a_root_mean_square():
    chain = [[[(1.0, 1, 0.0, False)]], [[(1.0, 2, 1.0, True)]], [[(1.0, 2, 0.0, True)]]]
    envs = Serial([FiniteMDP(chain, INITIAL)])
    agent = table(envs, q=[[0.5 + 3], [1 + 4], [50]], gamma=0.5)
    found = Oracle.of(envs).metrics(agent, 0.0)
    assert found == {"value_error": pytest.approx(math.sqrt((3**2 + 4**2) / 2))}


@pytest.mark.parametrize("limit", [3, None])
def test_undiscounted_tables_have_no_value_error(limit):
    envs = task(limit)
    found = Oracle.of(envs).metrics(table(envs, gamma=1.0), 0.0)
    assert set(found) == ({"optimal_return", "regret"} if limit else set())


def test_tables_of_other_states_have_no_value_error():
    agent = QLearning(TableIndex(gym.spaces.Discrete(9)), gym.spaces.Discrete(2))
    assert Oracle.of(task()).value_error(agent) is None


@pytest.mark.parametrize("env", ["Blackjack-v1", "CartPole-v1"])
def test_without_a_model_there_is_nothing_to_say(env):
    assert Oracle.of(make(env)) is None
    assert Oracle.of(make("CartPole-v1", 2)) is None


def test_what_would_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr("seqrl.training.loop.oracle.EFFORT", 17)
    assert Oracle.of(task(limit=3)).optimal_return() is None  # 3 states x 2 actions x 3 steps
    monkeypatch.setattr("seqrl.training.loop.oracle.EFFORT", 18)
    assert Oracle.of(task(limit=3)).optimal_return() == 7


def test_a_trained_table_comes_close_to_the_optimum():
    envs = make("FrozenLake-v1", is_slippery=False)
    rates = {"learning_rate": 0.5, "exploration": EpsilonGreedy(0.5)}
    agent = table(envs, gamma=0.9, seed=1, **rates)
    before = Oracle.of(envs).value_error(agent)
    Interaction(agent, envs).run(20_000)
    found = evaluated(envs, agent)
    assert found["eval/optimal_return"] == 1
    assert found["eval/regret"] == 0
    assert found["eval/value_error"] < 1e-3 < before


def test_the_optimal_policy():
    env = task().envs[0]
    assert optimal_policy(env, 0.5, 99).tolist()[0] == 1
    assert optimal_policy(env, 0.9, 99).tolist()[0] == 0
    assert optimal_policy(env, 1.0, 99).tolist()[0] == 0
    assert optimal_policy(task(None).envs[0], 1.0, 1).tolist()[0] == 1
    assert optimal_policy(gym.make("Blackjack-v1"), 0.9, 9) is None


CLIFF = """\
  learned                    optimal
  ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑    → → → → → → → → → → → ↓
  ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑    → → → → → → → → → → → ↓
  ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑ ↑    → → → → → → → → → → → ↓
  ↑ C C C C C C C C C C G    ↑ C C C C C C C C C C G"""


@pytest.mark.parametrize("gamma", [0.99, 1.0])
def test_the_picture_shows_the_optimum_beside_what_was_learned(gamma):
    envs = make("CliffWalking-v1")
    agent = table(envs, gamma=gamma)
    assert draw_policy(agent, envs) == CLIFF
    assert CLIFF in show_table(agent, envs)


def test_without_a_known_model_the_picture_is_the_learned_one():
    envs = Serial([gym.wrappers.RecordEpisodeStatistics(gym.make("FrozenLake-v1"))])
    drawn = draw_policy(table(envs), envs)
    assert "optimal" not in drawn
    assert drawn.splitlines()[0] == "  ← ← ← ←"
