"""What tasks of tokens have in common: in every turn a source is read and a reply is said."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.arrays import host
from seqrl.core.errors import UsageError
from seqrl.core.tokens import BEGIN, END, PAD
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, pick
from seqrl.envs.tasks.rewards import REWARDS, as_real, by_function, own_function
from seqrl.envs.tasks.vocabulary import Vocabulary


class Replies:
    """Each turn shows a source and ends when END is said, or `room` tokens; then it is judged.

    Observation: "source", tokens padded behind, and "previous", the agent's own last token, BEGIN
    where a turn begins (BEGIN itself, where it is said, is shown as PAD). Action: a token. Tokens:
    PAD 0, BEGIN 1, END 2, and from 3 on the words of `vocabulary`. The right action is the next
    token of the right reply, whatever was said before; behind its END it is not known.
    Reward at the end of a turn, divided by the number of turns.

    A task says what is `drawn`, and of what size.
    """

    @property
    def reward(self) -> str:
        """Return the name of the reward, see `rewards`."""
        raise NotImplementedError

    @property
    def vocabulary(self) -> Vocabulary:
        """Return the words."""
        raise NotImplementedError

    @property
    def heard(self) -> int:
        """Return the most tokens of what the user says."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """Return the most tokens of a reply, END included."""
        raise NotImplementedError

    @property
    def turns(self) -> int:
        """Return the most turns of an episode."""
        return 1

    @property
    def hears_itself(self) -> bool:
        """Return whether the own last reply stands in the source, before what the user says."""
        return False

    def drawn(self, draws: Draws, n: int) -> Episodes:
        """Return what N episodes are about, to be completed by the task.

        "user" [N, turns, heard] and "right" [N, turns, room], tokens padded behind, and "length"
        [N], the turns there are.
        """
        raise NotImplementedError

    def sentences(self, draws: Draws, n: int) -> list[Array]:
        """Return what the user says in N episodes, and the right replies (see `Spoken`)."""
        drawn = self.drawn(draws, n)
        return [drawn[name].reshape(-1, drawn[name].shape[-1]) for name in ("user", "right")]

    @property
    def observation_space(self) -> spaces.Dict:
        """Return the space of source and previous token."""
        length = self.heard + (self.room if self.hears_itself else 0)
        source = spaces.MultiDiscrete([len(self.vocabulary)] * length)
        return spaces.Dict(source=source, previous=self.action_space)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of tokens."""
        return spaces.Discrete(len(self.vocabulary))

    @property
    def horizon(self) -> int:
        """Return the most tokens that are said in an episode."""
        return self.turns * self.room

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return N new episodes in which nothing has been said."""
        if self.reward not in REWARDS:
            own_function(self.reward)  # what is wrong with it is told before the first reply
        episodes, xp = self.drawn(draws, n), draws.xp
        none = xp.zeros((n, self.room), dtype=xp.int64, device=draws.device)
        zero = none[:, 0]
        spoken = {"said": none, "place": 1 * zero, "turn": 1 * zero, "previous": zero + BEGIN}
        return {**episodes, **spoken, "source": self._source(xp, none, episodes["user"][:, 0])}

    def observe(self, xp: Any, episodes: Episodes) -> dict[str, Array]:
        """Return source, int64 [N, L], and previous, int64 [N]."""
        return {"source": 1 * episodes["source"], "previous": 1 * episodes["previous"]}

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Say a token more, and judge what is said where that was the last of its turn."""
        place, turn = episodes["place"], episodes["turn"]
        here = xp.arange(self.room, device=place.device) == place[:, None]
        word = xp.where(action == PAD, BEGIN, action)  # no padding is said, and BEGIN never right
        said = xp.where(here, word[:, None], episodes["said"])
        over = (action == END) | (place == self.room - 1)
        reward, changes = self.judge(xp, episodes, said, over)
        turn = turn + over
        more = over & (turn < episodes["length"])
        shown = xp.where(action == BEGIN, PAD, action)
        changes |= {
            "said": xp.where(over[:, None], PAD, said),
            "place": xp.where(over, 0, place + 1),
            "turn": turn,
            "previous": xp.where(more, BEGIN, shown),
        }
        if self.turns > 1:
            changes["source"] = self._next_source(xp, episodes, said, turn, more)
        return changes, xp.asarray(reward, dtype=xp.float32), turn >= episodes["length"]

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the next token of the right reply, known up to its END."""
        word = pick(xp, self.right(xp, episodes), episodes["place"])
        known = (word != PAD) & (episodes["turn"] < episodes["length"])
        return xp.where(known, word, END), known

    def right(self, xp: Any, episodes: Episodes) -> Array:
        """Return the right replies of the turns under way, int64 [N, room]."""
        return pick(xp, episodes["right"], episodes["turn"])

    def judge(
        self, xp: Any, episodes: Episodes, said: Array, over: Array
    ) -> tuple[Array, Episodes]:
        """Return the reward of replies [N, room], 0 where they are not over, and what changes."""
        own = self.reward not in REWARDS
        if xp is not np and not own:
            found = self._judged(xp, said, self.right(xp, episodes))
            return xp.where(over, found / episodes["length"], 0.0), {}
        reward = xp.zeros(len(over), dtype=xp.float64, device=over.device)
        rows = over.nonzero()[0] if xp is np else over.nonzero()[:, 0]
        if len(rows):
            asked = {name: episodes[name][rows] for name in ("right", "turn", "length")}
            right = pick(xp, asked["right"], asked["turn"])
            reward[rows] = self._judged(xp, said[rows], right) / asked["length"]
        return reward, {}

    def hear(self, text: str, said: Array | None = None) -> np.ndarray:
        """Return the source [L] that shows a text, behind the own reply `said` [room].

        UsageError for an empty text, one that is too long, and unknown words.
        """
        tokens = self.vocabulary.encode(text) + [END] * self.hears_itself
        least = 1 + self.hears_itself
        if not least <= len(tokens) <= self.heard:
            room = self.heard - self.hears_itself
            what = f"{len(tokens) - self.hears_itself:,} {self.vocabulary.unit}s"
            raise UsageError(f"text {text!r}: {what}; expected 1 to {room:,}")
        user = np.array([tokens + [PAD] * (self.heard - len(tokens))])
        before = np.zeros((1, self.room), np.int64) if said is None else np.asarray(said)[None]
        found: np.ndarray = self._source(np, before, user)[0]
        return found

    def _judged(self, xp: Any, said: Array, right: Array) -> Array:
        """Return the reward of replies that are over."""
        if self.reward in REWARDS:
            return as_real(xp, REWARDS[self.reward](xp, said, right))
        spelled = [[self.vocabulary.spell(row) for row in host(x).tolist()] for x in (said, right)]
        return xp.asarray(by_function(self.reward, *spelled), device=said.device)

    def _next_source(
        self, xp: Any, episodes: Episodes, said: Array, turn: Array, more: Array
    ) -> Array:
        """Return the sources [N, L], new ones where `more`."""
        before = episodes["source"]
        if xp is not np:
            return xp.where(
                more[:, None], self._source(xp, said, self._user(xp, episodes, turn)), before
            )
        source, rows = before.copy(), more.nonzero()[0]
        if len(rows):
            own = {"user": episodes["user"][rows]}
            source[rows] = self._source(xp, said[rows], self._user(xp, own, turn[rows]))
        return source

    def _user(self, xp: Any, episodes: Episodes, turn: Array) -> Array:
        user: Array = pick(xp, episodes["user"], turn)
        return user

    def _source(self, xp: Any, said: Array, user: Array) -> Array:
        """Return sources [N, L] of an own reply [N, room] and what the user says [N, heard]."""
        if not self.hears_itself:
            return 1 * user
        length = (said != PAD).sum(1)[:, None]
        place = xp.arange(self.room + self.heard, device=user.device)[None]
        row = xp.arange(len(user), device=user.device)[:, None]
        own = said[row, place.clip(max=self.room - 1)]
        behind = place - length
        heard = user[row, behind.clip(min=0, max=self.heard - 1)]
        return xp.where(behind < 0, own, xp.where(behind < self.heard, heard, PAD))
