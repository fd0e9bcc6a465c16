"""Long runs, saved and evaluated on the way: neither memory nor open files grow."""

import json
import os
import subprocess
import sys
from statistics import median

import pytest

PROGRAM = """
import json, os, sys, threading, time
from pathlib import Path
from seqrl.scripts import train
from seqrl.training.runs.run_one import RunUnderWay

seen = []

def note(loop):
    page = os.sysconf("SC_PAGE_SIZE")
    while True:
        held = int(Path("/proc/self/statm").read_text().split()[1]) * page
        seen.append((loop.steps, held, len(os.listdir("/proc/self/fd"))))
        time.sleep(0.05)

begin = RunUnderWay.begin

def watched(self, *args, **kwargs):
    threading.Thread(target=note, args=(self.loop,), daemon=True).start()
    return begin(self, *args, **kwargs)

RunUnderWay.begin = watched
status = train.main()
print(json.dumps(seen))
sys.exit(status)
"""
RUNS = {
    "table, compiled": ("--env FrozenLake-v1 --num-envs 2", 10_000_000),
    "table, stepped": ("--agent sarsa --env CliffWalking-v1 --no-compile", 1_000_000),
    "lstm": (
        "--agent reinforce --env seqrl/RepeatFirst-v0 --network lstm --num-envs 32",
        1_000_000,
    ),
    "replay": ("--env CartPole-v1 --network mlp --buffer-size 20000", 100_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_memory_and_open_files_do_not_grow(kind, tmp_path):
    """By at most 5 MB from a third of the run on; pictures, at most 20 a run, are left out."""
    words, steps = RUNS[kind]
    words += (
        f" --steps {steps} --max-episode-steps 100 --eval-every {steps // 20} --quiet --no-pictures"
    )
    words += f" --eval-episodes 5 --checkpoint-every {steps // 50} --run-dir {tmp_path / 'r'}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    seen = [row for row in json.loads(done.stdout) if row[0] >= steps / 3]
    assert len(seen) > 5 and seen[-1][0] > steps * 0.8
    early, late = seen[: len(seen) // 3], seen[-len(seen) // 3 :]
    grown = max(row[1] for row in late) - max(row[1] for row in early)
    assert grown <= 5e6, grown
    # one more is open while a checkpoint is written
    assert median(row[2] for row in late) <= median(row[2] for row in early)
