"""Dialogue: a user tells what is wanted once, asks for it later, and chats in between."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from seqrl.core.checks import check_choice, check_unit, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.tokens import END, PAD
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, pick
from seqrl.envs.tasks.replies import Replies
from seqrl.envs.tasks.vocabulary import Vocabulary

WHAT, IS, OK, CHAT = range(3, 7)
SLOTS = 7  # the token of the first slot; behind the slots come values, fillers and chat replies
FILLERS = 8  # words that mean nothing
WORDS = 3  # of a reply to chat
JUDGED = ("all", "slots", "chat")


@dataclass(frozen=True)
class Dialogue(Replies):
    """A simulated user tells a value of each slot in the first turn, which is acknowledged by "ok".

    In each turn behind it the user chats, with the chance `chat`, or asks for a slot. Right is
    "SLOT is VALUE"; to chat any of `replies` replies of three words is, of which a random one is
    the answer told. Beside a right reply to chat that was given before in the dialogue `penalty` of
    its reward is lost, and the answers come again only where none is left.

    slots, values: how many are told, and from how many each value is drawn.
    turns: of a dialogue, the first one included.
    judged: "all" turns, each for a reward of 1/turns; or "slots" or "chat", where the mean return
        is the share of right replies to questions for slots or to chat, penalties taken off.

    Source: the own last reply and what the user says, an END behind each (see Replies). It takes a
    memory over turns: what hierarchical models are for (Serban et al. 2016, "Building End-To-End
    Dialogue Systems Using Generative Hierarchical Neural Network Models"). The simulated user and
    the penalty are after Li et al. 2016, "Deep Reinforcement Learning for Dialogue Generation".
    """

    slots: int = 2
    values: int = 5
    turns: int = 6
    replies: int = 4
    chat: float = 0.4
    penalty: float = 0.0
    judged: str = "all"

    reward: ClassVar[str] = "exact"
    room: ClassVar[int] = 5
    hears_itself: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, least in (("slots", 1), ("values", 2), ("turns", 2), ("replies", 1)):
            check_whole(name, getattr(self, name), least)
        for name in ("chat", "penalty"):
            check_unit(name, getattr(self, name))
        check_choice("judged", self.judged, JUDGED)
        if self.judged in self.never:
            there = "never chats" if self.chat == 0 else "does nothing but chat"
            raise UsageError(f"judged {self.judged!r}: with chat={self.chat} the user {there}")

    @property
    def never(self) -> list[str]:
        """Return which kinds of turns there are none of."""
        return ["chat"] * (self.chat == 0) + ["slots"] * (self.chat == 1)

    @property
    def first_value(self) -> int:
        """Return the token of the first value."""
        return SLOTS + self.slots

    @property
    def first_filler(self) -> int:
        """Return the token of the first filler."""
        return self.first_value + self.values

    @property
    def first_reply(self) -> int:
        """Return the token of the first word of the first reply to chat."""
        return self.first_filler + FILLERS

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return the words of both."""
        words = ["what", "is", "ok", "chat"]
        names = [("slot", self.slots), ("value", self.values), ("filler", FILLERS)]
        words += [f"{name}{i}" for name, count in names for i in range(count)]
        words += [f"reply{i}.{word}" for i in range(self.replies) for word in range(WORDS)]
        return Vocabulary(tuple(words))

    @property
    def heard(self) -> int:
        """Return the length of the longest that the user says, the first turn."""
        return 3 * self.slots + 1

    @property
    def weights(self) -> tuple[float, float, float]:
        """Return the reward of a right reply in the first turn, to a slot and to chat."""
        if self.judged == "all":
            return (1 / self.turns,) * 3
        later = self.turns - 1
        if self.judged == "slots":
            return 0.0, 1 / (later * (1 - self.chat)), 0.0
        return 0.0, 0.0, 1 / (later * self.chat)

    # what is said

    def drawn(self, draws: Draws, n: int) -> Episodes:
        """Return dialogues: what the user says, what is right, and what is `asked` [N, turns].

        That is a slot, or their number where the user chats, and -1 in the first turn.
        """
        xp, later = draws.xp, self.turns - 1
        goal = self._grid(draws, self.values, n, self.slots)
        slot = self._grid(draws, self.slots, n, later)
        chats = draws.uniform(n, later) < self.chat
        reply = self._reply_numbers(draws, n, chats)
        filler = self.first_filler + self._grid(draws, FILLERS, n, later + self.slots)
        row = xp.arange(n, device=draws.device)[:, None]
        user = xp.zeros((n, self.turns, self.heard), dtype=xp.int64, device=draws.device)
        right = xp.zeros((n, self.turns, self.room), dtype=xp.int64, device=draws.device)
        self._tell(user[:, 0], goal, draws.permutations(self.slots, n), filler[:, later:], row)
        right[:, 0, 0], right[:, 0, 1] = OK, END
        user[:, 1:, 0] = xp.where(chats, CHAT, WHAT)
        user[:, 1:, 1] = xp.where(chats, filler[:, :later], SLOTS + slot)
        user[:, 1:, 2] = END
        word = self.first_reply + WORDS * reply
        right[:, 1:, 0] = xp.where(chats, word, SLOTS + slot)
        right[:, 1:, 1] = xp.where(chats, word + 1, IS)
        right[:, 1:, 2] = xp.where(chats, word + 2, self.first_value + goal[row, slot])
        right[:, 1:, 3] = END
        asked = xp.concatenate([0 * goal[:, :1] - 1, xp.where(chats, self.slots, slot)], 1)
        used = xp.zeros((n, self.replies), dtype=xp.bool, device=draws.device)
        count = 0 * asked[:, 0] + self.turns
        return {"user": user, "right": right, "length": count, "asked": asked, "used": used}

    def _tell(self, user: Array, goal: Array, order: Array, filler: Array, row: Array) -> None:
        """Write the first turn [N, heard]: a filler, slot and value of each in some order."""
        end = 3 * self.slots
        user[:, 0:end:3], user[:, 1:end:3] = filler, SLOTS + order
        user[:, 2:end:3] = self.first_value + goal[row, order]
        user[:, end] = END

    def _reply_numbers(self, draws: Draws, n: int, chats: Array) -> Array:
        """Return the reply [N, turns - 1] to chat that is told as the answer in each turn."""
        drawn = self._grid(draws, self.replies, n, self.turns - 1)
        if not self.penalty:
            return drawn
        chat = draws.xp.asarray(chats, dtype=draws.xp.int64)
        number = chat.cumsum(1) - chat  # how often the user chatted before
        row = draws.xp.arange(n, device=draws.device)[:, None]
        fresh = draws.permutations(self.replies, n)[row, number.clip(max=self.replies - 1)]
        return draws.xp.where(number < self.replies, fresh, drawn)

    @staticmethod
    def _grid(draws: Draws, high: int, n: int, width: int) -> Array:
        return draws.integers(high, n * width).reshape(n, width)

    # what it is worth

    def right(self, xp: Any, episodes: Episodes) -> Array:
        """Return the right replies [N, room]; to chat the one that was begun, if one was."""
        right = pick(xp, episodes["right"], episodes["turn"])
        begun, number = self._begun(xp, episodes, episodes["said"])
        word = self.first_reply + WORDS * number[:, None]
        place = xp.arange(self.room, device=word.device)[None]
        reply = xp.where(place < WORDS, word + place, xp.where(place == WORDS, END, PAD))
        return xp.where(begun[:, None], reply, right)

    def _begun(self, xp: Any, episodes: Episodes, said: Array) -> tuple[Array, Array]:
        """Return where what is said begins as a reply to chat does that it is for, and as which."""
        first = said[:, 0] - self.first_reply
        chats = pick(xp, episodes["asked"], episodes["turn"]) == self.slots
        return chats & (first >= 0) & (first % WORDS == 0), first.clip(min=0) // WORDS

    def judge(
        self, xp: Any, episodes: Episodes, said: Array, over: Array
    ) -> tuple[Array, Episodes]:
        """Return the reward of replies, and which replies to chat were given."""
        begun, number = self._begun(xp, episodes, said)
        right = self.right(xp, {**episodes, "said": said})
        good = over & (said == right).all(1)
        told, slot, chat = self.weights
        asked = pick(xp, episodes["asked"], episodes["turn"])
        weight = xp.where(asked < 0, told, xp.where(asked < self.slots, slot, chat))
        again = begun & pick(xp, episodes["used"], number)
        reply = xp.arange(self.replies, device=said.device)[None]
        used = episodes["used"] | ((good & begun)[:, None] & (reply == number[:, None]))
        return xp.where(good, weight * (1 - self.penalty * again), 0.0), {"used": used}

    def scores(self) -> dict[str, float]:
        """Return exact reference scores, by dynamic programming over turns and replies given.

        The memoryless policy sees the last that the user says and nothing else: it guesses values
        and draws any reply to chat. (Its own last reply, which stands before it, could be made a
        note to itself, at the price of wrong replies.) Random tokens are right by chance.
        """
        word = 1 / len(self.vocabulary)
        any_reply = 1 - np.arange(self.replies + 1) / self.replies  # chance that it is a new one
        random = self._expected(word**2, word**4, self.replies * word**4, any_reply)
        guessed = self._expected(1.0, 1 / self.values, 1.0, any_reply)
        return {"optimum": self._expected(1.0, 1.0, 1.0), "memoryless": guessed, "random": random}

    def _expected(
        self, told: float, slot: float, chat: float, fresh: np.ndarray | None = None
    ) -> float:
        """Return the expected return of right replies with the chances told, to a slot, to chat.

        `fresh`: the chance that a reply to chat is a new one [used], by default whatever is best.
        """
        first, each_slot, each_chat = self.weights
        left = np.zeros(self.replies + 1)  # expected of what is left, by how many are used
        for _ in range(self.turns - 1):
            again = each_chat * (1 - self.penalty) + left
            new = np.append(each_chat + left[1:], again[-1])  # none is new where all are used
            again[0] = new[0]
            if fresh is None:
                right = np.maximum(np.maximum(new, again), left)
            else:
                right = fresh * new + (1 - fresh) * again
            to_chat = chat * right + (1 - chat) * left
            to_slot = slot * each_slot + left
            left = self.chat * to_chat + (1 - self.chat) * to_slot
        return float(told * first + left[0])
