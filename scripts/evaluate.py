"""Play a trained agent: `seqrl evaluate runs/FrozenLake-v1/q-learning/seed-0`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqrl.scripts.decoding import add_decoding_flags, episodes_of, told
from seqrl.scripts.options import Parser, guarded
from seqrl.scripts.run_flags import add_play_flags, add_run_flags, check_play_flags, named_again


@guarded
def main(argv: Sequence[str]) -> int:
    """Load a run, evaluate it, print the result."""
    parser = Parser(
        prog="seqrl evaluate", description="Play a trained agent, greedily unless told otherwise."
    )
    add = parser.add_argument
    add_run_flags(parser)
    add_play_flags(parser, episodes=100)
    add("--show", action="store_true", help="print the table, or replies and attention")
    add("--picture", metavar="FILE", help="draw policy, returns, memory and attention as PNG")
    add("--gif", metavar="FILE", help="film the first episode as GIF")
    add("--debug", action="store_true", help="show tracebacks")
    add_decoding_flags(parser)
    args = parser.read(argv)
    check_play_flags(args)
    from seqrl.envs.registry import replies_of
    from seqrl.training.loop.evaluation import evaluate
    from seqrl.training.pictures.as_text import verdict
    from seqrl.training.runs.load import load_parts
    from seqrl.training.runs.policy import decoded
    from seqrl.training.runs.shown import show

    chosen: dict[str, Any] = {"best": args.best, "target_return": args.target_return}
    parts = load_parts(Path(args.run), named_again(args), **chosen, evaluated=True)
    if how := told(args):
        how["seed"] = args.seed
        parts = parts._replace(agent=decoded(parts.agent, replies_of(parts.envs), how))
    if args.show:
        print(show(parts, args.seed))
    played = {"seed": args.seed, "max_episode_steps": args.max_episode_steps}
    found = evaluate(parts.agent, parts.envs, args.episodes, **played)
    print(verdict(found, parts.envs, episodes_of(args)))
    print(f"returns from {found.returns.min():g} to {found.returns.max():g}")
    print(f"lengths {found.lengths.mean():.1f} in the mean, {found.truncated.sum():,} cut")
    if args.picture or args.gif:
        from seqrl.training.runs.picture_files import save

        for path in save(parts, found, args.seed, args.picture, args.gif):
            print(f"written   {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
