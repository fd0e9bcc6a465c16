"""Stories and questions: the right place by reading; a memory network by hand."""

import numpy as np
import pytest
import torch

from seqrl.core import UsageError
from seqrl.envs import make
from seqrl.envs.registry import task
from seqrl.networks import build, check_network

FACTS = "seqrl/Facts-v0"


def place_of(told, asked):
    """Where somebody or something is: the facts are read in turn."""
    at, holder = {}, {}
    for who, done, what in told:
        if done == "went-to":
            at[who] = what
        else:
            holder[what] = who
    return at[holder.get(asked, asked)]


@pytest.mark.parametrize("asked", ["thing", "person"])
@pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
def test_answers_by_reading_the_story(asked, device):
    options = {"asked": asked, "people": 3, "things": 2, "places": 4, "more": 5}
    rules, envs = task(FACTS, **options), make(FACTS, num_envs=300, device=device, **options)
    obs = envs.reset(np.random.SeedSequence(0))
    answer = np.asarray(envs.answer()[0])
    word, kinds, places = rules.vocabulary.word, set(), rules.vocabulary.words[5:9]
    for facts, question, place in zip(*map(np.asarray, obs.values()), answer, strict=True):
        told = [[word(x) for x in fact] for fact in facts]
        where, what = map(word, question)
        assert where == "where-is" and len(told) == 10
        assert place_of(told, what) == places[place]
        kinds.add(what)
        assert {who for who, done, _ in told if done == "went-to"} == {"Anna", "Ben", "Clara"}
        assert {x for _, done, x in told if done == "took"} == {"apple", "ball"}
    assert kinds == ({"apple", "ball"} if asked == "thing" else {"Anna", "Ben", "Clara"})
    assert np.bincount(answer, minlength=4).min() > 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"asked": "time"}, "asked 'time': expected"),
        ({"people": 9}, "people 9: expected at most 8"),
        ({"places": 1}, "places 1: expected a whole number of at least 2"),
        ({"more": -1}, "more -1: expected a whole number of at least 0"),
    ],
)
def test_bad_options(refused, options, message):
    refused(message, FACTS, **options)


def test_two_hops_by_hand():
    """Section 2 of the paper, with adjacent tying and words weighed by their place."""
    torch.manual_seed(0)
    space = task(FACTS, people=1, things=1, places=2, more=1).observation_space
    network = build("memory-network", space, size=3, hops=2)
    assert check_network(network, space) == 3
    facts = np.array([[3, 7, 5], [4, 8, 3], [0, 0, 0]])
    question = np.array([9, 4])
    tables = [table.weight.detach().numpy().astype(float) for table in network.tables]
    late = [times.detach().numpy().astype(float) for times in network.late]

    def meaning(table, words):
        count, number = len(words), np.arange(1, 4) / 3
        each = [
            (1 - j / count - number * (1 - 2 * j / count)) * table[word]
            for j, word in enumerate(words, 1)
            if word
        ]
        return sum(each)

    u = meaning(tables[0], question)
    for hop in range(2):
        keys, values = (
            np.stack([meaning(tables[i], fact) + late[i][k] for k, fact in enumerate(facts[:2])])
            for i in (hop, hop + 1)
        )
        p = np.exp(keys @ u)
        u = u + p / p.sum() @ values
    obs = {"facts": torch.tensor(facts[None]), "question": torch.tensor(question[None])}
    np.testing.assert_allclose(network.encode(obs)[0].detach().numpy(), u, rtol=1e-4, atol=1e-5)


def test_spaces_and_hops_that_do_not_fit():
    with pytest.raises(UsageError, match="hops 0: expected a whole number of at least 1"):
        build("memory-network", task(FACTS).observation_space, hops=0)
    with pytest.raises(UsageError, match='no "facts" and "question" in'):
        build("memory-network", task("seqrl/Trees-v0").observation_space)
