"""Finite models: read, checked, drawn from bit for bit as Gymnasium draws."""

import collections
import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.envs.toy_text import BlackjackEnv, CliffWalkingEnv, FrozenLakeEnv, TaxiEnv
from gymnasium.envs.toy_text.utils import categorical_sample
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit, TransformReward
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrl.core.errors import RunError, UsageError
from seqrl.envs import blackjack
from seqrl.envs.finite import (
    FiniteMDP,
    check_unchanged,
    finite_model,
    garnet,
    listed_outcomes,
    matrices,
    tabulate,
    time_limit,
)

COIN = {  # two states: 0 tosses a coin, 1 is left for certain
    0: {0: [(0.25, 0, 1.0, False), (0.75, 1, -2.0, True)], 1: [(1.0, 1, 0.5, False)]},
    1: {0: [(1.0, 0, 0.0, False)], 1: [(0.5, 1, 3.0, False), (0.5, 0, 4.0, True)]},
}
START = [0.5, 0.5]
Toy = Callable[[], Any]
TOYS: list[Toy] = [
    lambda: FrozenLakeEnv(),
    lambda: FrozenLakeEnv(map_name="8x8", success_rate=0.7, reward_schedule=(2, -1, 0)),
    lambda: FrozenLakeEnv(desc=["SFS", "FHF", "SFG"], is_slippery=False),
    lambda: CliffWalkingEnv(),
    lambda: CliffWalkingEnv(is_slippery=True),
    lambda: TaxiEnv(),
    lambda: TaxiEnv(is_rainy=True),
]


