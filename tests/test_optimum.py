"""The exact optimum: by hand, by value iteration, and the published figures."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrl.core.errors import UsageError
from seqrl.envs import optimum as module
from seqrl.envs.blackjack import blackjack_model, observed
from seqrl.envs.finite import FiniteMDP, Model, finite_model, garnet, tabulate
from seqrl.envs.optimum import action_values, optimum, policy_value, reachable, start_value
from seqrl.training.pictures.behaviour import is_worse

# State 0: action 0 stays and pays 1, action 1 moves to state 1 for nothing.
# State 1: action 0 ends and pays 3 with chance 1/2, else stays; action 1 returns and pays 1.
TWO = tabulate(
    {
        0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 1, 0.0, False)]},
        1: {0: [(0.5, 0, 3.0, True), (0.5, 1, 0.0, False)], 1: [(1.0, 0, 1.0, False)]},
    },
    [0.75, 0.25],
)


def model_of(name: str, **options: object) -> Model:
    model = finite_model(gym.make(name, **options))
    assert model is not None
    return model


def test_discounted_by_hand() -> None:
    """gamma 1/2. Staying is worth 2; ending x = 3/2 + x/4 = 2, returning 1 + 2/2 = 2: a tie."""
    best = optimum(TWO, 0.5)
    np.testing.assert_allclose(best.value, [2, 2], rtol=1e-14)
    np.testing.assert_allclose(best.q, [[2, 1], [2, 2]], rtol=1e-14)
    np.testing.assert_array_equal(best.policy, [0, 0])  # ties take the first
    assert best.start_value == pytest.approx(2)


def test_patience_changes_the_policy() -> None:
    """gamma 0: grab the reward now. gamma 3/4: staying is worth 4, so return: 1 + 3 = 4."""
    impatient = optimum(TWO, 0.0)
    np.testing.assert_array_equal(impatient.policy, [0, 0])
    np.testing.assert_allclose(impatient.value, [1, 1.5])
    patient = optimum(TWO, 0.75)
    np.testing.assert_array_equal(patient.policy, [0, 1])
    np.testing.assert_allclose(patient.value, [4, 4])
    assert patient.q[1, 0] == pytest.approx(1.5 + 0.75 * 0.5 * 4)


def test_ties_within_rounding_take_the_first() -> None:
    tie = tabulate({0: {0: [(1.0, 0, 0.3, True)], 1: [(1.0, 0, 0.1 + 0.2, True)]}}, [1.0])
    assert optimum(tie, 0.9).q[0, 0] < optimum(tie, 0.9).q[0, 1]
    assert optimum(tie, 0.9).policy.tolist() == [0]
    assert optimum(tie, 1.0, 2).policy.tolist() == [[0], [0]]


def with_a_rich_state(reward: float, riches: float) -> Model:
    """A corridor 0, 1, 2, 3, and state 4 by itself, which pays `riches` and ends.

    Action 0 ends and pays 1, 2, 3, 4 rewards, action 1 moves on; the last pays 10 rewards.
    """
    corridor = {
        s: {0: [(1.0, s, (s + 1) * reward, True)], 1: [(1.0, s + 1, 0.0, False)]} for s in range(3)
    }
    ends = {0: [(1.0, 3, 4 * reward, True)], 1: [(1.0, 3, 10 * reward, True)]}
    rich = {0: [(1.0, 4, riches - reward, True)], 1: [(1.0, 4, riches, True)]}
    return tabulate({**corridor, 3: ends, 4: rich}, [0.5, 0, 0, 0, 0.5])


@pytest.mark.parametrize("reward", [1e-14, 1e-7, 1.0, 1e9])
@pytest.mark.parametrize("riches", [1e6, -1e12, 1e15])
def test_one_state_of_large_value_leaves_the_choices_in_others(
    reward: float, riches: float
) -> None:
    """By hand: 10 rewards at the end are 5.12, 6.4, 8 and 10 now, at gamma 4/5."""
    model = with_a_rich_state(reward, riches)
    endless, planned = optimum(model, 0.8), optimum(model, 0.8, 6)
    for found in (endless, planned):
        worth = np.array([5.12, 6.4, 8, 10]) * reward
        np.testing.assert_allclose(found.value[:4], worth, rtol=1e-12, atol=0)
    assert endless.policy[:4].tolist() == planned.policy[0, :4].tolist() == [1, 1, 1, 1]
    assert is_worse(endless.q, np.zeros(5, int))[:4].all()


def test_what_adds_up_to_nothing_is_a_tie() -> None:
    """Two actions with the same outcomes in another order, where rounding is 1e-11."""
    one, other = (0.1, 1, 1.1e6, False), (0.3, 1, 1e6 / 3, False)
    rest = (0.6, 1, -(0.1 * 1.1e6 + 0.3 * (1e6 / 3)) / 0.6, False)
    ends = [(1.0, 1, 0.0, True)]
    model = tabulate(
        {0: {0: [one, rest, other], 1: [one, other, rest]}, 1: {0: ends, 1: ends}}, [1.0, 0.0]
    )
    q = optimum(model, 0.9).q[0]
    assert q[0] < q[1] < 1e-9
    assert optimum(model, 0.9).policy[0] == optimum(model, 1.0, 3).policy[0, 0] == 0


def test_undiscounted_by_hand() -> None:
    """Steps to go 1: (1, 3/2). 2: (max(2, 3/2), max(3/2 + 3/4, 2)). 3: (3, 3)."""
    one, two, three = (optimum(TWO, 1.0, horizon) for horizon in (1, 2, 3))
    np.testing.assert_allclose(one.value, [1, 1.5])
    np.testing.assert_allclose(two.value, [2, 2.25])
    np.testing.assert_allclose(three.q, [[3, 2.25], [1.5 + 2.25 / 2, 3]])
    np.testing.assert_array_equal(three.policy, [[0, 1], [0, 0], [0, 0]])  # by steps done
    assert three.start_value == pytest.approx(0.75 * 3 + 0.25 * 3)
    halved = optimum(TWO, 0.5, 2)
    np.testing.assert_allclose(halved.value, [1.5, 1.875])


def test_policies_by_hand() -> None:
    """Ending: x = 3/2 + x/4. Half and half in 0: v = (1 + v/2)/2 + x/4 = 4/3 at gamma 1/2."""
    np.testing.assert_allclose(policy_value(TWO, [1, 0], 0.5), [1, 2])
    np.testing.assert_allclose(policy_value(TWO, [[0.5, 0.5], [1, 0]], 0.5), [4 / 3, 2])
    np.testing.assert_allclose(policy_value(TWO, [1, 0], 1.0, horizon=2), [1.5, 2.25])
    np.testing.assert_allclose(policy_value(TWO, [[0.5, 0.5], [1, 0]], 1.0, 1), [0.5, 1.5])
    plan = [[1, 1], [0, 0]]  # change places, then take what there is
    np.testing.assert_allclose(policy_value(TWO, plan, 1.0), [1.5, 2])
    np.testing.assert_allclose(policy_value(TWO, plan, 0.5), [0.75, 1.5])


def test_published_figures() -> None:
    lake = gym.make("FrozenLake-v1")
    assert optimum(lake, 1.0).start_value == pytest.approx(0.7442, abs=5e-5)
    assert optimum(lake, 1.0).policy.shape == (100, 16)
    cliff = gym.make("CliffWalking-v1", max_episode_steps=100)
    assert optimum(cliff, 1.0).start_value == pytest.approx(-13, abs=1e-12)
    assert optimum(gym.make("Taxi-v4"), 1.0).start_value == pytest.approx(7.93, abs=1e-9)


def test_the_best_stationary_policy_on_the_lake() -> None:
    """Optimal without end, within 100 steps 0.7402: and no change in a single state betters it."""
    lake = gym.make("FrozenLake-v1")
    model = model_of("FrozenLake-v1")
    policy = optimum(lake, 0.9999).policy
    best = start_value(model, policy_value(lake, policy, 1.0))
    assert best == pytest.approx(0.7402, abs=5e-5)
    for s, a in itertools.product(np.flatnonzero(reachable(model)), range(4)):
        other = policy.copy()
        other[s] = a
        assert start_value(model, policy_value(lake, other, 1.0)) <= best + 1e-12


def test_blackjack_by_dynamic_programming() -> None:
    """The optimum from a random deal, its strategy, and a poor one: stick on 20 and 21 only."""
    model = blackjack_model(sab=True)
    best = optimum(model, 1.0, 20)
    assert best.start_value == pytest.approx(-0.0431, abs=5e-5)
    # the book's strategy: stick on hard 17 and more, and on 13 to 16 against the dealer's 2 to 6
    table = best.policy[0][:704].reshape(32, 11, 2)
    assert (table[17:22, 1:, 0] == 0).all() and (table[4:12, 1:, 0] == 1).all()
    assert (table[13:17, 2:7, 0] == 0).all() and (table[12:17, 7:, 0] == 1).all()
    assert table[12, 1:, 0].tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]
    assert table[18, 1:, 1].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 1]  # soft 18
    twenty = np.arange(704).reshape(32, 11, 2) < 20 * 22
    played = twenty.ravel().astype(int)[observed()]
    assert start_value(model, policy_value(model, played, 1.0, 20)) < best.start_value - 0.1
    paid = [optimum(blackjack_model(False, x), 1.0, 20).start_value for x in (False, True)]
    assert paid[0] < best.start_value < paid[1]


def test_blackjack_lasts_at_most_20_steps() -> None:
    """Two aces, 19 more of them make 21: then any action ends it."""
    model = blackjack_model()
    goes_on = (model.probability > 0) & ~model.terminated
    alive, steps = model.initial > 0, 0
    while alive.any():
        alive = np.bincount(model.next_state[alive][goes_on[alive]], minlength=714) > 0
        steps += 1
    assert steps == 20


def value_iteration(model: Model, gamma: float) -> np.ndarray:
    """The oracle: the optimality equation applied until nothing moves."""
    value = np.zeros(len(model.initial))
    while True:
        new = action_values(model, value, gamma).max(-1)
        if abs(new - value).max() <= 1e-11 * (1 - gamma):  # then it is right to 1e-11
            return new
        value = new


random_models = st.builds(
    lambda s, a, b, seed, end: tabulate(*garnet(s, a, 1 + b % s, seed=seed, terminal=end)),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 8),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 0.5]),
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(random_models, st.floats(0, 0.9))
def test_policy_iteration_equals_value_iteration(model: Model, gamma: float) -> None:
    best = optimum(model, gamma)
    np.testing.assert_allclose(best.value, value_iteration(model, gamma), rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        policy_value(model, best.policy, gamma), best.value, rtol=0, atol=1e-10
    )
    np.testing.assert_allclose(best.q.max(-1), best.value, rtol=0, atol=1e-10)
    assert best.start_value == pytest.approx(best.value.mean(), abs=1e-10)


@pytest.mark.parametrize("name", ["FrozenLake8x8-v1", "CliffWalkingSlippery-v1", "Taxi-v4"])
def test_policy_iteration_equals_value_iteration_on_toy_text(name: str) -> None:
    model = model_of(name)
    best = optimum(model, 0.95)
    np.testing.assert_allclose(best.value, value_iteration(model, 0.95), rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(random_models, st.integers(1, 12), st.integers(0, 2**32))
def test_no_plan_beats_backward_induction(model: Model, horizon: int, seed: int) -> None:
    best = optimum(model, 1.0, horizon)
    np.testing.assert_allclose(policy_value(model, best.policy, 1.0), best.value, atol=1e-9)
    rng = np.random.default_rng(seed)
    plan = rng.integers(model.outcomes.shape[1], size=(horizon, len(model.initial)))
    assert (policy_value(model, plan, 1.0) <= best.value + 1e-9).all()
    mixed = rng.dirichlet(np.ones(model.outcomes.shape[1]), len(model.initial))
    assert (policy_value(model, mixed, 1.0, horizon) <= best.value + 1e-9).all()


@settings(deadline=None, max_examples=20, derandomize=True)
@given(random_models)
def test_a_long_horizon_is_as_good_as_none(model: Model) -> None:
    np.testing.assert_allclose(
        optimum(model, 0.8, 200).value, optimum(model, 0.8).value, rtol=0, atol=1e-10
    )


def test_states_after_the_end_are_known() -> None:
    holes_and_goal = [5, 7, 11, 12, 15]
    assert np.flatnonzero(~reachable(model_of("FrozenLake-v1"))).tolist() == holes_and_goal
    cliff = reachable(model_of("CliffWalking-v1"))
    assert np.flatnonzero(~cliff).tolist() == list(range(37, 48))  # the cliff and the goal
    assert reachable(model_of("Taxi-v4")).sum() == 400  # 500 less passenger at the destination
    assert reachable(TWO).tolist() == [True, True]
    ends = {0: {0: [(0.0, 1, 0.0, False), (1.0, 2, 0.0, True)]}}
    loop = [(1.0, 0, 0.0, False)]
    chain = tabulate(ends | {1: {0: loop}, 2: {0: loop}}, [1.0, 0.0, 0.0])
    assert reachable(chain).tolist() == [True, False, False]


def test_what_cannot_be_solved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="gamma 1 without a time limit: give horizon"):
        optimum(gym.make("CliffWalking-v1"), 1.0)
    with pytest.raises(UsageError, match="gamma 1 without a time limit"):
        policy_value(TWO, [0, 0], 1.0)
    with pytest.raises(UsageError, match="no finite model is known"):
        optimum(gym.make("CartPole-v1"), 0.9)
    for gamma in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="expected a number from 0 to 1"):
            optimum(TWO, gamma)
    for horizon in (0, 2.5):
        with pytest.raises(UsageError, match="expected a whole number of steps"):
            optimum(TWO, 1.0, horizon)
    monkeypatch.setattr(module, "MAX_DENSE_STATES", 1)
    with pytest.raises(UsageError, match=r"2 states: .* at most 1 is solved; give horizon"):
        optimum(TWO, 0.9)
    assert optimum(TWO, 0.9, 5).policy.shape == (5, 2)


@pytest.mark.parametrize(
    "policy",
    [
        [0],
        [0, 2],
        [-1, 0],
        [0.5, 0.5],
        [[0.5, 0.4], [1.0, 0.0]],
        [[1.5, -0.5], [1.0, 0.0]],
        [[0, 1, 0]],
        [[float("nan"), 1.0], [1.0, 0.0]],
    ],
)
def test_policies_that_do_not_fit_are_refused(policy: list) -> None:
    with pytest.raises(UsageError, match=r"policy .* expected"):
        policy_value(TWO, policy, 0.9)


def test_a_plan_has_its_own_horizon() -> None:
    with pytest.raises(UsageError, match=r"of shape \[3, 2\]"):
        policy_value(TWO, [[0, 0]], 1.0, horizon=3)
    lake = gym.make("FrozenLake-v1")
    assert (
        policy_value(lake, optimum(lake, 1.0, 30).policy, 1.0)[14] == optimum(lake, 1, 30).value[14]
    )


def test_an_environment_of_ones_own() -> None:
    env = FiniteMDP(*garnet(4, 2, 2, seed=0))
    np.testing.assert_array_equal(optimum(env, 0.9).value, optimum(env.model, 0.9).value)
