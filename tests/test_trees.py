"""Trees of tokens: their values by hand, what a recursive network computes, and what is none."""

import numpy as np
import pytest
import torch

import seqrl
from seqrl.agents import Imitation, Optim
from seqrl.core import UsageError
from seqrl.envs import make
from seqrl.envs.registry import task
from seqrl.envs.tasks.trees import preorder
from seqrl.networks import build

TREES = "seqrl/Trees-v0"
RULES = {
    "+": lambda a, b: (a + b) % 5,
    "-": lambda a, b: (a - b) % 5,
    "*": lambda a, b: a * b % 5,
    "not": lambda a: 4 - a,
    "very": lambda a: {0: 0, 1: 0, 2: 2, 3: 4, 4: 4}[a],
    "but": lambda a, b: b,
    "and": min,
}
WORTH = {"awful": 0, "dull": 1, "plain": 2, "nice": 3, "great": 4} | {str(i): i for i in range(5)}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def read(words, parent, node=0):
    """The value of a node and the depth below it, by recursion."""
    children = [i for i in range(1, len(words)) if parent[i] == node]
    if not children:
        return WORTH[words[node]], 0
    found = [read(words, parent, child) for child in children]
    return RULES[words[node]](*(value for value, _ in found)), 1 + max(deep for _, deep in found)


@pytest.mark.parametrize("grammar", ["arithmetic", "sentences"])
@pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
def test_values_by_reading_the_tree(grammar, device):
    options = {"grammar": grammar, "shallowest": 2, "depth": 4}
    envs = make(TREES, num_envs=200, device=device, **options)
    obs = envs.reset(np.random.SeedSequence(0))
    tokens, parent, value = (np.asarray(x) for x in (*obs.values(), envs.answer()[0]))
    word, deep = task(TREES, **options).vocabulary.word, []
    for row, hangs, expected in zip(tokens, parent, value, strict=True):
        words = [word(x) for x in row if x]
        assert not row[len(words) :].any() and not hangs[len(words) :].any()
        assert all(hangs[i] < i for i in range(1, len(words)))
        found, depth = read(words, hangs)
        assert found == expected
        deep.append(depth)
    assert {*deep} == {2, 3, 4} and min(np.bincount(deep)[2:]) > 40


def test_a_bag_has_the_same_tokens_and_no_tree():
    whole, bag = (make(TREES, num_envs=50, bag=bag) for bag in (False, True))
    obs, shown = (envs.reset(np.random.SeedSequence(0)) for envs in (whole, bag))
    assert (whole.answer()[0] == bag.answer()[0]).all() and not shown["parent"].any()
    assert (np.sort(obs["tokens"], 1) == shown["tokens"][:, ::-1]).all()


def test_nodes_in_order():
    assert preorder(2).tolist() == [0, 1, 3, 4, 2, 5, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grammar": "latin"}, "grammar 'latin': expected"),
        ({"shallowest": 6}, "depth 5: expected a whole number of at least 6"),
        ({"depth": 9}, "depth 9: expected at most 8"),
        ({"bag": 1}, "bag 1: expected True or False"),
    ],
)
def test_bad_options(refused, options, message):
    refused(message, TREES, **options)


def network():
    return build("tree", task(TREES, depth=2).observation_space, hidden_size=6, seed=1)


def test_a_node_takes_in_its_children_from_the_left():
    """+ of 1, a node of three children, and 2: by recursion, cell by cell."""
    tree = network()
    tokens = torch.tensor([[3, 7, 4, 8, 9, 7, 10], [5, 0, 0, 0, 0, 0, 0]])
    parent = torch.tensor([[0, 0, 0, 2, 2, 2, 0], [0] * 7])

    def node(i):
        state = tree.table.weight[tokens[0, i]][None]
        for child in range(1, 7):
            if parent[0, child] == i:
                state = tree.cell(node(child), state)
        return state

    out = tree.encode({"tokens": tokens, "parent": parent})
    torch.testing.assert_close(out[:1], node(0))
    assert torch.equal(out[1], tree.table.weight[5])
    other = parent.clone()
    other[0, 5] = 0
    assert not torch.allclose(tree.encode({"tokens": tokens, "parent": other})[0], out[0])


@pytest.mark.parametrize(
    ("tokens", "parent", "message"),
    [
        (
            [3, 7, 8, 0, 0, 0, 0],
            [0, 0, 2, 0, 0, 0, 0],
            "token 2 hangs from 2; expected a token bef",
        ),
        ([3, 7, 8, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], "no tree: token 0 hangs from 1"),
        ([3, 0, 8, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], r"no tree: padding \(0\) before a token"),
        ([3, 99, 8, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], "token 99: unknown, expected 0 to 10"),
    ],
)
def test_what_is_no_tree(tokens, parent, message):
    obs = {"tokens": torch.tensor([tokens]), "parent": torch.tensor([parent])}
    with pytest.raises(UsageError, match=f"network Tree: .*{message}"):
        network().encode(obs)


def test_expressions_of_two_levels_are_learned():
    envs = make(TREES, num_envs=64, depth=2, grammar="sentences")
    spaces = envs.single_action_space, envs.single_observation_space
    tree = build("tree", spaces[1], hidden_size=32, seed=0)
    numbers = {"optim": Optim("linear:0.01:0", 1.0), "batch_size": 64, "seed": 0}
    agent = Imitation(tree, *spaces, **numbers)
    seqrl.train(agent, envs, steps=16_000, seed=0)
    fresh = make(TREES, num_envs=500, shallowest=2, depth=2, grammar="sentences")
    obs = fresh.reset(np.random.SeedSequence(1))
    said = agent.act(obs, np.ones(500, bool), explore=False).action
    assert (said == fresh.answer()[0]).mean() >= 0.95
