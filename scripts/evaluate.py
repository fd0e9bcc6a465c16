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
    from seqrl.training import Evaluation


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
    add("--best", action="store_true", help="the agent of the best evaluation, not the last one")
    add("--show", action="store_true", help="print the table: values and policy")
    add("--picture", metavar="FILE", help="draw policy, returns and memory as PNG")
    add("--gif", metavar="FILE", help="film the first episode as GIF")
    add("--debug", action="store_true", help="show tracebacks")
    typed = made.read(argv)
    check_least(typed, {"episodes": 1, "seed": 0, "max_episode_steps": 1})
    parts = load(Path(typed.run), {"env": typed.env, "network": typed.network}, best=typed.best)
    found = play(parts, typed.episodes, typed.seed, typed.max_episode_steps, typed.show)
    if typed.picture or typed.gif:
        draw(parts, found, typed.seed, typed.picture, typed.gif)
    return 0


def load(folder: Path, allowed: Mapping[str, str | None], *, best: bool = False) -> Parts:
    """The parts of a run as its newest checkpoint has them, or as it was at its best.

    Its folder may be anybody's: `allowed` has to name again what would be imported for it.
    """
    from seqrl.core import explain
    from seqrl.scripts.resume import own_config, parts_of
    from seqrl.training import folder as runs
    from seqrl.training import keeping

    config = own_config(folder, allowed)
    if best and not runs.best_path(folder).exists():
        raise UsageError(f"{folder}: no best agent was kept; train with --eval-every to keep it")
    saved = keeping.read(runs.best_path(folder)) if best else keeping.newest(folder)
    if saved is None:
        raise UsageError(f"{folder}: nothing was saved there")
    parts = parts_of(folder, config)
    try:
        parts.agent.load_state_dict(saved["loop"]["agent"])
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} holds no run of this version: {explain(error)}") from error
    return parts


def play(parts: Parts, episodes: int, seed: int, limit: int, show: bool) -> Evaluation:
    """Evaluate and print."""
    from seqrl.scripts.show import show_table, verdict
    from seqrl.training import evaluate

    if show:
        print(show_table(parts.agent, parts.envs))
    found = evaluate(parts.agent, parts.envs, episodes, seed=seed, max_episode_steps=limit)
    print(verdict(found))
    print(f"returns from {found.returns.min():g} to {found.returns.max():g}")
    print(f"lengths {found.lengths.mean():.1f} in the mean, {found.truncated.sum():,} cut")
    return found


def draw(parts: Parts, found: Evaluation, seed: int, picture: str | None, gif: str | None) -> None:
    """Write the files that are asked for; the episode is the first that was played."""
    import numpy as np

    from seqrl.scripts.pictures import gallery, save

    shown = gallery(parts.config, np.random.SeedSequence(seed))
    save(shown, parts.agent, found, picture, gif)


if __name__ == "__main__":
    sys.exit(main())
