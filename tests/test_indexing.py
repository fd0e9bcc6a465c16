"""From observations to rows: every countable space one to one, boxes by bins and tiles."""

import itertools
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrl.agents import QLearning, TableIndex
from seqrl.agents.tabular.indexing import offsets
from seqrl.core import RunError, UsageError
from seqrl.networks import MLP, encoder
from seqrl.networks.contract import dummy


def batched(space: gym.Space, observations: list[Any]) -> Any:
    """Observations as a vector environment hands them out."""
    return concatenate(space, observations, create_empty_array(space, len(observations)))


def everything(space: gym.Space) -> list[Any]:
    """All observations of a countable space."""
    if isinstance(space, spaces.Discrete):
        return [space.start + i for i in range(space.n)]
    if isinstance(space, spaces.Tuple):
        return list(itertools.product(*map(everything, space.spaces)))
    if isinstance(space, spaces.Dict):
        parts = itertools.product(*map(everything, space.spaces.values()))
        return [dict(zip(space.spaces, part, strict=True)) for part in parts]
    if isinstance(space, spaces.MultiBinary):
        shape, counts = space.shape, np.full(space.shape, 2)
        start = np.zeros_like(counts)
    else:
        shape, box = space.shape, isinstance(space, spaces.Box)
        start = space.low.astype(np.int64) if box else space.start
        counts = space.high - start + 1 if box else space.nvec
    found = np.array(list(np.ndindex(*counts.ravel()))).reshape(-1, *shape) + start
    return list(found.astype(space.dtype))


def one_to_one(space: gym.Space) -> None:
    """Every observation has one row, all rows from 0 to the size are used."""
    index = TableIndex(space)
    states = everything(space)
    assert all(state in space for state in states)
    rows = index(batched(space, states))
    assert sorted(rows) == [(i,) for i in range(len(states))]
    assert index.total == len(states)


discrete = st.builds(
    lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 4), st.integers(-3, 3)
)
binary = st.sampled_from([1, 2, (2,), (1, 2)]).map(spaces.MultiBinary)
multi = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(spaces.MultiDiscrete)
simple = discrete | binary | multi
nested = st.recursive(
    simple,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2).map(spaces.Tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2).map(spaces.Dict)
    ),
    max_leaves=3,
)


@settings(max_examples=150, deadline=None)
@given(nested)
def test_every_countable_space_is_one_to_one(space: gym.Space) -> None:
    one_to_one(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5, start=-2),
        spaces.Discrete(3, start=7),
        spaces.MultiDiscrete([[2, 3], [1, 2]]),
        spaces.MultiDiscrete([2, 3], start=[5, -1]),
        spaces.MultiBinary([2, 3]),
        spaces.Tuple((spaces.Discrete(2, start=1), spaces.Dict(x=spaces.MultiBinary(2)))),
        gym.make("Blackjack-v1").observation_space,
    ],
)
def test_spaces_of_users(space: gym.Space) -> None:
    one_to_one(space)


def test_blackjack_counts_like_its_model() -> None:
    """(sum * 11 + dealer's card) * 2 + usable ace."""
    index = TableIndex(gym.make("Blackjack-v1").observation_space)
    hands = np.array([13, 20, 31]), np.array([2, 10, 0]), np.array([1, 0, 1])
    assert index(hands) == [((13 * 11 + 2) * 2 + 1,), ((20 * 11 + 10) * 2,), (31 * 22 + 1,)]


def test_a_state_that_is_not_of_the_space_is_refused() -> None:
    index = TableIndex(spaces.Discrete(3, start=5))
    for state in (4, 8):
        with pytest.raises(RunError, match=f"observation {state} is not of Discrete"):
            index(np.array([5, state]))
    pairs = TableIndex(spaces.Tuple((spaces.Discrete(3, start=1), spaces.Discrete(2))))
    for state in ((0, 0), (4, 0), (1, -1), (1, 2)):
        with pytest.raises(RunError, match="is not of Tuple"):
            pairs(tuple(np.array([1, number]) for number in state))


