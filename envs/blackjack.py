"""The exact model of Gymnasium's Blackjack-v1, which publishes none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from seqrl.envs.finite import Model, Outcome, Outcomes, tabulate

CARDS = {card: 1 / 13 for card in range(1, 10)} | {10: 4 / 13}  # an endless deck; 1 is the ace
SHAPE = (32, 11, 2)  # the observation: player's sum, dealer's card, usable ace
SEEN = int(np.prod(SHAPE))  # 704 observations, then one natural for each card of the dealer
STICK, HIT = 0, 1

Hand = tuple[int, int]  # the sum and whether an ace in it counts 11 (1) or not (0)


def blackjack_model(sab: bool = True, natural: bool = False) -> Model:
    """Blackjack-v1 as a finite model of 714 states: Sutton & Barto (2018), example 5.1.

    State (sum * 11 + dealer's card) * 2 + usable ace is the observation in C order. A natural (ace
    and ten as dealt) looks like (21, card, 1) but may pay differently: it is state 703 + card, and
    `observed()` says what the player sees. States that cannot be end with reward 0.
    `sab` and `natural` pay as in Gymnasium: with `sab` a natural beats all but the dealer's own,
    else `natural` pays 1.5 for one that wins. Episodes last at most 20 steps.
    """
    impossible: list[Outcome] = [(1.0, 0, 0.0, True)]
    P: Outcomes = {s: {STICK: impossible, HIT: impossible} for s in range(SEEN + 10)}
    initial = np.zeros(SEEN + 10)
    for card, chance in CARDS.items():
        for total in range(4, 22):
            for ace in range(2 if total >= 12 else 1):
                s = index((total, ace), card)
                P[s] = {STICK: _stick((total, ace), card, _plain), HIT: _hit((total, ace), card)}
        pay = _natural(sab, natural)
        P[SEEN - 1 + card] = {STICK: _stick((21, 1), card, pay), HIT: _hit((21, 1), card)}
        for hand, share in _dealt().items():
            initial[SEEN - 1 + card if hand == (21, 1) else index(hand, card)] += chance * share
    return tabulate(P, initial)


def index(hand: Hand, card: int) -> int:
    """The state seen as (sum, dealer's card, usable ace)."""
    return int(np.ravel_multi_index((hand[0], card, hand[1]), SHAPE))


def observed() -> np.ndarray:
    """The observation's index of every state, int64 [714]: `policy[observed()]` plays the model."""
    naturals = [index((21, 1), card) for card in range(1, 11)]
    return np.concatenate([np.arange(SEEN), naturals])


def _draw(hand: Hand, card: int) -> Hand:
    """The hand with one card more; an ace counts 11 where that does not bust."""
    total, ace = hand
    low = total - 10 * ace + card  # every ace as 1
    usable = (ace or card == 1) and low + 10 <= 21
    return (low + 10, 1) if usable else (low, 0)


@cache
def _dealt() -> dict[Hand, float]:
    """The chances of two cards."""
    hands: dict[Hand, float] = {}
    for first, p in CARDS.items():
        for second, q in CARDS.items():
            hand = _draw(_draw((0, 0), first), second)
            hands[hand] = hands.get(hand, 0.0) + p * q
    return hands


@cache
def _dealer(hand: Hand) -> dict[int, float]:
    """The chances of the dealer's score from a hand, who draws below 17; 0 is a bust."""
    if hand[0] >= 17:
        return {hand[0] if hand[0] <= 21 else 0: 1.0}
    scores: dict[int, float] = {}
    for card, chance in CARDS.items():
        for score, share in _dealer(_draw(hand, card)).items():
            scores[score] = scores.get(score, 0.0) + chance * share
    return scores


Pay = Callable[[int, int, bool], float]  # of the player's and dealer's score, dealer's natural


def _plain(player: int, dealer: int, dealer_natural: bool) -> float:
    return float(player > dealer) - float(player < dealer)


def _natural(sab: bool, natural: bool) -> Pay:
    """What a natural pays under the rules of the house."""

    def pay(player: int, dealer: int, dealer_natural: bool) -> float:
        if sab:
            return 0.0 if dealer_natural else 1.0
        return 1.5 if natural and player > dealer else _plain(player, dealer, dealer_natural)

    return pay


def _stick(hand: Hand, card: int, pay: Pay) -> list[Outcome]:
    """The dealer turns the hidden card and draws: one outcome for each reward."""
    rewards: dict[float, float] = {}
    for hidden, chance in CARDS.items():
        start = _draw(_draw((0, 0), card), hidden)
        for score, share in _dealer(start).items():
            reward = pay(hand[0], score, start == (21, 1))
            rewards[reward] = rewards.get(reward, 0.0) + chance * share
    return [(chance, index(hand, card), reward, True) for reward, chance in rewards.items()]


def _hit(hand: Hand, card: int) -> list[Outcome]:
    """One outcome for each card drawn; above 21 the game is lost."""
    after = [(chance, _draw(hand, drawn)) for drawn, chance in CARDS.items()]
    return [(p, index(new, card), -float(new[0] > 21), new[0] > 21) for p, new in after]
