"""Play a trained agent greedily: `seqrl evaluate runs/FrozenLake-v1/q-learning/seed-0`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqrl.core import UsageError
from seqrl.scripts.options import Parser, check_least, guarded

if TYPE_CHECKING:
    from seqrl.scripts.build import Parts


def main(argv: Sequence[str] | None = None) -> int:
    """The script; answers its exit status."""
    return guarded(body, argv)


def body(argv: Sequence[str]) -> int:
    """Load a run, play, print."""
    made = Parser(prog="seqrl evaluate", description="Play a trained agent greedily.")
    add = made.add_argument
    add("run", help="a run's folder")
    add("--env", help="module:Id-v0 once more, where the run's environment is code of yours")
    add("--network", help="module:Class once more, where the run's network is code of yours")
    add("--episodes", type=int, default=100, help="how many to play")
    add("--seed", type=int, default=0, help="of the environments")
    add("--max-episode-steps", type=int, default=10_000, help="cut episodes after as many steps")
    add("--show", action="store_true", help="print the table: values and policy")
    add("--debug", action="store_true", help="show tracebacks")
    typed = made.read(argv)
    check_least(typed, {"episodes": 1, "seed": 0, "max_episode_steps": 1})
    parts = load(Path(typed.run), {"env": typed.env, "network": typed.network})
    return play(parts, typed.episodes, typed.seed, typed.max_episode_steps, typed.show)


def load(folder: Path, allowed: Mapping[str, str | None]) -> Parts:
    """The parts of a run as its newest checkpoint has them.

    Its folder may be anybody's: `allowed` has to name again what would be imported for it.
    """
    from seqrl.core import explain
    from seqrl.scripts.build import build
    from seqrl.training import checkpoint
    from seqrl.training import folder as runs

    config = runs.read_config(folder)
    for flag, again in allowed.items():
        named = str(config.get(flag))
        if ":" in named and named != again:
            raise UsageError(
                f"{folder}: its {flag} imports code; to allow it, add --{flag} {named}"
            )
    saved = runs.checkpoints(folder)
    if not saved:
        raise UsageError(f"{folder}: nothing was saved there")
    try:
        parts = build(config)
        parts.agent.load_state_dict(checkpoint.load(saved[0])["agent"])
    except UsageError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} holds no run of this version: {explain(error)}") from error
    return parts


def play(parts: Parts, episodes: int, seed: int, limit: int, show: bool) -> int:
    """Evaluate and print."""
    from seqrl.scripts.show import show_table, verdict
    from seqrl.training import evaluate

    if show:
        print(show_table(parts.agent, parts.envs))
    found = evaluate(parts.agent, parts.envs, episodes, seed=seed, max_episode_steps=limit)
    print(verdict(found))
    print(f"returns from {found.returns.min():g} to {found.returns.max():g}")
    print(f"lengths {found.lengths.mean():.1f} in the mean, {found.truncated.sum():,} cut")
    return 0


if __name__ == "__main__":
    sys.exit(main())