@pytest.mark.parametrize(
    "space, obs, said",
    [
        (spaces.Discrete(4), np.array([0.7]), "0.7"),
        (spaces.Tuple((spaces.Discrete(4),) * 2), (np.array([1]), np.array([2.5])), r"\[1, 2.5\]"),
        (spaces.MultiDiscrete([4, 4]), np.array([[1.5, 1.5]]), r"\[1.5, 1.5\]"),
    ],
)
def test_a_broken_number_is_no_state(space: gym.Space, obs: Any, said: str) -> None:
    """It was cut to a whole one, or met by an error of Python's."""
    with pytest.raises(RunError, match=f"observation {said} is not of"):
        TableIndex(space)(obs)


LINE = spaces.Box(-2, 2, (1,))


def column(*numbers: float) -> np.ndarray:
    return np.array(numbers)[:, None]


def test_bins_have_equal_widths() -> None:
    """4 bins of width 1 from -2 to 2, each with its lower edge; outside is in the end bins."""
    index = TableIndex(LINE, bins=4)
    numbers = column(-1e300, -9, -2, -1.01, -1, -0.01, 0, 0.99, 1, 1.99, 2, 9, 1e300)
    expected = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3]
    assert [row for (row,) in index(numbers)] == expected
    assert index.total == 4


def test_a_range_of_one_s_own() -> None:
    index = TableIndex(LINE, bins=4, ranges={0: (0.0, 8.0)})
    assert index(column(-1, 1.9, 2, 7.9, 8, 9)) == [(0,), (0,), (1,), (3,), (3,), (3,)]
    wide = TableIndex(LINE, bins=2, ranges={0: (0.0, 1e12)})
    assert wide(column(1e11, 9e11)) == [(0,), (1,)]


def test_unbounded_dimensions_are_cut_at_3() -> None:
    """Both ends, one end, and bounds that only look finite."""
    low = np.array([-np.inf, -1, -np.inf, -3.4e38], np.float32)
    high = np.array([np.inf, np.inf, 2, 3.4e38], np.float32)
    index = TableIndex(spaces.Box(low, high), bins=2)
    assert index.low.tolist() == [-3, -1, -3, -3]
    assert index.high.tolist() == [3, 3, 2, 3]
    edges = np.array([[0, 1, -0.5, 0]])
    ((above,),), ((below,),) = index(edges + 1e-3), index(edges - 1e-3)
    assert (above, below) == (15, 0)


def test_a_constant_dimension_has_one_bin() -> None:
    index = TableIndex(spaces.Box(np.array([5.0, 0]), np.array([5.0, 1]), dtype=np.float64), bins=2)
    assert index(np.array([[5, 0.2], [5, 0.7]])) == [(0,), (1,)]


def test_bins_beside_countable_parts() -> None:
    """Whatever the order of the parts, 3 * 2 states and 4 bins have 24 rows of their own."""
    space = spaces.Dict(
        a=spaces.Box(0, 4, ()), b=spaces.Discrete(3, start=1), c=spaces.MultiBinary(1)
    )
    index = TableIndex(space, bins=4)
    states = [
        {"a": np.float32(x + 0.5), "b": b, "c": np.array([c], np.int8)}
        for x in range(4)
        for b in (1, 2, 3)
        for c in (0, 1)
    ]
    rows = index(batched(space, states))
    assert sorted(rows) == [(i,) for i in range(24)]
    assert index.total == 24


def test_whole_numbers_in_a_box() -> None:
    index = TableIndex(spaces.Box(0, 255, (1,), np.uint8), bins=2)
    assert index(np.array([[0], [127], [128], [255]], np.uint8)) == [(0,), (0,), (1,), (1,)]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 11, (2,), np.int32),
        spaces.Box(np.array([-3, 250]), np.array([2, 255]), dtype=np.int16),
        spaces.Box(7, 7, (2, 1), np.int64),
        spaces.Dict(at=spaces.Box(0, 2, (2,), np.int8), lit=spaces.Discrete(2, start=1)),
    ],
)
def test_whole_numbers_in_a_box_are_counted(space: gym.Space) -> None:
    """Every state has a row of its own, and what is outside is refused."""
    one_to_one(space)


def test_whole_numbers_are_counted_row_by_row() -> None:
    index = TableIndex(spaces.Box(0, 11, (2,), np.int32))
    assert index.total == 144
    assert index(np.array([[0, 0], [0, 11], [3, 5], [11, 11]], np.int32)) == [
        (0,),
        (11,),
        (41,),
        (143,),
    ]
    assert TableIndex(spaces.Box(2, 5, (), np.uint8))(np.array([2, 5], np.uint8)) == [(0,), (3,)]
    with pytest.raises(RunError, match=r"observation \[12, 0\]"):
        index(np.array([[12, 0]], np.int32))


