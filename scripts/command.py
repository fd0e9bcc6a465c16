"""The installed command `seqrl`: `seqrl train ...` runs the script `train`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from seqrl.core.errors import UsageError, closest
from seqrl.scripts.options import guarded
from seqrl.training.runs.elsewhere import COMMANDS

SCRIPTS = {
    "train": "train an agent on an environment",
    "evaluate": "play a trained agent greedily",
    "talk": "answer lines of text by a trained agent",
    "record": "play a trained agent and keep its episodes, to learn from",
    "export": "write a trained agent to a file that runs without seqrl",
    "compare": "which algorithm is better, and how sure that is",
    "search": "which settings are best, by Optuna",
    "doctor": "what is wrong with environment, network or agent, and what mends it",
    "list": "agents and environments, a line each",
}


@guarded
def main(argv: Sequence[str]) -> int:
    """Run the script that the first argument names; refuse an unknown name with the closest one."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: seqrl COMMAND [flags]; COMMAND --help shows them\n")
        print("\n".join(f"  {name:<10} {line}" for name, line in SCRIPTS.items()))
        return 0
    if argv[0] == "--version":
        print(f"seqrl {version('seqrl')}")
        return 0
    name, *rest = argv
    if name not in SCRIPTS:
        if name.startswith("-"):
            raise UsageError(f"{name}: a command stands before it, as in seqrl train --agent ppo")
        hint = (
            f" Here it is seqrl {COMMANDS[name]}." if name in COMMANDS else closest(name, SCRIPTS)
        )
        raise UsageError(f"unknown command {name!r}.{hint} `seqrl --help` shows those there are")
    script = importlib.import_module(f"seqrl.scripts.{name}")
    return script.main.__wrapped__(rest)  # guarded here


if __name__ == "__main__":
    sys.exit(main())
