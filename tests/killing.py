"""Run with a kind and a number of trials: runs killed with SIGKILL at random moments, and resumed.

Prints a line of JSON a trial. Everything is imported once; each run is a process of its own that
is forked from this one, so that a kill costs no second import.
"""

import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from seqrl.scripts import record, train
from seqrl.training.runs import folder as runs
from seqrl.training.runs.run_one import RunUnderWay

# flags of the run, and the env steps between two checkpoints
KINDS = {
    "stepped": ("--agent sarsa --env CliffWalking-v1 --steps 20000 --no-compile", 1500),
    "compiled": ("--agent q-learning --env FrozenLake-v1 --steps 3000000 --num-envs 2", 120_000),
    "lstm": (
        "--agent reinforce --env seqrl/RepeatFirst-v0 --network lstm --network-arg hidden_size=16 "
        "--steps 6000 --num-envs 8",
        500,
    ),
    "replay": (
        "--agent q-learning --network gru --network-arg hidden_size=16 --env CartPole-v1 "
        "--steps 3000 --num-envs 4 --priority 0.5 --learning-starts 250 --train-every 16",
        250,
    ),
    "ppo": (
        "--agent ppo --env CartPole-v1 --network gru --network-arg hidden_size=16 --rollout 32 "
        "--steps 3000 --num-envs 4",
        200,
    ),
    "sac": (
        "--agent sac --env Pendulum-v1 --network-arg hidden=16 --steps 6000 --num-envs 4 "
        "--learning-starts 250 --train-every 4 --batch-size 16 --noise-correlation 0.5",
        250,
    ),
    "from": (
        "--agent ppo --from {home}/begun --rollout 32 --kl-coef 0.1 --critic-warmup 1000 "
        "--steps 3000 --num-envs 4",
        200,
    ),
    "imitate": (
        "--agent imitate --env seqrl/RepeatFirst-v0 --network lstm --network-arg hidden_size=16 "
        "--own-share linear:0:0.5 --batch-size 8 --steps 6000 --num-envs 8",
        500,
    ),
    "recorded": (
        "--agent imitate --dataset {home}/data --condition-on return --network gru "
        "--network-arg hidden_size=8 --batch-size 8 --steps 6000",
        500,
    ),
    "recorded values": (
        "--agent q-learning --network mlp --dataset {home}/data --steps 20000 --train-every 16 "
        "--learning-starts 500 --priority 0.5",
        1000,
    ),
    "cnn": ("--agent reinforce --env seqrl/Catch-v0 --network cnn --steps 2000 --num-envs 4", 200),
    "causal-lm": (
        "--agent reinforce --env seqrl/Translate-v0 --env-arg shortest=1 --env-arg longest=2 "
        "--network causal-lm --network-arg model={home}/model --network-arg window=8 "
        "--steps 2000 --num-envs 8 --batch-episodes 8",
        200,
    ),
}
DRAWN = ("stepped", "compiled")  # with pictures, which take three quarters of a network's time
UNEQUAL = ("time/fps",)  # depends on the clock


def flags_of(kind, home):
    flags, every = KINDS[kind]
    common = f"--seed 3 --max-episode-steps 60 --eval-every {every * 5} --eval-episodes 5"
    drawn = [] if kind in DRAWN else ["--no-pictures"]
    return [
        *flags.format(home=home).split(),
        *common.split(),
        *drawn,
        "--checkpoint-every",
        str(every),
        "--quiet",
    ]


def begin(home):
    """A run of CartPole with memory, which another one begins from."""
    words = "--agent reinforce --env CartPole-v1 --network gru --network-arg hidden_size=16 --steps"
    words += " 500 --eval-episodes 0 --quiet --no-pictures --run-dir"
    assert train.main([*words.split(), str(home / "begun")]) == 0


def record_episodes(home):
    """Sixty episodes of CartPole, played at random."""
    words = "--agent ppo --env CartPole-v1 --steps 10 --eval-episodes 0 --quiet --run-dir"
    assert train.main([*words.split(), str(home / "source")]) == 0
    words = ["--episodes", "60", "--explore", "--out", str(home / "data")]
    with redirect_stdout(sys.stderr):  # what is printed here is JSON
        assert record.main([str(home / "source"), *words]) == 0