@pytest.mark.parametrize(
    "space, said",
    [
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), "an image is for a --network"),
        (spaces.Box(0, 1, (4, 4), np.uint8), "an image is for a --network"),
        (spaces.Dict(a=spaces.Box(0, 1, (2, 2, 2), np.int64)), "an image is for a --network"),
        (spaces.Box(0, 255, (128,), np.uint8), "308 states are too many; give --bins 8"),
        (spaces.Box(2**63, 2**63 + 5, (1,), np.uint64), "give --bins 8"),
        (spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64), "give --bins 8"),
        (spaces.Dict(a=spaces.Box(0, 9, (1,), int), b=spaces.Box(0, 1, (1,))), "give --bins 8"),
    ],
)
def test_what_cannot_be_counted_is_named(space: gym.Space, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TableIndex(space)


def test_countable_boxes_are_bounded_by_memory() -> None:
    space = spaces.Box(0, 2**20 - 1, (2,), np.int32)
    with pytest.raises(UsageError, match=r"1,099,511,627,776 states x 2 actions .* --bins"):
        QLearning(space, spaces.Discrete(2))


def test_text_is_named_by_its_key_with_the_way_on() -> None:
    """By tables and networks, ours and of users."""
    takers = (TableIndex, MLP, encoder, lambda space: dummy(space, (1, 1)))
    mission = spaces.Dict(image=spaces.Discrete(3), mission=spaces.Text(9))
    deep = spaces.Dict(seen=spaces.Tuple((spaces.Discrete(2), mission)))
    for space, key in ((mission, "mission"), (deep, "seen/1/mission")):
        for take in takers:
            with pytest.raises(UsageError, match=f"key '{key}' is Text, .* hide={key} leaves it"):
                take(space)


def test_one_tile_is_bins() -> None:
    numbers = np.random.default_rng(0).normal(size=(50, 1)) * 2
    assert TableIndex(LINE, 8, tiles=1)(numbers) == TableIndex(LINE, 8)(numbers)


def test_tiles_by_hand() -> None:
    """4 bins of width 1, two tilings of 5 tiles: the second is shifted by half a width."""
    index = TableIndex(LINE, bins=4, tiles=2)
    assert index.total == 10
    expected = {-2: (0, 5), -1.4: (0, 6), -0.9: (1, 6), -0.5: (1, 7), 1.9: (3, 9)}
    assert index(column(*expected)) == list(expected.values())
    # what is outside looks like the end that it lies beyond
    assert index(column(-9, 2, 9)) == [(0, 5), (3, 9), (3, 9)]


def test_tiles_of_two_dimensions_by_hand() -> None:
    """4 tilings shifted by (0, 0), (1, 3), (2, 2), (3, 1) quarters of a width; 3 x 3 tiles each."""
    index = TableIndex(spaces.Box(0, 2, (2,)), bins=2, tiles=4)
    assert index.total == 36
    ((first, second, third, fourth),) = index(np.array([[0.3, 0.4]]))
    # in widths (.3, .4), (.55, 1.15), (.8, .9), (1.05, .65)
    assert (first, second, third, fourth) == (0, 9 + 1, 18, 27 + 3)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.lists(st.floats(-5, 5), min_size=2, max_size=2),
    st.integers(0, 1),
)
def test_tilings(bins: int, tiles: int, point: list[float], dimension: int) -> None:
    """One row a tiling, in the range of that tiling; near neighbours share all but a few."""
    index = TableIndex(spaces.Box(-3, 3, (2,)), bins, tiles)
    here = np.array([point])
    there = here.copy()
    there[0, dimension] += 6 / bins / tiles * 0.99  # less than the least shift
    (rows,), (others,) = index(here), index(there)
    assert [row // index.size for row in rows] == list(range(tiles))
    shared = sum(a == b for a, b in zip(rows, others, strict=True))
    assert shared >= tiles - 1


@pytest.mark.parametrize("tiles", range(1, 13))
def test_every_dimension_is_shifted_by_every_share_of_a_width(tiles: int) -> None:
    for dimensions in range(1, 9):
        shifts = offsets(dimensions, tiles)
        expected = np.arange(tiles)[:, None].repeat(dimensions, 1) / tiles
        np.testing.assert_array_equal(np.sort(shifts, 0), expected)
        different = min(dimensions, math.factorial(tiles))
        assert len(np.unique(shifts, axis=1).T) == different
        # by 1, 3, 5 ... shares, as in Sutton & Barto, where these give different dimensions
        if tiles in (2, 4, 8) and dimensions <= tiles // 2:
            odd = np.arange(tiles)[:, None] * (2 * np.arange(dimensions) + 1)
            np.testing.assert_array_equal(shifts, odd % tiles / tiles)


def test_five_tilings_in_four_dimensions() -> None:
    """Along each of them 4 bins of 5 tilings tell 20 places apart."""
    index = TableIndex(spaces.Box(0, 1, (4,)), bins=4, tiles=5)
    for dimension in range(4):
        points = np.full((200, 4), 0.01)
        points[:, dimension] = np.linspace(0.001, 0.999, 200)
        assert len(set(index(points))) == 20


def test_neighbours_share_and_strangers_do_not() -> None:
    index = TableIndex(LINE, bins=4, tiles=8)
    (near, next_to, far) = (set(row) for row in index(column(0.01, 0.26, 1.5)))
    assert len(near & next_to) == 6
    assert not near & far


@pytest.mark.parametrize("name", ["MountainCar-v0", "CartPole-v1", "Acrobot-v1", "Pendulum-v1"])
def test_environments_of_users(name: str) -> None:
    """Whatever is seen has its rows, and different states mostly different ones."""
    env = gym.make(name)
    index = TableIndex(env.observation_space, bins=4, tiles=4)
    env.reset(seed=0)
    env.action_space.seed(0)
    seen = np.array([env.step(env.action_space.sample())[0] for _ in range(9)])
    rows = np.array(index(seen))
    assert rows.shape == (9, 4)
    assert rows.min() >= 0 and rows.max() < index.total


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(3),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Tuple((spaces.Discrete(2), spaces.Text(3))),
    ],
)
def test_other_spaces_are_refused(space: gym.Space) -> None:
    with pytest.raises(UsageError, match="a table takes Discrete"):
        TableIndex(space)


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(), "--bins 8"),
        (dict(tiles=8), "--bins 8"),
        (dict(bins=0), "bins 0"),
        (dict(bins=2.5), "bins 2.5"),
        (dict(bins=4, tiles=0), "tiles 0"),
        (dict(bins=4, ranges={1: (0, 1)}), "bin range 1=0:1.* one of the 1 real"),
        (dict(bins=4, ranges={-1: (0, 1)}), "bin range -1"),
        (dict(bins=4, ranges={0: (1, 1)}), "bin range 0=1:1: expected low < high"),
        (dict(bins=4, ranges={0: (2, 1)}), "bin range 0=2:1"),
        (dict(bins=4, ranges={0: (float("nan"), 1)}), "bin range 0=nan:1"),
        (dict(bins=4, ranges={0: (0, float("inf"))}), "bin range 0=0:inf"),
    ],
)
def test_bins_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        TableIndex(LINE, **options)


def test_ends_beyond_3_need_a_range() -> None:
    far = spaces.Box(5, np.inf, (1,))
    with pytest.raises(UsageError, match=r"dimension 0 .* 5 to inf.* --bin-range 0="):
        TableIndex(far, bins=4)
    assert TableIndex(far, bins=4, ranges={0: (5, 9)})(column(6.5)) == [(1,)]


def test_more_states_than_could_ever_be_counted_are_refused() -> None:
    with pytest.raises(UsageError, match="10\\^19117 states are too many"):
        TableIndex(spaces.Box(0, 255, (84, 84, 3), np.uint8), bins=8)
    with pytest.raises(UsageError, match="10\\^80 states"):
        TableIndex(spaces.MultiDiscrete([10] * 80))


def test_agents_take_any_of_them() -> None:
    space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (2,)))
    agent = QLearning(TableIndex(space, bins=3), spaces.Discrete(4))
    assert agent.q.shape == (2 * 9, 4)
    obs = create_empty_array(space, 5)
    assert batch_space(space, 5).contains(obs)
    assert agent.act(obs, np.ones(5, bool)).action.shape == (5,)
