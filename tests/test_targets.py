"""What action values are moved towards, by hand and against the functions of the tables."""

import numpy as np
import pytest
import torch

from seqrl.agents.deep import targets
from seqrl.agents.tabular import policy
from seqrl.agents.tabular.policy import EPSILON, TEMPERATURE


def test_double_takes_the_value_of_the_other_networks_choice():
    q = torch.tensor([[1.0, 2.0, 3.0], [4.0, 6.0, 5.0]])
    chooser = torch.tensor([[0.0, 9.0, 1.0], [7.0, 0.0, 7.0]])  # a tie: the first
    assert targets.double(q, chooser).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("kind, rate", [(EPSILON, 0.3), (EPSILON, 0.0), (TEMPERATURE, 0.7)])
@pytest.mark.parametrize("array", [np.asarray, torch.tensor])
def test_the_expected_value_is_that_of_the_tables(kind, rate, array):
    q = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 3.0], [2.0, 2.0, 2.0]])
    by_row = [policy.expected(kind, q, (i,), range(3), rate) for i in range(3)]
    if kind == EPSILON:
        found = targets.expected_greedy(array(q), rate)
    else:
        found = targets.expected_softmax(array(q), array(q), rate)
    assert found.tolist() == pytest.approx(by_row, abs=1e-12)


@pytest.mark.parametrize("array", [np.asarray, torch.tensor])
def test_returns_by_hand(array):
    """An episode of two steps that is over, its final row, two steps of the next; cut there."""

    def rows(*column):
        return array(np.array([column]).T)

    reward = rows(1.0, 2.0, 0.0, 4.0, 8.0, 0.0)
    value = rows(10.0, 20.0, 30.0, 40.0, 50.0, 60.0)
    over = rows(0.5, 0.0, 0.5, 0.5, 0.5, 0.5)
    final = rows(False, False, True, False, False, False)
    cut = over * 0 + 0.5

    def at(discount, n):
        return targets.n_step(reward, discount, final, value, n)[:, 0].tolist()

    assert at(over, 1) == [11, 2, 30, 29, 38, 60]
    assert at(over, 2) == [1 + 0.5 * 2, 2, 30, 4 + 0.5 * (8 + 30), 8 + 30, 60]
    assert at(over, 3) == at(over, 2)
    assert at(cut, 2)[:3] == [1 + 0.5 * (2 + 0.5 * 30), 2 + 0.5 * 30, 30]
    assert at(cut, 9)[:3] == at(cut, 2)[:3]
    for discount in (over, cut):
        whole = targets.discounted(reward, discount, final, value)
        assert whole[:, 0].tolist() == at(discount, 9)


def test_squash_and_its_inverse():
    x = torch.tensor([-1000.0, -3.0, 0.0, 0.25, 8.0, 1e5], dtype=torch.float64)
    assert targets.squash(x)[1].item() == pytest.approx(-(2 - 1) - 0.003)
    assert targets.squash(x)[4].item() == pytest.approx((3 - 1) + 0.008)
    torch.testing.assert_close(targets.unsquash(targets.squash(x)), x, rtol=1e-12, atol=1e-12)
    small = torch.tensor([1e-3, 0.3, 20.0])
    torch.testing.assert_close(targets.unsquash(targets.squash(small)), small, rtol=1e-4, atol=1e-6)


def test_penalties_are_half_the_square_near_the_target():
    value, target = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.5, -1.0, 3.0])
    assert targets.elementwise_loss("squared", value, target).tolist() == [0.125, 0.5, 4.5]
    assert targets.elementwise_loss("huber", value, target).tolist() == [0.125, 0.5, 2.5]
    action = torch.zeros(3, dtype=torch.int64)
    found = targets.regression("huber", value[:, None], action, target)
    assert found.total / found.count == pytest.approx(3.125 / 3)


@pytest.mark.parametrize("kind", ["squared", "huber"])
@pytest.mark.parametrize("valid", [None, torch.tensor([[True, False, True], [True, True, False]])])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 0.25])])
def test_the_loss_of_arrays_is_that_of_tensors(kind, valid, weight):
    torch.manual_seed(0)
    q, target = torch.randn(2, 3, 4, requires_grad=True), 3.0 * torch.randn(2, 3)
    leaves = torch.randint(4, (2, 3)), target, valid, weight
    expected = targets.regression(kind, q, *leaves)
    arrays = [None if leaf is None else leaf.numpy() for leaf in leaves]
    found = targets.regression(kind, q.detach().numpy(), *arrays)
    assert int(found.count) == int(expected.count) == (6 if valid is None else 4)
    assert found.total == pytest.approx(expected.total.item(), rel=1e-5)
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-6)
    expected.total.backward()
    np.testing.assert_allclose(found.gradient, q.grad, rtol=1e-6)


def test_the_error_of_a_sequence_is_mostly_its_largest():
    error = torch.tensor([[1.0, -2.0], [-3.0, 4.0], [99.0, 0.0]])
    mask = torch.tensor([[True, True], [True, True], [False, True]])
    found = targets.sequence_error(error, mask)
    assert found.tolist() == pytest.approx([0.9 * 3 + 0.1 * 2, 0.9 * 4 + 0.1 * 2])


def test_means_are_of_what_counts():
    each = torch.tensor([[1.0, float("nan")], [5.0, 7.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert targets.mean(each, mask).item() == 3.0
    assert targets.mean(each, torch.zeros_like(mask)).item() == 0.0
    assert targets.mean(each[:, 0], None).item() == 3.0 and targets.count(each[:, 0], None) == 2