def forked(argv, steps):
    """A process that runs the script, and writes the env step it is at into shared memory."""
    process = os.fork()
    if process:
        return process
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        begin, status = RunUnderWay.begin, 99

        def watched(self, *args, **kwargs):
            threading.Thread(target=note, args=(self.loop, steps), daemon=True).start()
            return begin(self, *args, **kwargs)

        RunUnderWay.begin = watched
        status = train.main(argv)
    finally:
        os._exit(status)


def note(loop, steps):
    while True:
        steps[:8] = struct.pack("q", loop.steps)
        time.sleep(0.0005)


def finished(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def saved_steps(folder):
    return max([int(p.stem.split("-")[1]) for p in runs.checkpoints(folder)], default=0)


def outcome(folder):
    """What must be the same: the digest, every episode, every point in TensorBoard."""
    summary = json.loads((folder / "summary.json").read_text())
    points = []
    for path in sorted(folder.glob("events*")):
        for raw in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(raw)
            points += [
                (value.tag, event.step, value.simple_value)
                for value in event.summary.value
                if value.HasField("simple_value") and value.tag not in UNEQUAL
            ]
    facts = {k: summary[k] for k in ("digest", "steps", "episodes", "eval_mean_reward")}
    return facts, (folder / "episodes.csv").read_text(), points


def wait(process, folder, steps, rng, every, total):
    """Until the run has come to a step anywhere between its first checkpoint and its end."""
    target = rng.uniform(every, total)
    if rng.random() < 0.1:  # or not even so far
        return time.sleep(rng.random() * 0.2)
    while struct.unpack("q", steps[:8])[0] < target or not runs.checkpoints(folder):
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return None
        time.sleep(0.0002)
    return time.sleep(rng.random() * 0.01)


def trial(kind, home, number, expected):
    """Kill a run once or twice, resume it to its end and compare."""
    rng = random.Random(f"{kind} {number}")
    folder, steps = home / f"run-{number}", mmap.mmap(-1, 8)
    argv = [*flags_of(kind, home), "--run-dir", str(folder)]
    every, total = KINDS[kind][1], expected[0]["steps"]
    alive, lost, problems = [], 0, []
    for _ in range(rng.choice([1, 1, 2])):
        steps[:8] = struct.pack("q", 0)
        process = forked(argv, steps)
        wait(process, folder, steps, rng, every, total)
        reached = struct.unpack("q", steps[:8])[0]
        os.kill(process, signal.SIGKILL)
        killed = finished(process) == -signal.SIGKILL
        saved = saved_steps(folder)
        alive.append(killed and saved > 0)
        lost = max(lost, reached - saved)
        if not (folder / "config.toml").exists():
            return {"kills": 1, "alive": 0, "lost": lost, "problems": []}
        argv = ["--resume", str(folder), "--quiet"]
    status = finished(forked(argv, steps))
    if status:
        problems.append(f"exit status {status}")
    for name, found, wanted in zip(
        ("summary", "episodes.csv", "TensorBoard"), outcome(folder), expected, strict=True
    ):
        if found != wanted:
            problems.append(f"{name} differs")
    left = [p.name for p in folder.rglob("*") if p.suffix == ".part" or p.name == "lock"]
    problems += [f"left behind: {name}" for name in left]
    return {"kills": len(alive), "alive": sum(alive), "lost": lost, "problems": problems}


def main(kind, trials, first=0):
    with tempfile.TemporaryDirectory() as home:
        home, steps = Path(home), mmap.mmap(-1, 8)
        if kind.startswith("recorded"):
            record_episodes(home)
        if kind == "from":
            begin(home)
        if kind == "causal-lm":
            from tiny_models import tiny  # beside this file

            tiny("llama", size=8).save_pretrained(home / "model")
        whole = home / "whole"
        for folder in (home / "warm", whole):  # the first one pays for what is loaded once
            flags = [*flags_of(kind, home), "--run-dir", str(folder)]
            assert finished(forked(flags, steps)) == 0
        expected = outcome(whole)
        assert expected == outcome(home / "warm")
        assert len(expected[1].splitlines()) > 50 and len(expected[2]) > 50
        for number in range(first, first + trials):
            found = trial(kind, home, number, expected)
            print(json.dumps({"kind": kind, "every": KINDS[kind][1], **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
