"""Talk to a trained agent: `seqrl talk runs/Translate-v0/imitate/seed-0`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

from seqrl.core.errors import UsageError
from seqrl.scripts.decoding import add_decoding_flags, told
from seqrl.scripts.options import Parser, check_minimum, guarded, print_note
from seqrl.scripts.run_flags import add_run_flags, named_again


@guarded
def main(argv: Sequence[str]) -> int:
    """Load a run, answer each line of the input."""
    about = "Talk to a trained agent of a token task: each line of the input is answered."
    parser = Parser(prog="seqrl talk", description=about)
    add_run_flags(parser)
    add_decoding_flags(parser)
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.read(argv)
    check_minimum(args, {"seed": 0})
    from seqrl.training.runs.conversation import Conversation
    from seqrl.training.runs.policy import load

    policy = load(args.run, best=args.best, **named_again(args))
    talk = Conversation(policy.decode(**told(args), seed=args.seed))
    if sys.stdin.isatty():
        again = "; an empty line begins another dialogue" * talk.rules.hears_itself
        print_note(f"a line is answered, Ctrl-D ends{again}")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is no text is an unknown word
    for line in sys.stdin:
        answer(talk, line.strip())
    return 0


def answer(talk: Any, text: str) -> None:
    """Print the reply to a line; an empty one begins another dialogue."""
    if not text:
        talk.reset()
        return
    try:
        print(talk.reply(text), flush=True)
    except UsageError as error:
        print_note(str(error))


if __name__ == "__main__":
    sys.exit(main())
