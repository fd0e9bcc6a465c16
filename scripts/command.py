"""The installed command: `seqrl train|compare|evaluate ...`, each the script of the same name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from seqrl.core import UsageError, closest
from seqrl.scripts.options import guarded

SCRIPTS = {
    "train": "train an agent on an environment",
    "evaluate": "play a trained agent greedily",
    "compare": "which algorithm is better, and how sure that is",
    "doctor": "what is wrong with environment, network or agent, and what mends it",
    "list": "agents and environments, a line each",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the rest of the line to the script that its first word names."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: seqrl COMMAND [flags]; COMMAND --help shows them\n")
        print("\n".join(f"  {name:<10} {line}" for name, line in SCRIPTS.items()))
        return 0
    return guarded(dispatch, words)


def dispatch(words: Sequence[str]) -> int:
    """Run the script; a misspelt name is refused with the closest."""
    name, *rest = words
    if name not in SCRIPTS:
        raise UsageError(f"unknown command {name!r}.{closest(name, SCRIPTS)} `seqrl --help`")
    return importlib.import_module(f"seqrl.scripts.{name}").main(rest)


if __name__ == "__main__":
    sys.exit(main())
