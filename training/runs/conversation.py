"""Talking to what a run has learned, a text each way."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.core.errors import UsageError
from seqrl.core.tokens import BEGIN, END, PAD
from seqrl.core.types import State
from seqrl.training.runs.policy import Policy


class Conversation:
    """Replies to texts as the policy of a token task does.

    In a dialogue memory goes on from turn to turn until `reset`; a translation is of one turn.

    policy: what `seqrl.load` returns, decoded or not; of Translate, Dialogue or Corpus. UsageError
        for another, and where a wrapper of the run changes what is observed.
    """

    def __init__(self, policy: Policy):
        rules = policy.replies
        if rules is None:
            expected = "expected Translate, Dialogue or Corpus"
            raise UsageError(f"talk: {policy.config['env']} takes no replies; {expected}")
        if policy.observation_space != rules.observation_space:
            remedy = "talk to a run without such wrappers"
            raise UsageError(f"talk: the run's wrappers change what is observed; {remedy}")
        self.policy, self.rules = policy, rules
        self.reset()

    _state: State

    def reset(self) -> None:
        """Begin another dialogue."""
        self._start, self._state = np.ones(1, bool), None
        self._said: np.ndarray | None = None

    def reply(self, text: str) -> str:
        """Return the reply to a text.

        UsageError for an empty text, one that is too long, unknown words, and where the policy
        refuses to go on; then nothing has changed.
        """
        source = self.rules.hear(text, self._said)
        if not self.rules.hears_itself:
            self.reset()
        obs = {"source": source[None], "previous": np.array([BEGIN])}
        self._said, self._state = self._tokens(obs)
        self._start = np.zeros(1, bool)
        found: str = self.rules.vocabulary.decode(self._said)
        return found

    def _tokens(self, obs: dict[str, Any]) -> tuple[np.ndarray, State]:
        """Return the tokens [room] of a reply, padded behind its END, and memory after them."""
        said, start, state = np.zeros(self.rules.room, np.int64), self._start, self._state
        for place in range(len(said)):
            decision = self.policy.agent.act(obs, start, state, explore=False)
            start, state = np.zeros(1, bool), decision.state
            token = int(decision.action[0])
            said[place] = BEGIN if token == PAD else token  # as the environment takes them
            if token == END:
                break
            obs = {**obs, "previous": np.array([PAD if token == BEGIN else token])}
        return said, state
