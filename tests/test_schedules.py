"""Rates over a run, by hand."""

import math
from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrl.agents import (
    PPO,
    Boltzmann,
    DeepQ,
    EpsilonGreedy,
    MonteCarlo,
    Optim,
    QLearning,
    Reinforce,
    Sarsa,
    Schedule,
    exponential,
    inverse,
    linear,
)
from seqrl.agents.schedules import KINDS, parse, rate, schedule
from seqrl.core import UsageError
from seqrl.envs import make
from seqrl.networks import build
from seqrl.training import Interaction, train


def test_constant() -> None:
    fixed = schedule("epsilon", 0.3)
    assert [fixed(step, 100) for step in (0, 50, 1000)] == [0.3] * 3


def test_linear() -> None:
    """From 1 to 1/2 over half of 100 steps."""
    falling = linear(1, 0.5, 0.5)
    assert [falling(step, 100) for step in (0, 10, 25, 50, 51, 100)] == [
        1,
        0.9,
        0.75,
        0.5,
        0.5,
        0.5,
    ]
    assert linear(0, 1)(30, 40) == 0.75


def test_exponential() -> None:
    """From 1 to 1/16 over 100 steps: a factor of 1/2 every 25."""
    falling = exponential(1, 1 / 16)
    values = [falling(step, 100) for step in (0, 25, 50, 75, 100, 200)]
    assert values == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16], rel=1e-14)


def test_inverse() -> None:
    """From 1 to 1/5 over 8 steps: 1 / (1 + t/2)."""
    falling = inverse(1, 0.2, 8)
    values = [falling(step) for step in (0, 2, 4, 8, 9)]
    assert values == pytest.approx([1, 1 / 2, 1 / 3, 1 / 5, 1 / 5], rel=1e-14)


def test_cosine() -> None:
    """Half a wave from 1 to 0: slow at both ends."""
    values = [Schedule("cosine", 1, 0)(step, 8) for step in (0, 2, 4, 6, 8, 9)]
    assert values == pytest.approx([1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0, 0], abs=1e-15)


def test_step() -> None:
    """Ten halvings from 1 to 1/1024 over 100 steps, each at the end of its tenth."""
    falling = Schedule("step", 1, 2**-10)
    values = [falling(step, 100) for step in (0, 9, 10, 19, 55, 99, 100, 200)]
    powers = [0, 0, 1, 1, 5, 9, 10, 10]
    assert values == pytest.approx([2.0**-power for power in powers], rel=1e-12)


def test_length() -> None:
    """A share of the run up to 1, above that env steps; without a horizon a share never passes."""
    assert linear(1, 0, 1.0)(500, 1000) == 0.5
    assert linear(1, 0, 10)(5, 1000) == linear(1, 0, 10)(5) == 0.5
    assert linear(1, 0, 0.5)(10**9) == 1
    assert linear(1, 0, 0.5)(1, 1) == 0  # never shorter than a step
    assert linear(1, 0, math.inf)(10**9, 1000) == 1


@given(
    st.sampled_from(KINDS),
    *[st.floats(1e-6, 1)] * 2,
    st.floats(0.01, 1e7),
    st.integers(0, 10**7),
)
def test_between_its_ends(kind: str, start: float, end: float, over: float, step: int) -> None:
    value = Schedule(kind, start, end, over)(step, 10**6)
    low, high = (start, start) if kind == "constant" else sorted((start, end))
    assert low * (1 - 1e-9) <= value <= high * (1 + 1e-9)


@given(st.sampled_from(KINDS[1:]), *[st.floats(1e-9, 1)] * 2, st.floats(1e-3, 1e9))
def test_text_and_back(kind: str, start: float, end: float, over: float) -> None:
    """Exact: a stored run is built again from the text."""
    made = Schedule(kind, start, end, over)
    assert parse("epsilon", str(made)) == made
    assert parse("epsilon", str(schedule("epsilon", start))) == schedule("epsilon", start)


def test_texts() -> None:
    assert schedule("epsilon", "0.25") == Schedule("constant", 0.25, 0.25)
    assert schedule("epsilon", "linear:1:0.05:0.5") == linear(1, 0.05, 0.5)
    assert schedule("epsilon", "inverse:1:0.1") == inverse(1, 0.1, 1)
    assert str(linear(1, 0.05, 1_234_567)) == "linear:1:0.05:1234567"
    assert str(schedule("epsilon", 0.1)) == "0.1"


