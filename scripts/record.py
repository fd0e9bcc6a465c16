"""Record a trained agent's episodes: `seqrl record runs/CartPole-v1/ppo/seed-0 --episodes 1000`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from seqrl.core.errors import counted
from seqrl.scripts.options import Parser, add_run_flags, check_minimum, guarded


@guarded
def main(argv: Sequence[str]) -> int:
    """Load a run, play it, write its episodes, say what they brought."""
    about = "Play a trained agent and keep its episodes, for seqrl train --dataset."
    parser = Parser(prog="seqrl record", description=about)
    add = parser.add_argument
    add_run_flags(parser)
    add("--episodes", type=int, default=1000, help="how many to play")
    add("--out", metavar="FOLDER", help="new or empty (default: RUN/recorded, numbered)")
    add("--explore", action="store_true", help="play as in training, not greedily")
    add("--seed", type=int, default=0, help="of the environments and of what is explored")
    add("--max-episode-steps", type=int, default=10_000, help="cut episodes after as many steps")
    add(
        "--target-return", type=float, help="that is asked for, of a run with --condition-on return"
    )
    add("--debug", action="store_true", help="show tracebacks")
    args = parser.read(argv)
    check_minimum(args, {"episodes": 1, "seed": 0, "max_episode_steps": 1})
    from seqrl.training.runs.folder import empty_folder, make_numbered_folder
    from seqrl.training.runs.load import CODE, load_parts
    from seqrl.training.runs.record import record
    from seqrl.training.runs.recordings import write

    allowed = {**{name: getattr(args, name) for name in CODE}, "wrappers": args.wrapper}
    chosen = {"best": args.best, "target_return": args.target_return}
    parts = load_parts(Path(args.run), allowed, **chosen)
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
