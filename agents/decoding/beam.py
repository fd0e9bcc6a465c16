"""Beam search: of many replies that are begun, the likeliest is said."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from seqrl.agents.decoding.decoding import Decoding
from seqrl.agents.deep.heads import log_softmax
from seqrl.core import tree
from seqrl.core.arrays import host, like, to_numpy
from seqrl.core.checks import check_amount, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Seed
from seqrl.core.tokens import BEGIN, END, PAD
from seqrl.core.types import Array, Decision, State

PREVIOUS = "previous"


class Hypotheses(NamedTuple):
    """M replies that are not at their end, those of a row side by side."""

    row: np.ndarray  # [M] which of the replies that are sought it is one of
    total: np.ndarray  # [M] log-probability
    said: np.ndarray  # [M, t] tokens


class Beam(Decoding):
    """Plans a reply by beam search where one begins, and says it token by token.

    A hypothesis that says END is complete and is kept, in a slot of the beam (Sutskever, Vinyals
    and Le 2014, section 3.2); the best complete one is said. The environment is not stepped
    while it plans, so within a reply nothing but `previous` may change in what is observed, and
    that is the token said before, PAD where BEGIN was said. Both are checked as the reply is said.
    Memory goes on from what is said, step by step as in a rollout.

    A width of 1 is greedy. A latent is drawn where exploring is asked for, once a reply.

    agent: see `Decoding`; its observations have "previous", a Discrete as the actions are.
    width: of the beam, at least 1.
    length_penalty: alpha of Wu et al. 2016 (Google's Neural Machine Translation System), section 7.
        The best has the highest log-probability / ((5 + length) / 6) ** alpha, its END counted;
        0 compares log-probabilities, which short replies win.
    longest: tokens of a plan; behind one without END another is made.
    """

    def __init__(
        self,
        agent: Any,
        width: int = 5,
        *,
        length_penalty: float = 0.0,
        longest: int = 64,
        seed: Seed = None,
    ):
        super().__init__(agent, seed)
        self.width, self.longest = check_whole("beam", width), check_whole("longest", longest)
        check_amount("length_penalty", length_penalty)
        if width == 1 and length_penalty:
            raise UsageError("length_penalty: no effect with beam 1, which is greedy; leave it out")
        self.length_penalty = length_penalty

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return tokens [N] and memory: the agent's, the plans, and what they were made for."""
        seen, begins = to_numpy(obs), host(start)
        context, previous = self._parted(seen)
        if state is None:
            state = self._nothing(context, len(begins), explore)
        plan, place, noise = state["plan"].copy(), state["place"], state["noise"]
        last = plan[np.arange(len(plan)), place - 1]
        opens = begins | (previous == BEGIN) | (place == self.longest) | (last == END)
        self._check(state["context"], context, shown(last), previous, opens)
        rows = np.flatnonzero(opens)
        if noise is not None:
            noise = noise.copy()
            noise[rows] = self.noise(len(rows))
        out, memory = self.agent.logits(seen, begins, state["agent"], noise)
        if len(rows):
            here = (seen, host(out), memory, noise)
            plan[rows] = self.search(*tree.map(lambda leaf: leaf[rows], here))[0]
        place = np.where(opens, 0, place)
        token = plan[np.arange(len(plan)), place]
        kept = {"agent": memory, "plan": plan, "place": place + 1}
        return Decision(like(token, start), {**kept, "noise": noise, "context": context})

    def search(
        self, obs: Any, logits: np.ndarray, memory: State, noise: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best replies to N observations, tokens [N, longest], and their scores [N].

        Behind END stands END. logits [N, V]: of the first token.  memory: behind it.
        """
        n = len(logits)
        best, scores = np.full((n, self.longest), END), np.full(n, -np.inf)
        free = np.full(n, self.width)  # slots without a complete hypothesis
        live = Hypotheses(np.arange(n), np.zeros(n), np.zeros((n, 0), np.int64))
        for length in range(1, self.longest + 1):
            parent, live = extended(live, log_softmax(logits.astype(np.float64)), free)
            over = (live.said[:, -1] == END) | (length == self.longest)
            keep_best(best, scores, live, over, self.penalty(length))
            np.subtract.at(free, live.row[over], 1)
            hopeless = live.total / self.penalty(self.longest) <= scores[live.row]
            left = np.flatnonzero(~over & ~hopeless)
            if not len(left):
                break
            live = Hypotheses(*(x[left] for x in live))
            pick, row = parent[left], live.row
            memory = tree.map(lambda leaf, pick=pick: leaf[pick], memory)
            spoken = tree.map(lambda leaf, row=row: leaf[row], (obs, noise))
            spoken[0][PREVIOUS] = shown(live.said[:, -1]).astype(obs[PREVIOUS].dtype)
            out, memory = self.agent.logits(spoken[0], np.zeros(len(row), bool), memory, spoken[1])
            logits = host(out)
        return best, scores

    def penalty(self, length: int) -> float:
        """Return what the log-probability of a reply of so many tokens is divided by."""
        return float(((5 + length) / 6) ** self.length_penalty)

    def _parted(self, obs: Any) -> tuple[Any, np.ndarray]:
        """Return what is observed besides `previous`, and that [N]; UsageError without it."""
        actions = self.agent.action_space
        if not isinstance(obs, dict) or PREVIOUS not in obs or obs[PREVIOUS].ndim != 1:
            expected = 'expected a Dict with "previous", the agent\'s own last token'
            raise UsageError(f"beam on an observation without `previous`: {expected}")
        if self.first or actions.n <= END:
            expected = f"expected at least {END + 1} tokens, from 0 on"
            raise UsageError(f"beam: the actions are {actions}; {expected}")
        return {name: x for name, x in obs.items() if name != PREVIOUS}, obs[PREVIOUS]

    def _nothing(self, context: Any, n: int, explore: bool) -> dict[str, Any]:
        """Return the memory of n environments in which nothing was planned."""
        plan, place = np.full((n, self.longest), END), np.full(n, self.longest)
        noise = self.noise(n) if explore else None
        return {"agent": None, "plan": plan, "place": place, "noise": noise, "context": context}

    def _check(
        self, before: Any, context: Any, said: np.ndarray, previous: np.ndarray, opens: np.ndarray
    ) -> None:
        """Refuse what a plan did not foresee, in rows that go on with theirs."""
        goes_on = ~opens
        wrong = np.flatnonzero(goes_on & (previous != said))
        if len(wrong):
            i = wrong[0]
            expected = "expected the agent's own last token"
            raise UsageError(f"beam: `previous` is {previous[i]} behind {said[i]}; {expected}")
        for name, leaf in context.items():
            pairs = zip(tree.leaves(leaf), tree.leaves(before[name]), strict=True)
            if any((one[goes_on] != other[goes_on]).any() for one, other in pairs):
                expected = "expected nothing but `previous` to change"
                raise UsageError(f"beam: {name!r} changed within a reply; {expected}")


def shown(token: np.ndarray) -> np.ndarray:
    """Return what `previous` shows behind tokens: BEGIN is where a reply is to begin."""
    return np.where(token == BEGIN, PAD, token)


def extended(live: Hypotheses, logs: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, Hypotheses]:
    """Return the best extensions by a token, as many a row as are free [N], and their parents [M].

    logs: [M, V] log-probabilities of the next token.
    """
    n, count = len(free), logs.shape[1]
    slot = np.arange(len(live.row)) - np.searchsorted(live.row, live.row)
    wide = np.full((n, slot.max() + 1, count), -np.inf)
    wide[live.row, slot] = live.total[:, None] + logs
    found, total = highest(wide.reshape(n, -1), int(free.max()))
    inside = (np.arange(found.shape[1]) < free[:, None]) & (total > -np.inf)
    row, _ = np.nonzero(inside)
    place = found[inside]
    parent = np.searchsorted(live.row, row) + place // count
    said = np.concatenate([live.said[parent], (place % count)[:, None]], 1)
    return parent, Hypotheses(row, total[inside], said)


def highest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places [N, k] and numbers [N, k] of the highest values [N, K], the first of equals.

    Where fewer than k are above -inf, -inf stands behind them.
    """
    left, every = values.copy(), np.arange(len(values))
    places, numbers = [], []
    for _ in range(min(k, values.shape[1])):
        places.append(left.argmax(1))
        numbers.append(left[every, places[-1]])
        left[every, places[-1]] = -np.inf
    return np.stack(places, 1), np.stack(numbers, 1)


def keep_best(
    best: np.ndarray, scores: np.ndarray, live: Hypotheses, over: np.ndarray, penalty: float
) -> None:
    """Write complete hypotheses to `best` [N, longest] and `scores` [N] where they are better."""
    length = live.said.shape[1]
    for i in np.flatnonzero(over):
        row, score = live.row[i], live.total[i] / penalty
        if score > scores[row]:
            scores[row] = score
            best[row, :length], best[row, length:] = live.said[i], END
