"""Play a trained agent greedily: `seqrl evaluate runs/FrozenLake-v1/q-learning/seed-0`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from seqrl.core import UsageError
from seqrl.scripts.options import Parser, guarded


def main(argv: Sequence[str] | None = None) -> int:
    """The script; answers its exit status."""
    return guarded(body, argv)


def body(argv: Sequence[str]) -> int:
    """Load a run, play, print."""
    made = Parser(prog="seqrl evaluate", description="Play a trained agent greedily.")
    add = made.add_argument
    add("run", help="a run's folder")
    add("--episodes", type=int, default=100, help="how many to play")
    add("--seed", type=int, default=0, help="of the environments")
    add("--max-episode-steps", type=int, default=10_000, help="cut episodes after as many steps")
    add("--show", action="store_true", help="print the table: values and policy")
    add("--debug", action="store_true", help="show tracebacks")
    typed = made.read(argv)
    for name in ("episodes", "max_episode_steps"):
        if getattr(typed, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')}: expected at least 1")
    return play(Path(typed.run), typed.episodes, typed.seed, typed.max_episode_steps, typed.show)


def play(folder: Path, episodes: int, seed: int, limit: int, show: bool) -> int:
    """Evaluate the newest checkpoint of a run."""
    from seqrl.scripts.build import build
    from seqrl.scripts.show import show_table, verdict
    from seqrl.training import checkpoint, evaluate
    from seqrl.training import folder as runs

    parts = build(runs.read_config(folder))
    saved = runs.checkpoints(folder)
    if not saved:
        raise UsageError(f"{folder}: nothing was saved there")
    parts.agent.load_state_dict(checkpoint.load(saved[0])["agent"])
    if show:
        print(show_table(parts.agent, parts.envs))
    found = evaluate(parts.agent, parts.envs, episodes, seed=seed, max_episode_steps=limit)
    print(verdict(found))
    print(f"returns from {found.returns.min():g} to {found.returns.max():g}")
    print(f"lengths {found.lengths.mean():.1f} in the mean, {found.truncated.sum():,} cut")
    return 0


if __name__ == "__main__":
    sys.exit(main())
