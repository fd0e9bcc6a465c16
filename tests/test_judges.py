"""The judges of benchmarks/judges.py that count."""

import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seqrl.core.tokens import BEGIN, END
from seqrl.core.types import Decision
from seqrl.envs.making import first_of, make
from seqrl.training.comparison.charts import scalars, write_events
from seqrl.training.runs import folder as folders

HOME = Path(__file__).parents[1] / "benchmarks"
spec = importlib.util.spec_from_file_location("judges", HOME / "judges.py")
judges = importlib.util.module_from_spec(spec)
spec.loader.exec_module(judges)


class Says:
    """An agent that gives, in environment i, the reply `which[i]` to whatever is said; -1: "ok".

    Each time that dialogues begin it gives the next one, where there are `several`.
    """

    def __init__(self, which, first, several=1):
        self.which, self.first, self.several = np.array(which), first, several
        self.head, self.begun = SimpleNamespace(mode=None), -1

    def act(self, obs, start, state=None, *, explore=True):
        self.begun += bool(start.all())
        place = np.where(obs["previous"] == BEGIN, 0, 0 if state is None else state)
        ok = np.where(place == 0, 5, END)
        number = (self.which + self.begun % self.several) % 4
        reply = np.where(place < 3, self.first + 3 * number + place, END)
        return Decision(np.where(self.which < 0, ok, reply), place + 1)


def talked(which, several=1):
    """A run of Dialogue whose agent says so."""
    envs = make("seqrl/Dialogue-v0", len(which))
    first = first_of(envs).unwrapped.task.first_reply
    return SimpleNamespace(agent=Says(which, first, several), make_envs=lambda n: envs)


def test_replies_are_counted_dialogue_by_dialogue():
    count = judges.replies_given(talked([0, 2, -1, 3], several=2), 4, times=4)
    assert count.tolist() == [[2, 2, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0], [2, 0, 0, 2]]


def test_the_variety_of_replies_is_that_of_one_dialogue(monkeypatch):
    count = np.array([[2, 2, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]])
    monkeypatch.setattr(judges, "replies_given", lambda run: count)
    assert judges.variety(None) == pytest.approx(math.log(2) / 2)
    assert judges.variety_of_all(None) == pytest.approx(0.5 * math.log(4) + 0.5 * math.log(2))


def test_the_share_of_slots_is_of_those_that_were_asked():
    """By the answers all, by "ok" none, and the same dialogues are asked both."""
    asked = []

    def make_envs(n, **options):
        asked.append(make("seqrl/Dialogue-v0", n, **options))
        return asked[-1]

    def answers(*seen, explore):
        return asked[-1].answer()[0], None, None

    taught = SimpleNamespace(agent=SimpleNamespace(act=answers), make_envs=make_envs)
    assert judges.slots(taught) == judges.slots_of_twelve(taught) == 1
    assert [first_of(envs).unwrapped.task.turns for envs in asked] == [6, 12]
    says = SimpleNamespace(agent=Says([-1] * 1000, 0), make_envs=make_envs)
    assert judges.slots(says) == 0


def test_what_is_gained_counts_where_nothing_was_lost_on_the_way(tmp_path):
    begun = tmp_path / "begun"
    for folder, config, score in ((begun, {}, 0.75), (tmp_path / "run", {"from": str(begun)}, 0.9)):
        folder.mkdir()
        folders.write_config(folder, {"env": "G-v0", "steps": 100, **config})
        folders.write_summary(folder, {"steps": 100, "eval_mean_reward": score})
    for low, found in ((0.71, 0.15), (0.6, -0.15)):
        points = [(40, low), (70, 0.8), (100, 0.9)]
        told = [(step, scalars({"eval/mean_reward": value})) for step, value in points]
        write_events(tmp_path / "run", told, 1.0)
        assert judges.judged("gain kept", tmp_path / "run") == pytest.approx(found, abs=1e-6)


def test_a_search_is_judged_by_its_worst_fresh_seed_and_by_the_steps_it_took(tmp_path):
    """Two trials of 100 steps, one of them ended after 30."""
    (tmp_path / "search" / "best").mkdir(parents=True)
    (tmp_path / "search" / "search.csv").write_text("trial,steps\n0,100\n1,30\n")
    scores = {"rows": [{"runs": [{"score": 500.0}, {"score": 480.0}]}]}
    (tmp_path / "search" / "best" / "compare.json").write_text(json.dumps(scores))
    (tmp_path / "run").mkdir()
    folders.write_config(tmp_path / "run", {"steps": 100})
    assert judges.judged("worst fresh seed", tmp_path / "run") == 480
    assert judges.judged("share of steps", tmp_path / "run") == pytest.approx(0.65)


def test_the_cross_entropy_is_that_of_what_the_agent_says():
    from seqrl.agents import Imitation
    from seqrl.networks import build

    envs = make("seqrl/NextToken-v0")
    spaces = envs.single_action_space, envs.single_observation_space
    agent = Imitation(build("gru", spaces[1], hidden_size=4), *spaces, seed=0)
    part = agent.parts["policy"]
    for weight in part.module.parameters():
        weight.data.zero_()  # all tokens are as likely
    run = SimpleNamespace(agent=agent, make_envs=lambda n: make("seqrl/NextToken-v0", num_envs=n))
    assert judges.cross_entropy(run, 16) == pytest.approx(math.log(spaces[0].n), rel=1e-5)
