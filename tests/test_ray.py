"""Runs on a Ray cluster of three raylets on this machine: equal digests, whatever is killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from seqrl.core.errors import UsageError
from seqrl.scripts import compare, search
from seqrl.training import Job, Processes, executor
from seqrl.training.engines.executor import steps_done

pytestmark = [
    pytest.mark.slow,
    # Ray leaves its processes and sockets to the end of the interpreter
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]
RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # which makes all of it listen on 127.0.0.1
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # it is 15, and other tests would go before
}
MEMORY = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
TABLE = {"agent": "q-learning", "env": "FrozenLake-v1", "eval_episodes": 5, "pictures": False}
LONG = {**TABLE, "steps": 150_000, "compile": False, "checkpoint_every": 2_000, "eval_every": 0}
AGENT = """
from helper import gamma
from seqrl.agents import QLearning

class Mine(QLearning):
    \"\"\"Q-learning with a discount of its own.\"\"\"
    def __init__(self, observation_space, action_space, *, seed=None):
        super().__init__(observation_space, action_space, gamma=gamma, seed=seed)
"""


@pytest.fixture(scope="module")
def cluster():
    """A head, which plays nothing, and two raylets of one CPU; all listen on 127.0.0.1 alone."""
    before = {name: os.environ.get(name) for name in RAY}
    os.environ.update(RAY)  # read when Ray is imported
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    began = time.time()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **MEMORY})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **MEMORY)
    print(f"cluster up in {time.time() - began:.1f} s", file=sys.__stderr__)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    assert run_processes() == {}


def run_processes():
    """The runs that go on in a temporary folder: its seed, and the ids of process and worker."""
    found = {}
    for home in Path("/proc").glob("[0-9]*"):
        try:
            words = (home / "cmdline").read_bytes().split(b"\0")
            folder = next(w for w in words if w.startswith(b"--resume=/") and b"/seqrl-" in w)
            folder = Path(folder.decode().partition("=")[2])
            seed = int((folder / "config.toml").read_text().partition("\nseed = ")[2].split()[0])
        except (OSError, StopIteration, IndexError, ValueError):
            continue
        found[seed] = (int(home.name), parent(home.name), folder)
    return found


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def gone(deadline=20):
    """Whether no run goes on, at once or soon."""
    end = time.time() + deadline
    while run_processes() and time.time() < end:
        time.sleep(0.1)
    return run_processes() == {}


def digest(folder):
    summary = json.loads((Path(folder) / "summary.json").read_text())
    assert summary["finished"]
    return summary["digest"]


def files(folder):
    """The names of what a run has left; how many checkpoints, and of which step, says the clock."""
    names = {path.name.partition(".1")[0] for path in Path(folder).rglob("*")}
    return {name for name in names if not name.startswith("step-")}


def test_24_runs_have_the_digests_of_this_machine(cluster, tmp_path, capsys):
    flags = "--agents q-learning sarsa --env FrozenLake-v1 --steps 10000 --seeds 12 --no-compile"
    flags = [*flags.split(), "--eval-episodes", "5", "--workers", "2"]
    far = ["--engine", "ray", "--address", cluster.address]
    walls = {}
    for name, more in (("local", []), ("ray", far)):
        began = time.time()
        assert compare.main([*flags, *more, "--logdir", str(tmp_path / name)]) == 0
        walls[name] = time.time() - began
    print({name: round(wall, 1) for name, wall in walls.items()}, file=sys.__stderr__)
    found = {
        name: {
            str(p.relative_to(tmp_path / name)): p
            for p in (tmp_path / name).glob("FrozenLake-v1/*/seed-*")
        }
        for name in walls
    }
    assert found["local"].keys() == found["ray"].keys() and len(found["ray"]) == 24
    for name, here in found["local"].items():
        assert digest(here) == digest(found["ray"][name])
        assert files(here) == files(found["ray"][name])
    tables = [(tmp_path / name).glob("compare-*/compare.csv") for name in walls]
    assert len({next(table).read_text() for table in tables}) == 1
    assert gone()


def test_what_is_killed_goes_on_elsewhere_to_the_same_digest(cluster, tmp_path, capfd):
    """The process of a run, its worker, and a raylet with all that is on it."""
    configs = {seed: {**LONG, "seed": seed} for seed in range(3)}
    killed, went_on, left = {}, {}, ["run", "worker", "raylet"]

    def strike(going, over):
        """Kill what is next once its run has sent a state; then see where the run begins again."""
        alive = run_processes()
        for seed in {job.config["seed"] for job in going if steps_done(job.folder)} & alive.keys():
            process, worker, folder = alive[seed]
            saved = max((path.name for path in folder.glob("checkpoint/step-*")), default="")
            if seed in killed:
                if process != killed[seed]:
                    went_on.setdefault(seed, saved)
            elif left and saved:
                victims = {"run": process, "worker": worker, "raylet": parent(worker)}
                os.kill(victims[left.pop(0)], signal.SIGKILL)
                killed[seed] = process

    jobs = [Job(config, tmp_path / f"ray-{seed}") for seed, config in configs.items()]
    far = executor("ray", address=cluster.address, progress=strike)
    results = [(result.job.folder.name, result.reason) for result in far.map(jobs)]
    assert sorted(results) == [(f"ray-{seed}", "") for seed in configs]
    assert not left and went_on.keys() == killed.keys() == configs.keys()
    assert all(went_on.values())  # no process has saved by the time that it is first seen
    assert gone()
    assert capfd.readouterr().out == ""
    here = [Job(config, tmp_path / f"local-{seed}") for seed, config in configs.items()]
    assert all(not result.reason for result in Processes(2).map(here))
    for seed in configs:
        assert digest(tmp_path / f"ray-{seed}") == digest(tmp_path / f"local-{seed}")
    cluster.add_node(num_cpus=1, **MEMORY)


def test_ctrl_c_ends_all_runs_with_what_they_learned(cluster, tmp_path):
    jobs = [Job({**LONG, "steps": 10**9, "seed": seed}, tmp_path / str(seed)) for seed in range(3)]

    def interrupt(going, over):
        if sum(steps_done(job.folder) > 0 for job in going) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(executor("ray", workers=2, address=cluster.address, progress=interrupt).map(jobs))
    for seed in range(2):
        summary = json.loads((tmp_path / str(seed) / "summary.json").read_text())
        assert not summary["finished"] and 0 < summary["steps"] < 10**9
    assert not (tmp_path / "2").exists()
    assert gone()


def test_code_of_the_users_and_a_shared_folder(cluster, tmp_path, monkeypatch):
    (tmp_path / "mine_on_ray.py").write_text(AGENT)
    (tmp_path / "helper.py").write_text("gamma = 0.9\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    config = {**TABLE, "steps": 1000, "agent": "mine_on_ray:Mine"}
    shared = {"address": cluster.address, "storage": "kept", "retries": 0}
    odd = Job({**config, "env": "Nowhere-v0"}, "odd", "odd")
    results = {
        result.job.name: result
        for result in executor("ray", **shared).map([Job(config, "far", "far"), odd])
    }
    assert results["far"].reason == ""
    assert "Nowhere" in results["odd"].reason and "log: odd.log" in results["odd"].told
    assert next(Processes(1).map([Job(config, "near")])).reason == ""
    assert digest("far") == digest("near") and not any(Path("kept").iterdir())


def test_a_machine_that_joins_takes_runs_that_wait_and_goes_on_with_those_of_another(
    cluster, tmp_path
):
    """By states in a shared folder; a worker is killed once all three machines have a run."""
    configs = {seed: {**LONG, "steps": 240_000, "seed": seed} for seed in range(4)}
    joined, killed = [], []

    def strike(going, over):
        alive = run_processes()
        if alive and not joined:
            joined.append(cluster.add_node(num_cpus=1, wait=False, **MEMORY))
        saved = [seed for seed in alive if any(alive[seed][2].glob("checkpoint/step-*"))]
        if len(alive) == 3 and saved and not killed:
            os.kill(alive[saved[0]][1], signal.SIGKILL)
            killed.append(saved[0])

    jobs = [Job(config, tmp_path / f"ray-{seed}") for seed, config in configs.items()]
    storage = tmp_path / "kept"
    far = executor("ray", address=cluster.address, storage=str(storage), progress=strike)
    assert [result.reason for result in far.map(jobs)] == [""] * 4
    assert joined and killed and not any(storage.iterdir()) and gone()
    assert not [*Path(tempfile.gettempdir()).glob("seqrl-run-*")]
    near = [Job(config, tmp_path / f"local-{seed}") for seed, config in configs.items()]
    assert all(not result.reason for result in Processes(2).map(near))
    for seed in configs:
        assert digest(tmp_path / f"ray-{seed}") == digest(tmp_path / f"local-{seed}")
    cluster.remove_node(joined[0])


def test_a_search_on_the_cluster_that_is_killed_goes_on(cluster, tmp_path):
    words = "--env FrozenLake-v1 --steps 20000 --no-compile --eval-episodes 5 --trials 5 --best 1"
    words += " --search learning_rate=log:0.01:1 --fresh-seeds 1 --engine ray --address"
    command = [sys.executable, search.__file__, *words.split(), cluster.address]
    command += ["--out", str(tmp_path / "out"), "--logdir", str(tmp_path)]
    with subprocess.Popen(command) as first:
        while not [*tmp_path.glob("out/trials/000[1-4]/seed-0/events*")]:
            assert first.poll() is None
            time.sleep(0.2)
        first.kill()
    assert subprocess.run(command, timeout=400).returncode == 0
    with open(tmp_path / "out" / "search.csv", encoding="utf-8") as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert len(states) == 5 and {*states} <= {"complete", "pruned"} and gone()


def test_a_cluster_that_has_other_versions_or_no_room_is_named(cluster, monkeypatch):
    from seqrl.training.engines import ray_engine

    with pytest.raises(UsageError, match=r"no machine of the cluster has 1 CPU and 0\.5 GPU"):
        executor("ray", address=cluster.address, gpus_per_run=0.5)
    here = ray_engine.runs.versions()
    monkeypatch.setattr(ray_engine.runs, "versions", lambda: {**here, "numpy": "0.1"})
    with pytest.raises(UsageError, match=rf"127.0.0.1 has numpy {here['numpy']}, .* 0.1; install"):
        executor("ray", address=cluster.address)
