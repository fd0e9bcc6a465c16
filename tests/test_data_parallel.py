"""One run in several processes, as torchrun starts them: the same as in one, whoever dies."""

import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from seqrl.agents.deep.ppo import PPO as PPOAgent
from seqrl.core import team
from seqrl.core.errors import RunError, UsageError
from seqrl.core.types import Batch
from seqrl.envs import make
from seqrl.envs.gathered import Gathered
from seqrl.envs.state import get_state, set_state
from seqrl.scripts import compare, search, train
from seqrl.training.engines.executor import Processes
from seqrl.training.runs import folder as runs
from seqrl.training.runs import saved_run
from seqrl.training.runs.config import complete
from seqrl.training.runs.parts import build, check_data_parallel
from seqrl.training.runs.run_one import RunUnderWay, run

TRAIN = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
FORKS = multiprocessing.get_context("fork")
SERIAL = "--env CartPole-v1 --env-arg vectorization=serial --num-envs 4 --preset none --quiet"
SMALL = "--network-arg hidden_size=8"
PPO = f"--agent ppo {SERIAL} --rollout 16 --eval-episodes 2 --no-pictures"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(action, *args, size=2):
    """Processes forked from this one, with what torchrun would tell them, and a pipe to each."""
    port, started = free_port(), []
    for rank in range(size):
        here, there = FORKS.Pipe(duplex=False)
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
        told |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        process = FORKS.Process(target=child, args=(there, told, action, args))
        process.start()
        there.close()
        started.append((process, here))
    return started


def child(there, told, action, args):
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)  # those of the process before are not here, and would be waited for
    try:
        there.send(action(*args))
    except BaseException:
        there.send(traceback.format_exc())


def end(started, seconds=60):
    """What the action gave in each process, None where it was killed."""
    found = []
    for process, here in started:
        assert here.poll(seconds), "a process hangs"
        try:
            found.append(here.recv())
        except EOFError:
            found.append(None)
        process.join()
    return found


def together(action, *args, size=2):
    """What an action gives in each of several processes that share a run."""

    def joined():
        with team.joined():
            return action(*args)

    return end(start(joined, size=size))


def trained(words, *more, size=2):
    """The exit statuses of `seqrl train` in several processes."""
    argv = [*words.split(), *map(str, more)]
    return [train.main(argv)] if size == 1 else end(start(train.main, argv, size=size))


def as_one(n=2, rank=0):
    """Let this process take itself for one of several, without the others."""
    patch = pytest.MonkeyPatch()
    patch.setattr(team.HERE, "size", n)
    patch.setattr(team.HERE, "rank", rank)
    return patch


# ---- what is sent


def exchanges():
    rank, found = team.rank(), {}
    x = torch.tensor([1.0, 2.0]) * (1 + 9 * rank)
    array = np.float32([rank, 5])
    found["total"] = team.total(x).tolist(), x.tolist()
    found["largest"] = team.largest(x).tolist()
    team.add_up([x, array])
    found["add_up"] = x.tolist(), array.tolist()
    found["gather"] = team.gather("ranks", rank)
    large = team.gather("much", np.full(100_000 * rank, rank))
    found["much"] = [(len(one), one.sum().item()) for one in large]
    found["first"] = team.of_first("rank", team.rank)
    found["agreed"] = team.agreed("flags", rank == 1, False)
    try:
        team.all_of("an error", fails_in_the_second)
    except RunError as error:
        found["error"] = str(error)
    try:
        team.gather(f"place {rank}", 0)
    except team.Lost as error:
        found["lost"] = str(error)
    return found


def fails_in_the_second():
    if team.rank() == 1:
        raise RunError("no more")


def test_what_is_sent_arrives_in_both():
    first, second = together(exchanges)
    for found in (first, second):
        assert found["total"][0] == [11.0, 22.0]
        assert found["largest"] == [10.0, 20.0]
        assert found["add_up"] == ([11.0, 22.0], [1.0, 10.0])
        assert found["gather"] == [0, 1]
        assert found["much"] == [(0, 0), (100_000, 100_000)]
        assert found["first"] == 0
        assert found["agreed"] == (True, False)
        assert found["error"] == "no more"
    assert second["total"][1] == [10.0, 20.0]  # what was added up is left as it is
    assert first["lost"].startswith("process 1 is at place 1, process 0 at place 0: go on")


