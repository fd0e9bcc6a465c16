"""Which decoder is asked for."""

from __future__ import annotations

from typing import Any

from seqrl.agents.decoding.beam import Beam
from seqrl.agents.decoding.sampling import Sampling
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Seed


def decoder(
    agent: Any,
    *,
    beam: int | None = None,
    length_penalty: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    longest: int = 64,
    seed: Seed = None,
) -> Any:
    """Return the agent as it is to be decoded: `Beam`, `Sampling`, or itself where nothing is told.

    longest: tokens of a reply, for a beam.
    """
    drawn = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    told: dict[str, Any] = {name: x for name, x in drawn.items() if x is not None}
    if beam is None:
        if length_penalty is not None:
            raise UsageError("length_penalty: no effect without beam; leave it out or add it")
        return Sampling(agent, **told, seed=seed) if told else agent
    if told:
        raise UsageError(f"{next(iter(told))}: a beam draws no tokens; leave one out")
    return Beam(agent, beam, length_penalty=length_penalty or 0.0, longest=longest, seed=seed)
