"""Write a trained agent to a file that runs without seqrl: `seqrl export RUN --to policy.pt2`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from seqrl.scripts.options import Parser, guarded
from seqrl.scripts.run_flags import add_run_flags, named_again


@guarded
def main(argv: Sequence[str]) -> int:
    """Load a run, export its policy, say what was written."""
    about = "Write a trained agent, as it plays greedily, to a file that runs without seqrl."
    parser = Parser(prog="seqrl export", description=about)
    add_run_flags(parser)
    file = "NAME.pt2, a program of torch, NAME.npz, arrays: tables and small plain networks, or "
    file += "NAME.vec, the word vectors of an agent on tokens"
    parser.add_argument("--to", required=True, metavar="FILE", help=file)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.read(argv)
    from seqrl.training.runs.export import OBSERVATIONS, export, export_vectors
    from seqrl.training.runs.policy import load

    policy, path = load(args.run, best=args.best, **named_again(args)), Path(args.to)
    if path.suffix == ".vec":
        words, numbers = export_vectors(policy, path)
        print(f"written   {path}: {words:,} words, {numbers:,} numbers each")
        return 0
    made = export(policy, path)
    size = f"{len(made.data) / 1000:,.0f} kB"
    print(f"written   {args.to} ({size}): acts as the agent on {OBSERVATIONS:,} observations")
    if made.note:
        print(f"          {made.note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
