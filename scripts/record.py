"""Record a trained agent's episodes: `seqrl record runs/CartPole-v1/ppo/seed-0 --episodes 1000`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from seqrl.core.errors import counted
from seqrl.scripts.options import Parser, guarded
from seqrl.scripts.run_flags import add_play_flags, add_run_flags, check_play_flags, named_again


@guarded
def main(argv: Sequence[str]) -> int:
    """Load a run, play it, write its episodes, say what they brought."""
    about = "Play a trained agent and keep its episodes, for seqrl train --dataset."
    parser = Parser(prog="seqrl record", description=about)
    add = parser.add_argument
    add_run_flags(parser)
    add_play_flags(parser, episodes=1000)
    add("--out", metavar="FOLDER", help="new or empty (default: RUN/recorded, numbered)")
    add("--explore", action="store_true", help="play as in training, not greedily")
    add("--debug", action="store_true", help="show tracebacks")
    args = parser.read(argv)
    check_play_flags(args)
    from seqrl.training.runs.folder import empty_folder, make_numbered_folder
    from seqrl.training.runs.load import load_parts
    from seqrl.training.runs.record import record
    from seqrl.training.runs.recordings import write

    chosen = {"best": args.best, "target_return": args.target_return}
    parts = load_parts(Path(args.run), named_again(args), **chosen)
    if args.out:
        folder = empty_folder(args.out, "--out", "folder")
    else:
        folder = make_numbered_folder(Path(args.run), "recorded")
    played = {"seed": args.seed, "explore": args.explore}
    try:
        made = record(parts, args.episodes, max_episode_steps=args.max_episode_steps, **played)
    except BaseException:
        folder.rmdir()  # nothing is in it yet
        raise
    write(folder, made)
    returns = made.returns
    found = f"{counted(len(returns), 'episode')}, {counted(made.steps, 'step')}"
    print(f"recorded  {found} in {folder}")
    print(f"returns   {returns.min():g} to {returns.max():g}, {returns.mean():g} in the mean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
