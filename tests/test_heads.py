"""Heads: what is drawn, how likely it is, and in whose units."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import distributions

from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.heads import make_head
from seqrl.core.errors import UsageError

SPACES = {
    "discrete": spaces.Discrete(4),
    "shifted": spaces.Discrete(3, start=-1),
    "multi": spaces.MultiDiscrete([2, 3], start=[5, -2]),
    "binary": spaces.MultiBinary(3),
    "board": spaces.MultiBinary((2, 2)),
    "box": spaces.Box(np.float32([-2, 0]), np.float32([2, 10])),
    "unbounded": spaces.Box(-np.inf, np.inf, (2, 2)),
    "half": spaces.Box(np.float32([0]), np.float32([np.inf])),
    "number": spaces.Box(-1.0, 3.0, ()),
    "float16": spaces.Box(-1.0, 3.0, (2,), np.float16),
}
T, B = 5, 3


def reference(name, head, out):
    """The distribution by torch, and a function from actions of the space to its values."""
    if name in ("discrete", "shifted"):
        return distributions.Categorical(logits=out), lambda a: a - SPACES[name].start
    if name == "multi":
        parts = [distributions.Categorical(logits=part) for part in (out[..., :2], out[..., 2:])]
        start = torch.as_tensor(SPACES[name].start)

        class Both:
            def log_prob(self, a):
                return sum(p.log_prob(a[..., i]) for i, p in enumerate(parts))

            def entropy(self):
                return sum(p.entropy() for p in parts)

        return Both(), lambda a: a - start
    if name in ("binary", "board"):
        made = distributions.Bernoulli(logits=out)
        return distributions.Independent(made, 1), lambda a: a.reshape(out.shape).float()
    space = SPACES[name]
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = np.where(bounded, space.low, -1), np.where(bounded, space.high, 1)
    middle, reach = torch.tensor((low + high) / 2), torch.tensor((high - low) / 2)
    made = distributions.Normal(out, head.log_std.exp().expand(out.shape))
    return distributions.Independent(made, 1), lambda a: ((a - middle) / reach).reshape(out.shape)


def outputs(size, *lead):
    return torch.randn((*lead, size), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("lead", [(B,), (T, B)], ids=["N", "TB"])
def test_log_probabilities_and_entropies_are_those_of_torch(name, lead):
    head = make_head(SPACES[name])
    out = outputs(head.size, *lead)
    draw = Draw(torch.Generator().manual_seed(1))
    action = head.sample(out, draw)
    assert action.shape == (*lead, *SPACES[name].shape)
    expected, inner = reference(name, head, out)
    got = head.log_prob(out, action)
    assert got.shape == head.entropy(out).shape == lead
    torch.testing.assert_close(got, expected.log_prob(inner(action)).float())
    on_host = head.log_prob(out.numpy(), action.numpy())
    assert isinstance(on_host, np.ndarray) and on_host.shape == lead
    np.testing.assert_allclose(on_host, got.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head.entropy(out), expected.entropy())
    for both, alone in zip(head.evaluate(out, action), (got, head.entropy(out)), strict=True):
        assert torch.equal(both, alone)


@pytest.mark.parametrize("name", SPACES)
def test_numpy_and_torch_answer_in_their_own_kind(name):
    space, head = SPACES[name], make_head(SPACES[name])
    out = outputs(head.size, B)
    first = head.sample(out.numpy(), Draw(np.random.default_rng(0)))
    second = head.sample(out, Draw(torch.Generator().manual_seed(0)))
    assert isinstance(first, np.ndarray) and isinstance(second, torch.Tensor)
    assert first.shape == tuple(second.shape) == (B, *space.shape)
    np.testing.assert_array_equal(head.mode(out.numpy()), head.mode(out).numpy())
    for row in head.mode(out.numpy()):
        clipped = np.clip(row, space.low, space.high) if isinstance(space, spaces.Box) else row
        assert space.contains(np.asarray(clipped, space.dtype))


def draws(head, out, kind, n=20_000):
    rows = out.expand(n, head.size)
    if kind == "numpy":
        return head.sample(rows.numpy(), Draw(np.random.default_rng(5)))
    return head.sample(rows, Draw(torch.Generator().manual_seed(5))).numpy()


kinds = pytest.mark.parametrize("kind", ["numpy", "torch"])


@kinds
def test_choices_are_as_frequent_as_their_logits_say(kind):
    odds = torch.tensor([0.5, 0.3, 0.2])
    found = draws(make_head(spaces.Discrete(3, start=7)), odds.log(), kind)
    np.testing.assert_allclose(np.bincount(found - 7) / len(found), odds, atol=0.012)  # > 3 sigma


@kinds
def test_each_choice_of_several_has_its_own_frequencies(kind):
    head = make_head(spaces.MultiDiscrete([2, 3], start=[1, 10]))
    odds = torch.tensor([0.9, 0.1, 0.2, 0.2, 0.6])
    found = draws(head, odds.log(), kind) - [1, 10]
    both = np.zeros((2, 3))
    np.add.at(both, (found[:, 0], found[:, 1]), 1 / len(found))
    np.testing.assert_allclose(both, np.outer(odds[:2], odds[2:]), atol=0.012)


@kinds
def test_switches_are_as_frequent_as_their_logits_say(kind):
    odds = torch.tensor([0.1, 0.5, 0.97])
    found = draws(make_head(spaces.MultiBinary(3)), odds.logit(), kind)
    assert found.dtype == np.int8
    np.testing.assert_allclose(found.mean(0), odds, atol=0.012)
    np.testing.assert_allclose(np.cov(found.T)[0, 2], 0, atol=0.005)


@kinds
def test_numbers_have_mean_and_spread_in_the_units_of_the_space(kind):
    head = make_head(SPACES["box"])  # from -2 to 2 and from 0 to 10
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([0.5, 0.1]).log())
    found = draws(head, torch.tensor([0.5, -0.2]), kind)
    np.testing.assert_allclose(found.mean(0), [1.0, 4.0], atol=0.03)
    np.testing.assert_allclose(found.std(0), [1.0, 0.5], rtol=0.03)


def test_extreme_logits_do_not_overflow():
    head = make_head(spaces.MultiBinary(2))
    out = np.float32([[1e4, -1e4]])
    with np.errstate(all="raise", under="ignore"):
        assert head.sample(out, Draw(np.random.default_rng(0))).tolist() == [[1, 0]]
    assert head.log_prob(torch.tensor(out), torch.tensor([[1, 0]])).item() == 0.0
    assert make_head(spaces.Discrete(2)).entropy(torch.tensor([[1e4, -1e4]])).item() == 0.0


def test_the_mode_is_the_first_of_equals():
    assert make_head(spaces.Discrete(3, start=2)).mode(np.zeros((2, 3))).tolist() == [2, 2]
    multi = make_head(spaces.MultiDiscrete([2, 2]))
    assert multi.mode(torch.tensor([[0.0, 0.0, 0.0, 1.0]])).tolist() == [[0, 1]]
    assert make_head(spaces.MultiBinary(2)).mode(np.float32([[0, 0.1]])).tolist() == [[0, 1]]


def test_a_dimension_with_one_value_leaves_everything_finite():
    head = make_head(spaces.Box(np.float32([1, -1]), np.float32([1, 1])))
    out = torch.zeros(2, 2)
    assert torch.isfinite(head.log_prob(out, head.mode(out))).all()


def test_a_dimension_with_one_value_has_no_part_in_density_entropy_and_divergence():
    head, other = (make_head(spaces.Box(np.float32([1, -1]), np.float32([1, 1]))) for _ in "ab")
    alone, beyond = (make_head(spaces.Box(-1, 1, (1,))) for _ in "ab")
    with torch.no_grad():
        other.log_std.fill_(0.2), beyond.log_std.fill_(0.2)
    out, action = torch.tensor([[3.0, 0.4]]), torch.tensor([[1.0, -0.5]])
    pairs = [
        (head.log_prob(out, action), alone.log_prob(out[:, 1:], action[:, 1:])),
        (head.entropy(out), alone.entropy(out[:, 1:])),
        (head.divergence(out, -out, other), alone.divergence(out[:, 1:], -out[:, 1:], beyond)),
    ]
    for here, there in pairs:
        assert here.tolist() == pytest.approx(there.tolist())
    sum(here.sum() for here, _ in pairs).backward()
    assert head.log_std.grad[0] == 0.0


@pytest.mark.parametrize("ends", [(40_000, 60_000), (-60_000, 60_000)])
def test_bounds_that_float16_cannot_add_are_kept(ends):
    head = make_head(spaces.Box(*ends, (1,), np.float16))
    assert (head.center + head.reach * np.float32([-1, 1])).tolist() == pytest.approx(
        ends, rel=1e-3
    )


def test_start_offsets_follow_the_output_to_its_device():
    head = make_head(SPACES["multi"])
    out = torch.zeros(B, head.size, device="meta")  # nothing is computed, only devices are compared
    assert head.mode(out).device == head.log_prob(out, head.mode(out)).device == out.device


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.Text(3),
        spaces.MultiDiscrete([[2, 2], [2, 2]]),
        spaces.Box(0, 9, (2,), np.int64),
    ],
    ids=["dict", "text", "two axes", "whole numbers"],
)
def test_other_spaces_are_refused_in_one_line(space):
    with pytest.raises(UsageError, match=r"action space .*: expected Discrete, .* Box") as caught:
        make_head(space)
    assert "\n" not in str(caught.value)


HIGHEST = float(np.finfo(np.float32).max)
ENDS = [(-HIGHEST, HIGHEST), (-3.4e38, 3.4e38), (0.0, HIGHEST), (1e30, HIGHEST), (-1e31, 0.0)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("low", "high"), ENDS)
def test_bounds_at_the_end_of_floats_are_none(low, high, dtype):
    """Half of such a range would overflow; it tells no unit, so actions are around 0."""
    head = make_head(spaces.Box(low, high, (2,), dtype))
    out = torch.tensor([[0.5, -2.0]])
    assert head.mode(out).tolist() == [[0.5, -2.0]] == head.mode(out.numpy()).tolist()
    assert bool(head.log_prob(out, head.mode(out)).isfinite().all())


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (0,)), spaces.MultiDiscrete([])], ids=str)
def test_an_action_of_no_numbers_is_refused(space):
    with pytest.raises(UsageError, match=r"action space .* has nothing in it: expected at least"):
        make_head(space)


@pytest.mark.parametrize("ends", [(0.0, 1e-50), (1000.0, 1000.001)])
def test_bounds_that_float32_cannot_tell_apart_are_refused(ends):
    with pytest.raises(UsageError, match=r"bounds are too close .*RescaleAction"):
        make_head(spaces.Box(*ends, (2,), np.float64))
    make_head(spaces.Box(np.float32([3, 0]), np.float32([3, 1])))  # one may be fixed
