"""The exact model of Gymnasium's Blackjack-v1, which does not come with one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from seqrl.envs.finite import Model, Successor, Successors, tabulate

CARDS = {card: 1 / 13 for card in range(1, 10)} | {10: 4 / 13}  # an endless deck; 1 is the ace
SHAPE = (32, 11, 2)  # the observation: player's sum, dealer's card, usable ace
NUM_OBSERVATIONS = int(np.prod(SHAPE))  # 704; then one natural for each card of the dealer
STICK, HIT = 0, 1

Hand = tuple[int, int]  # the sum and whether an ace in it counts 11 (1) or not (0)


def blackjack_model(sab: bool = True, natural: bool = False) -> Model:
    """Blackjack-v1 as a finite model of 714 states: Sutton & Barto (2018), example 5.1.

    State (sum * 11 + dealer's card) * 2 + usable ace: the observation in C order. A natural (ace
    and ten as dealt) looks like (21, card, 1) but may pay differently: it is state 703 + card, and
    `observed()` maps it to the observation. Impossible states end with reward 0.
    `sab` and `natural` are Gymnasium's: with `sab` a natural beats all but the dealer's own,
    else `natural` pays 1.5 for one that wins. Episodes last at most 20 steps.
    """
    impossible: list[Successor] = [(1.0, 0, 0.0, True)]
    P: Successors = {s: {STICK: impossible, HIT: impossible} for s in range(NUM_OBSERVATIONS + 10)}
    initial = np.zeros(NUM_OBSERVATIONS + 10)
    for card, p in CARDS.items():
        for total in range(4, 22):
            for ace in range(2 if total >= 12 else 1):
                s, stick = index((total, ace), card), _stick((total, ace), card, _payoff)
                P[s] = {STICK: stick, HIT: _hit((total, ace), card)}
        s, stick = NUM_OBSERVATIONS - 1 + card, _stick((21, 1), card, _natural_payoff(sab, natural))
        P[s] = {STICK: stick, HIT: _hit((21, 1), card)}
        for hand, q in _dealt_hands().items():
            initial[s if hand == (21, 1) else index(hand, card)] += p * q
    return tabulate(P, initial)


def index(hand: Hand, card: int) -> int:
    """Return the state of the observation (sum, dealer's card, usable ace)."""
    return int(np.ravel_multi_index((hand[0], card, hand[1]), SHAPE))


def observed() -> np.ndarray:
    """Return the observation's index of every state, int64 [714], as in `policy[observed()]`."""
    naturals = [index((21, 1), card) for card in range(1, 11)]
    return np.concatenate([np.arange(NUM_OBSERVATIONS), naturals])


def _add_card(hand: Hand, card: int) -> Hand:
    """Return the hand with one more card; an ace counts 11 where that does not bust."""
    total, ace = hand
    low = total - 10 * ace + card  # every ace as 1
    usable = (ace or card == 1) and low + 10 <= 21
    return (low + 10, 1) if usable else (low, 0)


@cache
def _dealt_hands() -> dict[Hand, float]:
    """Return the probabilities of the hands of two cards."""
    hands: dict[Hand, float] = {}
    for first, p in CARDS.items():
        for second, q in CARDS.items():
            hand = _add_card(_add_card((0, 0), first), second)
            hands[hand] = hands.get(hand, 0.0) + p * q
    return hands


@cache
def _dealer_scores(hand: Hand) -> dict[int, float]:
    """Return the probabilities of the dealer's scores from a hand (draws below 17); 0 is a bust."""
    if hand[0] >= 17:
        return {hand[0] if hand[0] <= 21 else 0: 1.0}
    scores: dict[int, float] = {}
    for card, p in CARDS.items():
        for score, q in _dealer_scores(_add_card(hand, card)).items():
            scores[score] = scores.get(score, 0.0) + p * q
    return scores


Payoff = Callable[[int, int, bool], float]  # of the player's and dealer's score, dealer's natural


def _payoff(player: int, dealer: int, dealer_natural: bool) -> float:
    return float(player > dealer) - float(player < dealer)


def _natural_payoff(sab: bool, natural: bool) -> Payoff:
    """Return the payoff function of a natural under these options."""

    def payoff(player: int, dealer: int, dealer_natural: bool) -> float:
        if sab:
            return 0.0 if dealer_natural else 1.0
        return 1.5 if natural and player > dealer else _payoff(player, dealer, dealer_natural)

    return payoff


def _stick(hand: Hand, card: int, payoff: Payoff) -> list[Successor]:
    """Return the outcomes of sticking, one for each reward: the dealer draws to the end."""
    rewards: dict[float, float] = {}
    for hidden, p in CARDS.items():
        start = _add_card(_add_card((0, 0), card), hidden)
        for score, q in _dealer_scores(start).items():
            reward = payoff(hand[0], score, start == (21, 1))
            rewards[reward] = rewards.get(reward, 0.0) + p * q
    return [(p, index(hand, card), reward, True) for reward, p in rewards.items()]


def _hit(hand: Hand, card: int) -> list[Successor]:
    """Return the outcomes of a hit, one for each card drawn; above 21 the game is lost."""
    after = [(p, _add_card(hand, new_card)) for new_card, p in CARDS.items()]
    return [(p, index(new, card), -float(new[0] > 21), new[0] > 21) for p, new in after]
