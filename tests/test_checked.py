"""Arguments of agents: what is wrong is told in one line that names it."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest

import seqrl
from seqrl.agents import QLearning
from seqrl.agents.arguments import agent_arguments, agent_parameters, arguments
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.regularisation import Regularisation
from seqrl.agents.experience.replay import Sequences
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.core.errors import UsageError
from seqrl.networks import MLP
from seqrl.scripts import train

NUMBERS, ACTIONS = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)
FORMS = [(n, net) for n, entry in AGENTS.items() for net in (False, True) if net or entry.table]
WRONG = ["x", None, [1], {"a": 1}, -1, math.nan, math.inf, True, 1.5, 10**400, b"x", "", np.ones(2)]


def made(name, network, **given):
    cls = agent_class(name, network)
    given, actions = arguments(cls, given), NUMBERS if name == "sac" else ACTIONS
    parts = (MLP(NUMBERS, [4]), actions, NUMBERS) if network else (gym.spaces.Discrete(4), ACTIONS)
    return cls(*parts, **given)


@pytest.mark.parametrize(("name", "network"), FORMS)
def test_every_number_is_taken_or_refused_in_a_line(name, network):
    for argument in agent_parameters(agent_class(name, network)):
        for value in WRONG:
            try:
                made(name, network, **{argument: value})
            except UsageError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "network", "given", "told"),
    [
        ("ppo", True, {"gamma": "0.9"}, r"gamma '0.9': expected a number"),
        ("ppo", True, {"epochs": 2.5}, r"epochs 2.5: expected a whole number"),
        ("ppo", True, {"share": "yes"}, r"share 'yes': expected True or False"),
        ("q-learning", True, {"optimizer": 3}, r"optimizer 3: expected a text"),
        ("sarsa", False, {"initial_value": [0]}, r"initial_value \[0\]: expected a number"),
        ("q-learning", True, {"gama": 0.5}, r"DeepQ has no argument gama. Did you mean \"gamma\""),
        (
            "ppo",
            True,
            {"target_kl": 0.1, "epochs": 1, "minibatches": 1},
            r"target_kl 0.1: with one",
        ),
        ("q-learning", False, {"exploration": 0.1}, r"expected EpsilonGreedy\(epsilon\) or Boltz"),
    ],
)
def test_what_is_wrong_is_named(name, network, given, told):
    with pytest.raises(UsageError, match=told):
        made(name, network, **given)


def test_a_number_of_a_part_is_sent_there():
    with pytest.raises(UsageError, match=r"learning_rate: it is given in optim=Optim\(learning_"):
        agent_class("q-learning", True)(MLP(NUMBERS, [4]), ACTIONS, learning_rate=0.1)
    with pytest.raises(UsageError, match=r"epsilon: it is given in exploration=EpsilonGreedy"):
        agent_class("sarsa")(gym.spaces.Discrete(4), ACTIONS, epsilon=0.1)
    with pytest.raises(UsageError, match=r"DeepQ: missing a required argument: 'action_space'"):
        agent_class("q-learning", True)(MLP(NUMBERS, [4]))


class Annotated(QLearning):
    """An agent as users write them: a default that its annotation lacks, seeds said to be whole."""

    def __init__(
        self,
        observation_space,
        action_space,
        *more: int,
        width: float = None,  # noqa: RUF013 (as users write it)
        seed: int | None = None,
        **rest: float,
    ):
        super().__init__(observation_space, action_space, seed=seed, **rest)
        self.width = width


def test_an_agent_of_the_users_may_say_less_in_its_annotations_than_it_takes():
    seed, spaces = np.random.SeedSequence(3), (gym.spaces.Discrete(4), ACTIONS)
    agent = Annotated(*spaces, width=None, seed=seed, gamma=0.5)
    assert agent.rng.random() == QLearning(*spaces, seed=seed).rng.random()
    with pytest.raises(UsageError, match=r"width '3': expected a number"):
        Annotated(*spaces, width="3")


@pytest.mark.parametrize("wrong", [None, "x", 4, np.ones(2), gym.spaces.Discrete], ids=repr)
def test_what_is_no_space_is_refused(wrong):
    with pytest.raises(UsageError, match=r"action_space .*: expected a Gymnasium space"):
        QLearning(ACTIONS, wrong)
    with pytest.raises(UsageError, match=r"observation_space .*: expected a Gymnasium space"):
        QLearning(wrong, ACTIONS)
    if wrong is not None:  # which is no wrong one there
        with pytest.raises(UsageError, match=r"observation_space .*: expected a Gymnasium space"):
            agent_class("ppo", True)(MLP(NUMBERS, [4]), ACTIONS, wrong)


def test_an_option_without_effect_is_refused(tmp_path):
    config = {"agent": "ppo", "env": "CartPole-v1", "steps": 10}
    numbers = {"optimizer": "SGD", "adam_eps": 0.1}
    with pytest.raises(UsageError, match="--adam-eps: SGD adds nothing; leave it out, or take"):
        seqrl.run({**config, "agent_args": numbers}, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for name in ("AdamW", "AdaBound"):
        kept = agent_arguments(agent_class("ppo", True), {**numbers, "optimizer": name})
        assert kept["adam_eps"] == 0.1


def test_an_argument_that_has_the_name_of_a_flag_is_refused(tmp_path, monkeypatch, capsys):
    text = "from seqrl.agents import QLearning\n\n\nclass Mine(QLearning):\n"
    text += "    def __init__(self, observation_space, action_space, *, steps=3, seed=None):\n"
    text += "        super().__init__(observation_space, action_space, seed=seed)\n"
    (tmp_path / "collides.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert train.main(["--agent", "collides:Mine", "--steps", "5"]) == 2
    told = capsys.readouterr().err
    assert (
        told.count("\n") == 1 and "--agent Mine: its argument steps has the name of a flag" in told
    )


@pytest.mark.parametrize(
    ("part", "given", "told"),
    [
        (Optim, {"learning_rat": 0.1}, r"Optim has no argument learning_rat. Did you mean \"learn"),
        (Regularisation, {"inputnoise": 1}, r"Did you mean \"input_noise\""),
        (Regularisation, {"x": 1}, r"Regularisation has no argument x. It has l1, l2, sparsity,"),
        (Optim, {"learning_rate": 0.1}, r"Optim: missing a required argument: 'max_grad_norm'"),
        (Sequences, {"burn_in": 0.5}, r"burn_in 0.5: expected a whole number"),
    ],
)
def test_an_argument_class_names_what_it_has_not(part, given, told):
    with pytest.raises(UsageError, match=told):
        part(**given)
