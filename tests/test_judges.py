"""The judges of benchmarks/judges.py that count."""

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seqrl.core.tokens import BEGIN, END
from seqrl.core.types import Decision
from seqrl.envs.making import first_of, make

HOME = Path(__file__).parents[1] / "benchmarks"
spec = importlib.util.spec_from_file_location("judges", HOME / "judges.py")
judges = importlib.util.module_from_spec(spec)
spec.loader.exec_module(judges)


class Says:
    """An agent that gives, in environment i, the reply `which[i]` to whatever is said; -1: "ok"."""

    def __init__(self, which, first):
        self.which, self.first, self.head = np.array(which), first, SimpleNamespace(mode=None)

    def act(self, obs, start, state=None, *, explore=True):
        place = np.where(obs["previous"] == BEGIN, 0, 0 if state is None else state)
        ok = np.where(place == 0, 5, END)
        reply = np.where(place < 3, self.first + 3 * self.which + place, END)
        return Decision(np.where(self.which < 0, ok, reply), place + 1)


@pytest.mark.parametrize(
    ("which", "share"),
    [([0, 1, 2, 3], [0.25] * 4), ([2, 2, -1, 2], [0, 0, 1, 0]), ([0, 0, 3, 3], [0.5, 0, 0, 0.5])],
    ids=["all alike", "one of them", "two"],
)
def test_the_variety_of_replies_is_the_entropy_of_those_given(which, share, monkeypatch):
    envs = make("seqrl/Dialogue-v0", 4)
    first = first_of(envs).unwrapped.task.first_reply
    run = SimpleNamespace(agent=Says(which, first), make_envs=lambda n: envs)
    count = judges.replies_given(run, 4)
    assert (count / count.sum()).tolist() == pytest.approx(share)
    given = -sum(p * math.log(p) for p in share if p)
    monkeypatch.setattr(judges, "replies_given", lambda run: count)
    assert judges.variety(run) == pytest.approx(given)