def test_a_model_holds_the_lists_and_pads_them() -> None:
    model = tabulate(COIN, START)
    np.testing.assert_array_equal(model.outcomes, [[2, 1], [1, 2]])
    np.testing.assert_array_equal(model.probability[0], [[0.25, 0.75], [1.0, 0.0]])
    np.testing.assert_array_equal(model.next_state[0], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(model.reward[1], [[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_array_equal(model.terminated[1], [[False, False], [False, True]])
    np.testing.assert_array_equal(model.cumulative[0], [[0.25, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(model.initial, START)
    assert model.next_state.dtype == np.int64 and model.terminated.dtype == bool
    assert all(array.flags.c_contiguous for array in model)
    assert listed_outcomes(model) == COIN


@pytest.mark.parametrize("toy", TOYS)
def test_gymnasiums_models_are_read_exactly(toy: Toy) -> None:
    env = toy()
    model = finite_model(env)
    assert model is not None
    assert listed_outcomes(model) == env.P
    np.testing.assert_array_equal(model.initial, env.initial_state_distrib)
    for s, a in np.ndindex(*model.outcomes.shape):
        running = np.cumsum([outcome[0] for outcome in env.P[s][a]])
        np.testing.assert_array_equal(model.cumulative[s, a, : len(running)], running)


class Fixed:
    """A generator that always gives the same number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize(
    "chances",
    [[0.3, 0.3, 0.4], [1 / 3] * 3, [0.1] * 10, [0.0, 1.0], [0.7, 0.3 - 5e-9], [1.0], [0.5, 0, 0.5]],
)
def test_padding_is_never_drawn_even_where_rounding_leaves_a_gap(chances: list[float]) -> None:
    wide = [(0.1, 0, 0.0, False)] * 10 + [(0.0, 0, 0.0, False)] * 2  # pads the other pair to K = 12
    model = tabulate({0: {0: [(p, 0, k, False) for k, p in enumerate(chances)], 1: wide}}, [1.0])
    env = FiniteMDP(listed_outcomes(model), [1.0])
    edges = np.cumsum(chances)
    draws = [0.0, 1 - 2**-53, *edges, *np.nextafter(edges, 0), *np.nextafter(edges, 2)]
    for u in draws:
        want = categorical_sample(chances, Fixed(u))
        assert np.argmax(model.cumulative[0, 0] > u) == want < len(chances)
        env.s, env._np_random = 0, Fixed(u)
        assert env.step(0)[1] == want  # outcome k pays k


def test_models_are_known_by_exact_type_and_plain_wrappers_only() -> None:
    class MyLake(FrozenLakeEnv):
        pass

    assert finite_model(gym.make("FrozenLake-v1")) is not None
    assert finite_model(gym.make("CliffWalkingSlippery-v1", max_episode_steps=5)) is not None
    assert finite_model(FiniteMDP(COIN, START)) is not None
    assert finite_model(MyLake()) is None
    assert finite_model(TaxiEnv(fickle_passenger=True)) is None
    assert finite_model(BlackjackEnv()) is None
    assert finite_model(TransformReward(FrozenLakeEnv(), lambda r: -r)) is None
    assert finite_model(RecordEpisodeStatistics(FrozenLakeEnv())) is None


def test_the_time_limit_is_what_the_wrappers_do() -> None:
    assert time_limit(gym.make("Taxi-v4")) == 200
    assert time_limit(TimeLimit(gym.make("FrozenLake-v1"), 30)) == 30
    assert time_limit(gym.make("FrozenLake-v1", max_episode_steps=-1)) is None
    assert time_limit(gym.make("CliffWalking-v1")) is None
    assert time_limit(gym.make("FrozenLake-v1").unwrapped) is None


def wrong(s: int, a: int, outcomes: object) -> dict:
    P: dict[int, dict[int, Any]] = copy.deepcopy(COIN)
    P[s][a] = outcomes
    return P


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("P", "message"),
    [
        (wrong(1, 0, [(0.9, 0, 0.0, False)]), r"P\[1\]\[0\]: probabilities sum to 0.9, expected 1"),
        (wrong(0, 1, [(1 + 2e-8, 0, 0.0, False)]), r"P\[0\]\[1\]: probabilities sum to 1.00000002"),
        (wrong(1, 1, [(-0.5, 0, 0, 0), (1.5, 0, 0, 0)]), r"P\[1\]\[1\]\[0\]: probability -0.5"),
        (wrong(0, 0, [(NAN, 0, 0.0, False)]), r"P\[0\]\[0\]\[0\]: probability nan"),
        (wrong(1, 1, [(1.0, 2, 0.0, False)]), r"P\[1\]\[1\]\[0\]: next state 2, .* from 0 to 1"),
        (wrong(1, 1, [(1.0, -1, 0.0, False)]), "next state -1"),
        (wrong(1, 1, [(1.0, 0.5, 0.0, False)]), "next state 0.5, expected a whole number"),
        (
            wrong(0, 0, [(0.5, 0, 0, 0), (0.5, 0, NAN, 0)]),
            r"P\[0\]\[0\]\[1\]: reward nan, .*finite",
        ),
        (wrong(0, 0, [(1.0, 0, -INF, False)]), "reward -inf"),
        (wrong(0, 0, [(1.0, 0, 0.0, 2)]), "terminated 2, expected True or False"),
        (wrong(0, 0, []), r"P\[0\]\[0\] has no outcomes"),
        (wrong(0, 0, [(1.0, 0, 0.0)]), r"P\[0\]\[0\]\[0\] is \(1.0, 0, 0.0\): expected \(probab"),
        (wrong(0, 0, 1.0), r"P\[0\]\[0\] is 1.0: expected its outcomes"),
        ({0: COIN[0], 1: {0: COIN[1][0]}}, r"P\[1\] has 1 actions: expected 2"),
        ({0: COIN[0], 1: {0: COIN[1][0], 2: COIN[1][1]}}, r"P\[1\]\[1\] is missing"),
        ({1: COIN[0], 2: COIN[1]}, r"P\[0\] is missing: states are numbered 0 to 1"),
        ({}, "P has no states"),
        (None, "P is None: expected its states"),
        (np.full((2, 2, 2), 0.5), "for matrices see `matrices`"),
    ],
)
def test_a_wrong_model_is_refused_by_name(P: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FiniteMDP(P, START)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ([1.0], "each of the 2 states"),
        ("first", "each of the 2 states"),
        ([0.5, 0.4], "sum to 0.9"),
        ([1.5, -0.5], r"initial\[1\]: probability -0.5"),
        ([NAN, 1.0], r"initial\[0\]: probability nan"),
    ],
)
def test_wrong_starts_are_refused(initial: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FiniteMDP(COIN, initial)


def test_lists_arrays_and_matrices_make_the_same_model() -> None:
    nested = [[[list(o) for o in COIN[s][a]] for a in (0, 1)] for s in (0, 1)]
    array = np.zeros((2, 2, 2, 4))
    for s, a in np.ndindex(2, 2):
        array[s, a, : len(COIN[s][a])] = COIN[s][a]
    assert listed_outcomes(tabulate(nested, START)) == COIN
    np.testing.assert_array_equal(tabulate(array, START).reward, tabulate(COIN, START).reward)

    chances = np.array([[[0.25, 0.75]], [[1.0, 0.0]]])  # [S, A, S]
    built = {0: {0: [(0.25, 0, 7.0, False), (0.75, 1, 7.0, True)]}, 1: {0: [(1.0, 0, 8.0, False)]}}
    assert matrices(chances, [[7.0], [8.0]], terminal=[False, True]) == built
    pay = [[[1.0, 2.0]], [[3.0, 4.0]]]  # [S, A, S]
    assert matrices(chances, pay)[0][0] == [(0.25, 0, 1.0, False), (0.75, 1, 2.0, False)]
    for args in [(chances[0], 0), (chances, [7.0, 8.0]), (chances, pay, [True])]:
        with pytest.raises(UsageError, match="expected"):
            matrices(*args)


def play(env: gym.Env, steps: int, limit: int = 50) -> list:
    """What happens under seeded actions with resets at the end or a limit, and the last draw."""
    chooser = np.random.default_rng(5)
    seen: list = [env.reset(seed=11)]
    since = 0
    for _ in range(steps):
        seen.append(env.step(int(chooser.integers(env.action_space.n))))
        since += 1
        if seen[-1][2] or since == limit:
            seen.append(env.reset())
            since = 0
    return [*seen, env.np_random.random()]


def observable(log: list) -> list:
    """Without `action_mask`, which only Taxi has."""
    return [(*x[:-1], x[-1]["prob"]) if isinstance(x, tuple) else x for x in log]


@pytest.mark.parametrize("toy", TOYS)
def test_a_copy_of_a_toy_text_model_steps_bit_for_bit_like_it(toy: Toy) -> None:
    env = toy()
    twin = FiniteMDP(env.P, env.initial_state_distrib)
    assert observable(play(twin, 1_000)) == observable(play(env, 1_000))
    assert twin.s == env.s and twin.lastaction == env.lastaction


def test_one_draw_a_reset_and_one_a_step() -> None:
    env = FiniteMDP(COIN, START)
    env.reset(seed=3)
    env.step(1)
    env.step(0)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3)))
    rng.random(3)
    assert env.np_random.bit_generator.state == rng.bit_generator.state


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 3), st.data())
def test_steps_follow_the_models_distribution(
    states: int, actions: int, data: st.DataObject
) -> None:
    seed, branching = data.draw(st.integers(0, 2**32)), data.draw(st.integers(1, states))
    env = FiniteMDP(*garnet(states, actions, branching, seed=seed, terminal=0.2))
    env.reset(seed=seed)
    s, a, draws = seed % states, seed % actions, 2_000
    counts: collections.Counter = collections.Counter()
    for _ in range(draws):
        env.s = s
        counts[env.step(a)[:3]] += 1
    listed = env.P[s][a]
    assert sum(counts.values()) == sum(counts[outcome[1:]] for outcome in listed)  # none other
    for probability, *outcome in listed:  # rewards are continuous: outcomes are distinct
        spread = np.sqrt(draws * probability * (1 - probability))
        assert abs(counts[tuple(outcome)] - draws * probability) <= 4.5 * spread + 1


def test_gymnasiums_checker_passes_without_a_warning() -> None:
    spec = EnvSpec(
        id="seqrl/FiniteMDP-v0", entry_point=FiniteMDP, kwargs={"P": COIN, "initial": START}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(spec).unwrapped)
    limited = gym.make(spec, max_episode_steps=7)
    assert time_limit(limited) == 7 and finite_model(limited) is not None


def test_wrong_steps_are_refused() -> None:
    env = FiniteMDP(COIN, START)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    for action in (-1, 2, 0.5):
        with pytest.raises(UsageError, match="expected 0 to 1"):
            env.step(action)


def test_a_changed_P_is_detected() -> None:
    given_P = copy.deepcopy(COIN)
    env = FiniteMDP(given_P, START)
    given_P[0][0] = [(1.0, 0, 9.0, False)]
    check_unchanged(env, env.model)  # the caller's dict is copied

    env.P[0][1] = [(1.0, 1, 0.25, False)]
    with pytest.raises(RunError, match="P was changed after the start"):
        check_unchanged(env, env.model)
    assert finite_model(env) is env.model  # what it draws by
    env.P[0][1] = [(0.9, 1, 0.5, False)]
    with pytest.raises(RunError, match=r"wrong now: .* sum to 0.9"):
        check_unchanged(env, env.model)
    env.P[0][1] = list(COIN[0][1])
    check_unchanged(env, env.model)
    env.initial_state_distrib[:] = [1.0, 0.0]
    with pytest.raises(RunError, match="changed"):
        check_unchanged(env, env.model)

    lake = gym.make("FrozenLake-v1")
    model = finite_model(lake)
    assert model is not None
    check_unchanged(lake, model)
    lake.unwrapped.P[14][2].reverse()  # the same distribution, but other draws
    with pytest.raises(RunError, match="changed"):
        check_unchanged(lake, model)


def test_garnets_are_random_by_their_seed_alone() -> None:
    P, initial = garnet(6, 3, 4, seed=2, terminal=0.25)
    assert (P, initial.tolist()) == (garnet(6, 3, 4, seed=2, terminal=0.25)[0], [1 / 6] * 6)
    assert P != garnet(6, 3, 4, seed=3, terminal=0.25)[0]
    for pair in (P[s][a] for s in P for a in P[s]):
        *going, end = pair
        assert [o[3] for o in pair] == [False] * 4 + [True] and end[0] == 0.25
        assert len({o[1] for o in going}) == len({o[0] for o in going}) == 4
        assert min(o[0] for o in going) > 0
    model = tabulate(*garnet(6, 3, 6, seed=2, terminal=0))
    assert model.probability.shape == (6, 3, 6) and not model.terminated.any()


@pytest.mark.parametrize(
    ("states", "actions", "branching", "terminal"),
    [(0, 1, 1, 0.1), (2, 0, 1, 0.1), (2, 1, 3, 0.1), (2, 1, 0, 0.1), (2, 1, 1, 1.5)],
)
def test_impossible_garnets_are_refused(
    states: int, actions: int, branching: int, terminal: float
) -> None:
    with pytest.raises(UsageError, match="expected 1 <= branching <= states"):
        garnet(states, actions, branching, seed=0, terminal=terminal)


class Deck:
    """A generator whose cards are known beforehand."""

    def __init__(self, *cards: int) -> None:
        self.cards = list(cards)

    def choice(self, deck: list[int]) -> int:
        return self.cards.pop(0)


def hands(ace: bool) -> list[list[int]]:
    """A hand of each sum from 4 to 21, or from 12 to 21 with a usable ace."""
    if ace:
        return [[1, 1], *([1, low - 1] for low in range(3, 11)), [1, 4, 6]]
    return [[min(10, total - 2), total - min(10, total - 2)] for total in range(4, 21)] + [
        [10, 9, 2]
    ]


@pytest.mark.parametrize("ace", [False, True])
def test_blackjack_hits_like_gymnasiums(ace: bool) -> None:
    P = listed_outcomes(blackjack.blackjack_model())
    env = BlackjackEnv(sab=True)
    for hand in hands(ace):
        for card in range(1, 11):
            env.player, env.dealer, env._np_random = list(hand), [7, 7], Deck(card)
            before = blackjack.index(env._get_obs()[::2], 7)
            assert env._get_obs()[2] == ace
            seen, reward, over, *_ = env.step(1)
            chance = 4 / 13 if card == 10 else 1 / 13
            found = P[before][1][card - 1]
            assert found == (chance, blackjack.index(seen[::2], 7), reward, over)


@pytest.mark.parametrize(("sab", "natural"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("dealer", [[1, 10], [10, 1], [10, 5, 6], [5, 2, 10], [9, 10], [10, 5, 10]])
@pytest.mark.parametrize("hand", [[1, 10], [1, 4, 6], [10, 9], [1, 6], [10, 2]])
def test_blackjack_pays_like_gymnasiums(
    sab: bool, natural: bool, dealer: list[int], hand: list[int]
) -> None:
    env = BlackjackEnv(sab=sab, natural=natural)
    env.player, env.dealer, env._np_random = list(hand), dealer[:2], Deck(*dealer[2:])
    reward = env.step(0)[1]
    score = sum(dealer) + 10 * (1 in dealer)
    pay = blackjack._natural_payoff(sab, natural) if hand == [1, 10] else blackjack._payoff
    player = sum(hand) + 10 * (1 in hand)
    assert reward == pay(player, score if score <= 21 else 0, sorted(dealer) == [1, 10])


def test_blackjack_deals_and_plays_the_dealer_by_the_book() -> None:
    """Two-card chances and the dealer's last card, by hand."""
    dealt = blackjack._dealt_hands()
    assert sum(dealt.values()) == pytest.approx(1)
    assert dealt[21, 1] == pytest.approx(2 * 1 / 13 * 4 / 13)
    assert dealt[20, 0] == pytest.approx((4 / 13) ** 2)
    assert dealt[12, 1] == pytest.approx((1 / 13) ** 2)
    assert dealt[5, 0] == pytest.approx(2 * (1 / 13) ** 2)  # 2 and 3
    from_16 = {17: 1, 18: 1, 19: 1, 20: 1, 21: 1, 0: 8}  # of 13 cards: ace to five, else bust
    for score, count in from_16.items():
        assert blackjack._dealer_scores((16, 0))[score] == pytest.approx(count / 13)
    # soft 16: ace to five make 17 to 21; six to nine make hard 12 to 15, a ten hard 16
    cards = {12: 1, 13: 1, 14: 1, 15: 1, 16: 4}
    bust = sum(count / 13 * blackjack._dealer_scores((low, 0))[0] for low, count in cards.items())
    assert blackjack._dealer_scores((16, 1))[0] == pytest.approx(bust)
    assert blackjack._dealer_scores((17, 1)) == {17: 1.0}  # stands on a soft 17


def test_blackjack_as_gymnasium_plays_it() -> None:
    """Seeded games of sticking at once: rewards and deals within 4 standard errors."""
    model = blackjack.blackjack_model(sab=True)
    np.testing.assert_allclose(model.initial.sum(), 1)
    assert model.probability.shape == (714, 2, 10) and len(blackjack.observed()) == 714
    env, games = BlackjackEnv(sab=True), 6_000
    env.reset(seed=0)
    rewards, starts = [], collections.Counter[int]()
    for _ in range(games):
        seen, _ = env.reset()
        starts[blackjack.index(seen[::2], seen[1])] += 1
        rewards.append(env.step(0)[1])
    expected = (model.probability * model.reward).sum(-1)[:, 0] @ model.initial
    assert abs(np.mean(rewards) - expected) <= 4 * np.std(rewards) / np.sqrt(games)
    deals = np.bincount(blackjack.observed(), model.initial, blackjack.NUM_OBSERVATIONS)
    assert sum(deals[s] for s in starts) > 0.99 and (deals[list(starts)] > 0).all()
    likely = int(deals.argmax())
    spread = np.sqrt(games * deals[likely] * (1 - deals[likely]))
    assert abs(starts[likely] - games * deals[likely]) <= 4 * spread


def test_models_need_neither_torch_nor_numba() -> None:
    code = (
        "import sys, seqrl.envs.finite, seqrl.envs.blackjack, seqrl.envs.optimum\n"
        "assert not {'torch', 'numba'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
