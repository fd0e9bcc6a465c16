"""What stands in an agent's place and decodes what its policy says."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Discrete

from seqrl.core.errors import UsageError
from seqrl.core.saved import PART, RNG, Kept, Saved
from seqrl.core.seeding import Seed, generator
from seqrl.core.types import Array, Decision, Metrics, State, Transition


class Decoding(Saved):
    """The base of decoders: an agent that plays as another one's policy is decoded, and learns not.

    agent: one with `logits` of a Discrete action space, as imitation, REINFORCE and PPO are.
    seed: of the decoder's own random numbers; those of the agent stay where they are.
    """

    horizon: int | None = None
    learner = ""

    def __init__(self, agent: Any, seed: Seed = None):
        space, name = getattr(agent, "action_space", None), type(self).__name__.lower()
        if not (hasattr(agent, "logits") and isinstance(space, Discrete)):
            expected = "expected a policy of one choice a step, such as imitate, reinforce or ppo"
            raise UsageError(f"{name}: {type(agent).__name__} has no logits; {expected}")
        self.agent, self.rng, self.first = agent, generator(seed), int(space.start)
        self.gamma, self.device, self.network = agent.gamma, agent.device, agent.network

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return tokens [N] and memory."""
        raise NotImplementedError

    def noise(self, n: int) -> np.ndarray | None:
        """Draw the numbers [N, K] of a network that draws as it acts; None for one that does not.

        They are the decoder's own random numbers.
        """
        drawn = self.network.noise
        return self.rng.standard_normal((n, drawn), np.float32) if drawn else None

    def values(self, obs: Array, start: Array) -> Array | None:
        """Return the agent's values."""
        return self.agent.values(obs, start)

    def learn(self, step: Transition) -> Metrics:
        """Refuse: what is decoded is no longer the policy that would learn."""
        raise UsageError(f"{type(self).__name__} learns nothing; train the agent inside, .agent")

    def reseed(self, seed: np.random.SeedSequence) -> None:
        """Draw from a new stream from now on."""
        self.rng = generator(seed)

    SAVED: ClassVar[dict[str, Kept]] = {"agent": PART, "rng": RNG}