@pytest.mark.parametrize(
    "value, named",
    [
        (-1, "epsilon -1: expected a number from 0 to 1"),
        (1.1, "epsilon 1.1: expected"),
        (float("nan"), "epsilon nan: expected"),
        (linear(1, 2), "epsilon 2: expected"),
        (linear(1, 0, 0), "length must be above 0"),
        (linear(1, 0, -5), "length must be above 0"),
        (linear(1, 0, float("nan")), "length must be above 0"),
        (exponential(1, 0), "exponential schedule needs both ends above 0"),
        (inverse(0, 1), "inverse schedule needs both ends above 0"),
        (Schedule("cubic", 1, 0), "epsilon cubic:1:0:1: expected one of constant, linear"),
        ("lineal:1:0", "'lineal:1:0': expected a number or a schedule such as linear"),
        ("linear:1", "'linear:1'"),
        ("linear:1:0:1:1", "'linear:1:0:1:1'"),
        ("linear:1:x", "'linear:1:x'"),
        ("constant:1:1", "'constant:1:1'"),
        ("much", "'much'"),
        ("", "epsilon ''"),
        (None, "'None'"),
    ],
)
def test_wrong_rates_are_refused(value: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        EpsilonGreedy(value)


def test_wrong_temperatures_are_refused() -> None:
    assert Boltzmann(50).rate(0) == 50
    for value in (0, -1, float("nan"), float("inf"), linear(1, 0)):
        with pytest.raises(UsageError, match=r"temperature .* from 1e-100"):
            Boltzmann(value)


def test_a_rate_is_a_plain_function_of_numbers() -> None:
    """What the agents call; the kind is its place in the list of names."""
    for kind, name in enumerate(KINDS):
        assert rate(kind, 1.0, 0.5, 10.0, 5) == Schedule(name, 1, 0.5, 10)(5)


def test_agents_count_env_steps_against_their_horizon() -> None:
    agent = QLearning(gym.spaces.Discrete(2), gym.spaces.Discrete(2))
    readings: dict[str, Any] = dict(agent.last_metrics)
    look = ("train/learning_rate", "rollout/exploration_rate")
    for horizon, before, steps, expected in (
        (None, 0, 500, (0.1, 1.0)),
        (1000, 0, 250, (0.0775, 0.525)),
        (1000, 0, 500, (0.055, 0.05)),
        (1000, 0, 2000, (0.01, 0.05)),
        (1000, 700, 950, (0.0775, 0.525)),  # begun anew after 700 steps
    ):
        agent.steps = before
        agent.horizon = horizon
        agent.steps = steps
        assert [readings[tag]() for tag in look] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("agent_class", [QLearning, Sarsa, MonteCarlo, Reinforce, PPO, DeepQ])
def test_schedules_run_over_each_call(agent_class: Any) -> None:
    """The learning rate of a second call begins where that of the first did, and is saved."""
    envs = make("FrozenLake-v1")
    space, actions = envs.single_observation_space, envs.single_action_space
    on_table = agent_class in (QLearning, Sarsa, MonteCarlo)
    rates: dict[str, Any] = {"learning_rate": "linear:0.1:0"}
    if not on_table:
        rates = {"optim": Optim("linear:0.1:0", max_grad_norm=1.0)}
    network = () if on_table else (build("mlp", space, seed=0),)
    others = (space, actions) if on_table else (actions, space)
    agent = agent_class(*network, *others, **rates, seed=0)

    def now() -> float:
        return float(agent.learning_rate(agent.steps - agent.origin, agent.horizon))

    for call in range(3):
        seen = Rates(now)
        train(agent, envs, 500, seed=call, callbacks=[seen])
        assert seen.rates == pytest.approx([0.08, 0.06, 0.04, 0.02, 0]), call
        assert (agent.origin, agent.steps) == (500 * call, 500 * call + 500)
    kept = agent.state_dict()
    assert (kept["origin"], kept["horizon"]) == (1000, 500)
    again = agent_class(*network, *others, **rates, seed=0)
    again.load_state_dict(kept)
    assert (again.origin, again.horizon, again.steps) == (1000, 500, 1500)


def test_a_loop_without_a_horizon_schedules_over_its_first_run() -> None:
    envs = make("FrozenLake-v1")
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    loop = Interaction(agent, envs)
    loop.run(300)
    assert (agent.origin, agent.horizon) == (0, 300)
    assert float(agent.last_metrics["rollout/exploration_rate"]()) == pytest.approx(0.05)
    loop.run(100)
    assert (agent.origin, agent.horizon) == (0, 300)


class Rates:
    """A callback that reads a rate every 100 env steps."""

    every = 100

    def __init__(self, now: Any):
        self.now, self.rates = now, []

    def __call__(self, loop: Interaction) -> None:
        self.rates.append(self.now())
