"""Env steps a second of one run of PPO in two processes that torchrun starts, beside one process.

`python benchmarks/data_parallel.py` (a thread a process, 2 cores): 16 environments whose step takes
5 ms, waiting as for a simulator in another program, or computing (asked of both: at least 1.7 times
those of one process); then CartPole-v1 as it is, where a turn takes less than a millisecond, which
does not pay. Runs alternate; evaluation and start are not counted. `--rounds N` for more of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym

HERE = Path(__file__).resolve()
PPO = "--agent ppo --env CartPole-v1 --num-envs 16 --preset none --eval-episodes 0"
TAKES = "--wrapper data_parallel:Takes --wrapper-arg milliseconds=5"
CASES = {  # flags of a run, and its env steps
    "5 ms, waiting": (TAKES, 4096),
    "5 ms, computing": (f"{TAKES} --wrapper-arg computing=True", 4096),
    "CartPole": ("--env-arg vectorization=serial", 32_768),
}


class Takes(gym.Wrapper[Any, Any, Any, Any]):
    """Lets each step take some milliseconds more, of waiting or of computing."""

    def __init__(self, env: gym.Env[Any, Any], milliseconds: float, computing: bool = False):
        super().__init__(env)
        self.seconds, self.clock = milliseconds / 1000, time.process_time if computing else None

    def step(self, action: Any) -> Any:
        """Take a step, and that time."""
        if self.clock is None:
            time.sleep(self.seconds)
        else:
            until = self.clock() + self.seconds
            while self.clock() < until:
                pass
        return self.env.step(action)


def speed(flags: str, steps: int, processes: int) -> float:
    """Return the env steps a second of a run."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "run"
        words = f"{PPO} {flags} --steps {steps} --no-pictures --quiet --run-dir {folder}".split()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
        command = [*start, str(HERE.parents[1] / "scripts/train.py"), *words]
        subprocess.run(command, env=environment, check=True)
        return float(json.loads((folder / "summary.json").read_text())["steps_per_second"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    for name, (flags, steps) in CASES.items():
        pairs = [[speed(flags, steps, n) for n in (1, 2)] for _ in range(rounds)]
        one, two = map(statistics.median, zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        turns = f"a turn {16e3 / one:.3g} ms, then {16e3 / two:.3g}"
        print(
            f"{name:<16} {one:8,.0f} {two:8,.0f} env steps/s  x {ratio:.2f}  ({turns})", flush=True
        )


if __name__ == "__main__":
    main()
