"""The sum tree against a linear scan."""

import numpy as np
import pytest

from seqrl.agents.experience.sum_tree import WIDTH, SumTree

sizes = pytest.mark.parametrize("size", [1, 2, WIDTH, WIDTH + 1, 5000, WIDTH**2 + 1])


def scan(priorities, mass):
    """The item in whose share a mass lies, one after the other."""
    for item, priority in enumerate(priorities):
        if mass < priority:
            return item
        mass -= priority
    raise AssertionError


@sizes
def test_the_tree_finds_what_a_scan_finds(size):
    rng, tree = np.random.default_rng(size), SumTree(size)
    expected = np.zeros(size)
    for _ in range(5):
        items = rng.integers(0, size, 50)
        values = rng.integers(0, 9, 50).astype(float)  # whole: sums are exact in any order
        tree.set(items, values)
        for item, value in zip(items, values, strict=True):
            expected[item] = value
        tree.set(np.array([0]), 2.0)
        expected[0] = 2.0
        assert tree.priorities.tolist() == expected.tolist()
        assert tree.total == expected.sum()
        masses = np.append(rng.random(40) * tree.total, [0.0, tree.total - 1])
        assert tree.find(masses).tolist() == [scan(expected, mass) for mass in masses]


@sizes
def test_rounding_never_finds_what_has_no_priority(size):
    tree, rng = SumTree(size), np.random.default_rng(0)
    kept = rng.permutation(size)[: max(1, size // 3)]
    tree.set(kept, rng.random(len(kept)) + 1e-9)
    masses = np.array([0.0, tree.total, np.nextafter(tree.total, 9e9), 2 * tree.total])
    assert set(tree.find(masses).tolist()) <= set(kept.tolist())


def test_draws_follow_the_priorities():
    tree, rng = SumTree(200), np.random.default_rng(0)
    priorities = rng.random(200) * (rng.random(200) < 0.5)
    tree.set(np.arange(200), priorities)
    found = np.bincount(tree.find(rng.random(200_000) * tree.total), minlength=200)
    chance = priorities / priorities.sum()
    spread = np.sqrt(chance * (1 - chance) / 200_000)
    assert (abs(found / 200_000 - chance) <= 5 * spread).all()


def test_setting_again_and_again_does_not_drift():
    tree, rng = SumTree(300), np.random.default_rng(0)
    for _ in range(2000):
        tree.set(rng.integers(0, 300, 8), rng.random(8) * 10.0 ** rng.integers(-9, 9, 8))
    tree.set(np.arange(300), 0.5)
    assert tree.total == 150.0