def test_alone_nothing_is_sent_and_nothing_copied():
    x, batch = torch.ones(2), object()
    assert team.total(x) is x and team.largest(x) is x and team.share(batch) is batch
    team.add_up(iter(()))
    assert team.gather("x", 1) == [1] and team.of_first("x", team.size) == 1
    assert team.agreed("x", True, False) == (True, False)


def test_what_does_not_arrive_says_whether_it_was_waited_for():
    for said, told in (("Connection closed by peer", "ended"), ("Timed out waiting", "answer for")):
        with pytest.raises(team.Lost, match=told), team.losses():
            raise RuntimeError(said)


def batch_of(columns):
    leaf = torch.arange(2.0 * columns).view(2, columns)
    yes = torch.ones(2, columns, dtype=torch.bool)
    leaves = [leaf, yes, leaf, leaf, leaf, leaf, ~yes, yes]
    return Batch(*leaves, state=leaf[0], extra={"return": leaf})


@pytest.mark.parametrize(
    ("columns", "n", "expected"),
    [
        (4, 2, [([0, 2], [1, 1]), ([1, 3], [1, 1])]),
        (5, 2, [([0, 2, 4], [1, 1, 1]), ([1, 3, 0], [1, 1, 0])]),
        (1, 3, [([0], [1]), ([0], [0]), ([0], [0])]),  # who has no column takes part
    ],
)
def test_the_shares_of_a_batch_are_as_large_and_make_it_up(columns, n, expected):
    for rank, (index, valid) in enumerate(expected):
        patch = as_one(n, rank)
        mine = team.share(batch_of(columns))
        patch.undo()
        assert mine.obs[0].tolist() == mine.state.tolist() == index
        assert mine.extra["return"][1].tolist() == [columns + i for i in index]
        assert mine.valid.tolist() == [list(map(bool, valid))] * 2


# ---- environments


def played(n, *, shared):
    """What RepeatFirst shows, pays and answers, with episodes that are left in the middle."""
    envs = make("seqrl/RepeatFirst-v0", n, vectorization="serial")
    envs = Gathered(envs) if shared else envs
    seen, mask = [envs.reset(np.random.SeedSequence(5))], np.array([1, 0, 0, 1], bool)
    for turn in range(6):
        seen.append(envs.answer())
        outcome = envs.step(np.arange(4) % 2)
        seen.append(outcome)
        if turn == 2:
            seen.append(envs.restart(mask, outcome))
    state = get_state(envs)
    envs.step(np.zeros(4, int))
    set_state(envs, state)
    seen.append(envs.step(np.ones(4, int)))
    envs.close()
    return seen, state


def test_environments_of_two_processes_are_those_of_one():
    alone = played(4, shared=False)
    for shared in together(lambda: played(2, shared=True)):
        assert differences(alone, shared) == 0
    assert alone[0][1][1].any()  # some answers are known


# ---- a run in two is a run in one


def newest(folder):
    return saved_run.newest(folder)["loop"]


