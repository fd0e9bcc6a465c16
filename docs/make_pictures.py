"""Make the README's picture anew: `python docs/make_pictures.py`, about a minute."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from seqrl.scripts import compare

COMMAND = "--agents q-learning sarsa --env CliffWalking-v1 --max-episode-steps 200 --seeds 10"
STEPS = "100000"
HOME = Path(__file__).parent


def main(steps: str = STEPS, target: Path = HOME / "compare.png") -> int:
    """Run README's comparison in a folder that is thrown away, and keep its picture."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        flags = [*COMMAND.split(), "--steps", steps, "--logdir", place, "--out", str(out)]
        status = compare.main(flags)
        shutil.copyfile(out / "compare.png", target)
    return status


if __name__ == "__main__":
    sys.exit(main())