def differences(one, other, path=""):
    """The largest difference of reals in two trees, of which all else has to be equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        return max([differences(one[key], other[key], f"{path}/{key}") for key in one], default=0)
    if isinstance(one, list | tuple):
        pairs = enumerate(zip(one, other, strict=True))
        return max([differences(a, b, f"{path}/{i}") for i, (a, b) in pairs], default=0)
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype.kind != "f":
        assert np.array_equal(a, b), path
        return 0.0
    assert a.shape == b.shape, path
    return float(np.abs(a - b).max(initial=0.0))


def check_same_run(words, home, size=2):
    """In several processes it is what it is in one, but for the order of sums; return the loop."""
    one, other = home / "one", home / "other"
    assert trained(words, "--run-dir", one, size=1) == [0]
    assert trained(words, "--run-dir", other, size=size) == [0] * size
    assert (one / "episodes.csv").read_text() == (other / "episodes.csv").read_text()
    told = [json.loads((each / "summary.json").read_text()) for each in (one, other)]
    assert told[0]["eval_mean_reward"] == told[1]["eval_mean_reward"]
    assert f"{size} processes" in told[1]["path"] and "processes" not in told[0]["path"]
    found = newest(one), newest(other)
    assert found[0]["agent"]["updates"] > 2
    assert differences(*({**each, "metrics": {}} for each in found)) < 1e-5
    assert found[0]["metrics"].keys() == found[1]["metrics"].keys()
    for tag, number in found[0]["metrics"].items():
        assert found[1]["metrics"][tag] == pytest.approx(number, rel=1e-3, abs=1e-5), tag
    return found[1]


RUNS = {
    "mlp": f"{PPO} --steps 500 --normalize-reward",
    # as many minibatches as columns: one process has none
    "gru": f"{PPO} --steps 500 --network gru {SMALL} --normalize-obs --target-kl 0.05",
    "reinforce": f"--agent reinforce {SERIAL} --steps 600 --eval-episodes 2 --batch-episodes 4",
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_two_processes_is_that_in_one(name, tmp_path):
    check_same_run(RUNS[name], tmp_path)


def sums_of_updates(words, folder):
    """How many sums over the processes each update of a run takes."""
    counts, add, update = [], torch.distributed.all_reduce, PPOAgent.update

    def counted(*args, **more):
        counts[-1] += 1
        return add(*args, **more)

    def watched_update(self, batch):
        counts.append(0)
        torch.distributed.all_reduce = counted
        try:
            return update(self, batch)
        finally:
            torch.distributed.all_reduce = add

    PPOAgent.update = watched_update
    assert train.main([*words.split(), str(folder)]) == 0
    return counts


def test_an_update_of_ppo_exchanges_its_loss_and_two_gradients(tmp_path):
    words = f"{PPO} --steps 128 --eval-episodes 0 --run-dir"
    for counts in end(start(sums_of_updates, words, tmp_path / "run")):
        assert len(counts) > 2 and set(counts) == {3}


@pytest.mark.parametrize("size", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_checkpoint_of_two_goes_on_in_any_number_of_processes(size, tmp_path):
    words = f"{RUNS['mlp']} --checkpoint-every 200"
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert trained(words, "--run-dir", whole, size=1) == [0]
    assert trained(words, "--run-dir", folder) == [0, 0]
    (folder / "summary.json").unlink()
    for path in runs.checkpoints(folder)[:-1]:
        path.unlink()
    assert trained(f"--resume {folder} --quiet", size=size) == [0] * size
    loops = ({**newest(each), "metrics": {}} for each in (whole, folder))
    assert differences(*loops) < 1e-5


def test_evaluations_end_and_keep_a_run_alike(tmp_path):
    """The first process plays them; all have to know what they brought."""
    words = f"{PPO} --steps 2000 --eval-every 100 --stop-at 8"
    assert trained(words, "--run-dir", tmp_path / "run") == [0, 0]
    steps = json.loads((tmp_path / "run" / "summary.json").read_text())["steps"]
    assert 100 <= steps < 2000 and runs.best_path(tmp_path / "run").exists()


def test_from_python_several_processes_share_a_run_as_well(tmp_path):
    given = {"agent": "ppo", "env": "CartPole-v1", "num_envs": 2, "steps": 64, "eval_episodes": 0}
    given |= {"env_args": {"vectorization": "serial"}, "agent_args": {"rollout": 8}}

    def shared():
        return run(given, tmp_path / "run").contents["digest"]

    first, second = end(start(shared))
    assert first == second == json.loads((tmp_path / "run" / "summary.json").read_text())["digest"]


# ---- who dies, who is asked to stop, who drifts


def watched(argv, step, number):
    """A run whose second process gets a signal at an env step."""
    advance = RunUnderWay._play

    def play(self):
        class Signal:
            every = step

            def __call__(self, loop):
                if team.rank() == 1 and loop.steps // step == 1:
                    os.kill(os.getpid(), number)

        self.loop.callbacks.insert(0, Signal())
        return advance(self)

    RunUnderWay._play = play
    return train.main(argv)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    home = tmp_path_factory.mktemp("unbroken")
    words = f"{PPO} --steps 500 --network gru {SMALL} --checkpoint-every 100"
    assert trained(words, "--run-dir", home / "run") == [0, 0]
    return words, home / "run"


@pytest.mark.parametrize(
    ("number", "statuses"), [(signal.SIGKILL, [1, None]), (signal.SIGTERM, [0, 143])]
)
def test_a_run_goes_on_after_the_end_of_a_process_to_the_same_weights(
    number, statuses, unbroken, tmp_path, capfd
):
    words, whole = unbroken
    folder = tmp_path / "run"
    argv = [*words.split(), "--run-dir", str(folder)]
    assert end(start(watched, argv, 250, number)) == statuses
    if number == signal.SIGKILL:
        told = capfd.readouterr().err.splitlines()
        assert len(told) == 1 and "another process of the run has ended: go on from" in told[0]
        assert newest(folder)["steps"] == 200
    assert trained(f"--resume {folder} --quiet") == [0, 0]
    digests = [json.loads((x / "summary.json").read_text())["digest"] for x in (whole, folder)]
    assert digests[0] == digests[1]
    assert (whole / "episodes.csv").read_text() == (folder / "episodes.csv").read_text()
    assert not (folder / "lock").exists()


class Breaks(gym.Wrapper):
    """Fails at its 40th step, in the second process alone."""

    taken = 0

    def step(self, action):
        self.taken += 1
        if team.rank() == 1 and self.taken == 40:
            raise ValueError("the simulator is gone")
        return super().step(action)


def test_an_error_of_one_environment_ends_all_and_keeps_what_was_learned(tmp_path, capfd):
    gym.register("Breaks-v1", lambda: Breaks(CartPoleEnv()))
    words = PPO.replace("--env CartPole-v1", "--env Breaks-v1") + " --steps 500 --run-dir"
    try:
        assert trained(words, tmp_path / "run") == [1, 1]
    finally:
        del gym.registry["Breaks-v1"]
    told = capfd.readouterr().err.splitlines()
    found = "at env step 157: environment Breaks-v1 2 (seed "  # of four, the first of the second's
    assert len(told) == 1 and found in told[0] and "simulator is gone" in told[0]
    assert newest(tmp_path / "run")["steps"] == 156


def without_room(argv, place, name):
    """A run during whose call of a function the first process can write no byte."""
    action = getattr(place, name)

    def limited(*args, **more):
        if team.rank():
            return action(*args, **more)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            return action(*args, **more)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    setattr(place, name, limited)
    return train.main(argv)


def test_a_config_that_the_first_process_cannot_write_ends_all_with_one_line(tmp_path, capfd):
    argv = [*f"{PPO} --steps 200 --run-dir".split(), str(tmp_path / "run")]
    assert end(start(without_room, argv, runs, "write_config")) == [2, 2]
    told = capfd.readouterr().err
    where = tmp_path / "run" / "config.toml"
    assert told == f"seqrl: {where}: File too large; make room or name another --logdir\n"
    assert not any((tmp_path / "run").iterdir())


def test_a_mistake_of_all_is_told_once_and_one_of_a_single_process_in_all(tmp_path, capfd):
    assert trained(f"{PPO} --steps 200 --num-envs 5 --run-dir", tmp_path / "run") == [2, 2]
    assert capfd.readouterr().err.count("\n") == 1
    gym.register("Port-v1", lambda: Taken(CartPoleEnv()))
    words = PPO.replace("--env CartPole-v1", "--env Port-v1") + " --steps 500 --run-dir"
    try:
        assert trained(words, tmp_path / "run") == [2, 2]
    finally:
        del gym.registry["Port-v1"]
    told = capfd.readouterr().err
    assert "the port is taken" in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_who_does_not_tell_a_mistake_waits_to_be_ended(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    for name in (*team.VARIABLES, team.LAUNCHER):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    own = RunError("at step 3: OSError: no room")
    own.__cause__ = OSError("no room")
    assert team.tells(own) and team.tells(team.Lost("process 0 has ended")) and not waits
    assert team.tells(UsageError("--steps 0")) and waits == [team.GRACE]  # nobody has ended it
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert team.tells(UsageError("--steps 0")) and len(waits) == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv(team.LAUNCHER)
    assert not team.tells(UsageError("--steps 0")) and len(waits) == 1


class Taken(gym.Wrapper):
    """Can be made in the first process alone."""

    def __init__(self, env):
        super().__init__(env)
        if team.rank() == 1:
            raise OSError("the port is taken")


def drifting(argv, what):
    """A run in which something of the second process changes by itself."""
    advance = RunUnderWay._play

    def play(self):
        if team.rank() == 1:
            if what == "the weights":
                with torch.no_grad():
                    self.loop.agent.critic.module.layer.bias += 1e-3
            else:
                self.loop.agent.rng.random()
        return advance(self)

    RunUnderWay._play = play
    return train.main(argv)


@pytest.mark.parametrize("what", ["the weights", "the actions"])
def test_drift_ends_a_run_by_name(what, tmp_path, capfd):
    words = f"{PPO} --steps 200 --epochs 16 --eval-episodes 0"
    argv = [*words.split(), "--run-dir", str(tmp_path / "run")]
    assert end(start(drifting, argv, what)) == [1, 1]
    told = capfd.readouterr().err.splitlines()
    found = f"seqrl: drift: {what} of process 1 are not those of process 0; take machines of one"
    assert len(told) == 2 and all(line.startswith(found) for line in told)
    assert not (tmp_path / "run" / "summary.json").exists()


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_envs": 5}, "--num-envs 5: 2 processes cannot share them evenly; take a multiple"),
        ({"env_args": {}}, "CartPole-v1 is a batch with one seed, which processes cannot share"),
        ({"agent": "q-learning"}, "--agent q-learning: torchrun's processes share a run of ppo"),
        (
            {"agent": "imitate", "env": "seqrl/TMaze-v0", "env_args": {}},
            "--agent imitate: torchrun's processes",
        ),
        ({"agent_args": {"sparsity": 0.1}}, "sparsity 0.1: a batch's mean is nowhere whole"),
    ],
)
def test_what_processes_cannot_share_is_refused_in_a_line(settings, told):
    given = {"agent": "ppo", "env": "CartPole-v1", "network": "mlp", "num_envs": 4}
    given["env_args"] = {"vectorization": "serial"}

    def refused():
        with pytest.raises(UsageError) as found:
            build(complete(given | settings))
        return str(found.value)

    assert all(found.startswith(told) for found in together(refused))


def test_an_environment_that_is_only_a_batch_is_not_told_to_be_single():
    gym.register("Batch-v1", vector_entry_point=CartPoleVectorEnv)
    patch = as_one()
    try:
        with pytest.raises(UsageError, match=r"; it has no single one, so start without"):
            build(complete({"agent": "ppo", "env": "Batch-v1", "network": "mlp", "num_envs": 4}))
    finally:
        patch.undo()
        del gym.registry["Batch-v1"]


def test_a_folder_in_use_is_told_by_all_processes(tmp_path):
    folder = runs.new_folder("", "", "", 0, str(tmp_path / "run"))

    def lock():
        with pytest.raises(UsageError, match="in use by process"), runs.locked(folder):
            pass
        return team.gather("the end", team.rank())

    with runs.locked(folder):
        assert together(lock) == [[0, 1], [0, 1]]
    assert not (folder / "lock").exists()


def test_many_runs_are_refused_where_torchrun_started_the_process(monkeypatch, capsys):
    for name in team.VARIABLES:
        monkeypatch.setenv(name, "0" if name == "LOCAL_RANK" else "2")
    with pytest.raises(UsageError, match="many runs: torchrun's processes share one run"):
        Processes(2)
    assert train.main("--agent ppo --seeds 2 --env CartPole-v1".split()) == 2
    assert "--seeds: torchrun's processes share one run" in capsys.readouterr().err
    for command in (compare, search):
        assert command.main(["--env", "CartPole-v1", "--engine", "ray"]) == 2
        assert capsys.readouterr().err.startswith("seqrl: many runs: torchrun's processes share")


def test_a_subclass_has_to_say_itself_that_it_shares_its_gradients():
    class Own(PPOAgent):
        """Whose loss may be of the whole batch."""

    with pytest.raises(UsageError, match="--agent mine:Own: torchrun's processes share a run of"):
        check_data_parallel(Own, {"agent": "mine:Own"})
    Own.data_parallel = True
    check_data_parallel(Own, {"agent": "mine:Own"})


# ---- torchrun itself


def torchrun(*words):
    """What torchrun starts two of."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, "--max-restarts=0", str(TRAIN), *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)


def started_by(process):
    """The processes that torchrun has started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def reached(folder):
    """The env step of the newest checkpoint."""
    return max((int(path.stem[5:]) for path in folder.glob("checkpoint/step-*.ckpt")), default=0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
def test_torchrun_killed_at_random_moments_and_started_again_has_the_same_weights(tmp_path):
    rng = random.Random(0)
    words = f"{PPO} --steps 2000 --network gru {SMALL} --checkpoint-every 50".split()
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert torchrun(*words, "--run-dir", str(whole)).wait() == 0
    process = torchrun(*words, "--run-dir", str(folder))
    for _ in range(3):
        before = reached(folder)
        while process.poll() is None and reached(folder) == before:
            time.sleep(0.01)
        time.sleep(rng.random() / 10)
        alive = started_by(process)
        os.kill(rng.choice(alive), signal.SIGKILL)
        assert process.wait(120) != 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in alive)
        process = torchrun("--resume", str(folder), "--quiet")
    assert process.wait(300) == 0
    told = [json.loads((each / "summary.json").read_text()) for each in (whole, folder)]
    assert told[0]["digest"] == told[1]["digest"]
