"""Executors that are elsewhere: what is sent, kept, brought back and refused; without Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from seqrl.core.errors import UsageError
from seqrl.scripts import compare, train
from seqrl.training import Job, Processes
from seqrl.training.engines import choice, packing, remote
from seqrl.training.engines.executor import (
    execute,
    failure,
    log_path,
    prepare,
    run_words,
    steps_done,
)
from seqrl.training.engines.scratch import scratch, sweep
from seqrl.training.engines.shared_folder import SharedFolder
from seqrl.training.runs import folder as runs

TABLE = {"agent": "q-learning", "env": "FrozenLake-v1", "steps": 500, "eval_episodes": 5}
TABLE |= {"pictures": False}


def digest(folder):
    return json.loads((Path(folder) / "summary.json").read_text())["digest"]


def task_of(job, key, **more):
    words = run_words(job, prepare(job))
    return remote.Task(key, str(job.folder), words, os.getcwd(), {}, runs.versions(), **more)


class Elsewhere:
    """An engine whose machines are threads, each run in a folder that is gone afterwards."""

    def __init__(self, storage, workers, progress, **given):
        self.store, self.pool = SharedFolder(storage), ThreadPoolExecutor(workers)
        self.workers, self.progress, self.given = workers, progress, given

    def map(self, jobs):
        return execute(jobs, self, self.progress)

    def room(self):
        return self.workers

    def start(self, job):
        task = task_of(job, f"{job.name}-{job.config['seed']}")
        self.store.save(task.key, Path(job.folder), whole=False)
        future = self.pool.submit(remote.attempt, task, b"", self.store)
        future.key = task.key
        return future

    def ended(self, going):
        time.sleep(0.05)
        over = [future for future in going if future.done()]
        for future in over:
            self.store.load(future.key, Path(going[future].folder))
            self.store.drop(future.key)
            log_path(going[future].folder).write_bytes(future.result()[1])
        return [(f, failure(f.result()[0], log_path(going[f].folder))) for f in over]

    def end(self, going):
        self.pool.shutdown()


def test_a_comparison_by_another_engine_leaves_the_same_runs(tmp_path, monkeypatch):
    made = []
    fake = lambda **options: made.append(Elsewhere(**options)) or made[0]  # noqa: E731
    monkeypatch.setattr(choice, "ray_executor", fake)
    flags = "--agents q-learning --env FrozenLake-v1 --steps 600 --seeds 2 --workers 2 --quiet"
    flags = [*flags.split(), "--eval-episodes", "3", "--logdir"]
    far = f"--engine ray --retries 2 --gpus-per-run 0.25 --storage {tmp_path}/kept".split()
    assert compare.main([*flags, str(tmp_path / "near")]) == 0
    assert compare.main([*flags, str(tmp_path / "far"), *far]) == 0
    assert made[0].given == {"retries": 2, "gpus_per_run": 0.25}
    near, far = (
        sorted(p for p in (tmp_path / x).glob("FrozenLake-v1/*/seed-*")) for x in ("near", "far")
    )
    assert [p.name for p in far] == ["seed-0", "seed-1"]  # empty logs went
    assert [digest(p) for p in far] == [digest(p) for p in near]
    assert not any((tmp_path / "kept").iterdir())
    assert compare.main([*flags, str(tmp_path / "far"), "--engine", "ray"]) == 0
    assert len(made) == 1  # nothing was left to do


def test_a_run_whose_process_is_killed_goes_on_from_the_store(tmp_path, monkeypatch):
    config = {**TABLE, "steps": 30_000, "compile": False, "checkpoint_every": 1000}
    job = Job({**config, "seed": 1}, tmp_path / "run")
    store, task = SharedFolder(tmp_path / "kept"), task_of(job, "k", interval=0.0)
    store.save("k", Path(job.folder))
    start, save, started, seen = remote.start, store.save, [], []

    def noted(task, folder, *args):
        seen.append(runs.checkpoints(folder))
        started.append(start(task, folder, *args))
        return started[-1]

    def deadly(key, folder, *, whole=True):
        save(key, folder, whole=whole)
        if not whole:
            started[0].kill()

    monkeypatch.setattr(remote, "start", noted)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(remote.Killed) as killed:
        patch.setattr(store, "save", deadly)
        remote.attempt(task, b"", store)
    assert killed.value.args == (-signal.SIGKILL, b"")
    store.load("k", tmp_path / "half")
    assert not (tmp_path / "half/summary.json").exists()
    assert 0 < steps_done(tmp_path / "half") < 30_000
    assert remote.attempt(task, b"", store) == (0, b"")
    assert not seen[0] and seen[1]
    store.load("k", Path(job.folder))
    assert next(Processes(1).map([job._replace(folder=tmp_path / "near")])).reason == ""
    assert digest(job.folder) == digest(tmp_path / "near")


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_a_run_that_is_interrupted_twice_is_saved_all_the_same(before, tmp_path, monkeypatch):
    """Also behind a shell that has started it in the background, where interrupts are ignored."""
    config = {**TABLE, "steps": 10**9, "compile": False, "checkpoint_every": 1000, "seed": 1}
    job = Job(config, tmp_path / "run")
    store, task = SharedFolder(tmp_path / "kept"), task_of(job, "k", interval=0.0)
    store.save("k", Path(job.folder))
    save = store.save

    def interrupted(key, folder, *, whole=True):
        signal.raise_signal(signal.SIGINT)  # while it sends a state, and while it ends
        save(key, folder, whole=whole)

    monkeypatch.setattr(store, "save", interrupted)
    with remote.on_interrupt(before):
        with pytest.raises(KeyboardInterrupt):
            remote.attempt(task, b"", store)
        assert signal.getsignal(signal.SIGINT) is before
    store.load("k", tmp_path / "run")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert not summary["finished"] and 0 < summary["steps"] < 10**9


def test_the_log_of_a_run_elsewhere_names_its_folder_here(tmp_path):
    store, folder = SharedFolder(str(tmp_path / "store")), tmp_path / "far"
    job = Job(TABLE, folder)
    task = task_of(job, "k")
    task = task._replace(command=["-c", "import sys; sys.exit('see ' + sys.argv[1])"])
    store.save("k", folder, whole=False)
    assert remote.attempt(task, b"", store) == (1, f"see --resume={folder}\n".encode())


def test_a_run_dies_with_the_process_that_started_it(tmp_path):
    code = """
import tempfile
import time
from pathlib import Path
from seqrl.training.engines.remote import Task, start
task = Task("k", "run", ["-c", "import time; time.sleep(60)"], ".", {}, {})
print(start(task, Path("run"), open("log", "wb"), Path()).pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        home = Path(f"/proc/{child}")
        become = [b"-c", b"import time; time.sleep(60)"]
        while (home / "cmdline").read_bytes().split(b"\0")[1:3] != become:
            time.sleep(0.02)
        parent.kill()
    end = time.monotonic() + 5
    while home.exists() and "\nState:\tZ" not in (home / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_folder_of_a_killed_worker_is_removed_by_the_next_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    text = (
        "import time; from seqrl.training.engines.scratch import scratch\nwith scratch() as home:"
    )
    text += " (home / 'run').mkdir(); print(flush=True); time.sleep(60)"
    (tmp_path / "seqrl-run-x").mkdir()  # of a process that has no lock yet
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (theirs,) = (path.parent for path in tmp_path.glob("*/run"))
        with scratch() as mine:
            assert theirs.exists() and mine != theirs
        process.kill()
    assert (theirs / "run").exists() and not mine.exists()
    with scratch() as mine:
        assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / "seqrl-run-x"])


def test_what_is_killed_while_it_removes_a_folder_leaves_the_lock_by_which_it_is_found(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home, remove = tmp_path / "seqrl-run-y", shutil.rmtree
    (home / "run").mkdir(parents=True)
    (home / "lock").touch()

    def killed(path, **options):
        remove(path, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        sweep()
    assert [entry.name for entry in home.iterdir()] == ["lock"]
    sweep()
    assert not home.exists()


def run_folder(home, steps=(100, 200, 300)):
    (home / "checkpoint").mkdir(parents=True)
    for step in steps:
        runs.checkpoint_path(home, step).write_text(str(step))
    for name in ("config.toml", "episodes.csv", "checkpoint/best.ckpt", "lock", "x.part"):
        (home / name).write_text("new")
    return home


def names(home):
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_what_is_packed_takes_the_place_of_a_folder(tmp_path):
    run, file = run_folder(tmp_path / "run"), BytesIO()
    packing.pack(run, file, whole=False)
    newest = "checkpoint/step-000000000300.ckpt"
    logs = ["config.toml", "episodes.csv"]
    (tmp_path / "there").mkdir()
    (tmp_path / "there/old.txt").touch()
    packing.unpack(file, tmp_path / "there")
    assert names(tmp_path / "there") == ["checkpoint/best.ckpt", newest, *logs]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there"]
    packing.pack(run, tmp_path / "whole.zip")
    packing.unpack(tmp_path / "whole.zip", tmp_path / "new")
    assert len(names(tmp_path / "new")) == 6
    (tmp_path / "there/episodes.csv").write_text("old")
    packing.unpack_logs(file, tmp_path / "there")
    assert (tmp_path / "there/episodes.csv").read_text() == "new"


def test_what_is_unpacked_stays_in_its_folder(tmp_path):
    with ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("../up.txt", "up")
        file.writestr("/abs.txt", "root")
    packing.unpack(tmp_path / "evil.zip", tmp_path / "runs/run")
    assert names(tmp_path / "runs") == ["run/abs.txt", "run/up.txt"]
    (tmp_path / "half.zip").write_bytes((tmp_path / "evil.zip").read_bytes()[:-30])
    with pytest.raises(Exception, match="zip"):
        packing.unpack(tmp_path / "half.zip", tmp_path / "runs/run")
    assert names(tmp_path / "runs") == ["run/abs.txt", "run/up.txt"]


def test_modules_of_the_users_travel_where_they_are_not(tmp_path, monkeypatch):
    (tmp_path / "here/pack/__pycache__").mkdir(parents=True)
    (tmp_path / "here/runs").mkdir()
    for name in ("mine.py", "pack/__init__.py", "pack/a.txt", "pack/__pycache__/a", "runs/x.py"):
        (tmp_path / "here" / name).write_text(name)
    file = BytesIO()
    packing.pack_code(tmp_path / "here", file)
    code, home = file.getvalue(), tmp_path / "home"
    home.mkdir()
    assert remote.place(home, str(tmp_path / "here"), code) == tmp_path / "here"
    assert remote.place(home, str(tmp_path / "away"), b"") == home
    (tmp_path / "here/mine.py").write_text("another")
    assert remote.place(home, str(tmp_path / "here"), code) == home / "code"
    assert names(home / "code") == ["mine.py", "pack/__init__.py", "pack/a.txt"]
    monkeypatch.setattr(packing, "CODE_LIMIT", 10)
    with pytest.raises(
        UsageError, match=r"here: its modules and packages are \d+ bytes, more than"
    ):
        packing.pack_code(tmp_path / "here", BytesIO())


def test_a_machine_with_other_versions_is_named(tmp_path):
    here = {"seqrl": "1", "torch": "2"}
    with pytest.raises(UsageError, match=r"far has torch 3, the command's machine 2; install"):
        remote.check_versions("far", {"seqrl": "1", "torch": "3"}, here)
    with pytest.raises(UsageError, match="far has no seqrl"):
        remote.check_versions("far", {"seqrl": "", "torch": "2"}, here)
    remote.check_versions("far", here, here)


def test_a_job_has_flags_of_its_own_and_some_variables_travel(tmp_path):
    job = Job(TABLE, tmp_path / "run", flags=["--debug"])
    words = run_words(job, prepare(job))
    assert "--quiet" in words and words[-1] == "--debug"
    assert next(Processes(1).map([job])).reason == "" and digest(tmp_path / "run")
    environ = {"MKL_NUM_THREADS": "1", "PATH": "/bin", "HOME": "/", "HF_TOKEN": "secret"}
    assert remote.travelling(environ) == {"MKL_NUM_THREADS": "1"}


WRONG = {
    "--engine rya": '--engine rya: expected local or ray. Did you mean "ray"?',
    "--address auto": "--address is for --engine ray, and does nothing on this machine",
    "--gpus-per-run 1": "--gpus-per-run is for --engine ray, and does nothing on this machine",
    "--engine ray --retries -1": "--retries -1: expected a whole number of at least 0",
    "--engine ray": '--engine ray: it takes Ray: pip install "seqrl[ray]"',
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_with_an_engine_is_said_in_a_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it was not installed
    for name in ("ray_engine", "depot"):
        monkeypatch.delitem(sys.modules, f"seqrl.training.runs.{name}", raising=False)
    flags = ["--agents", "q-learning", "--steps", "100", "--seeds", "1", "--quiet"]
    assert compare.main([*flags, "--logdir", str(tmp_path), *words.split()]) == 2
    assert capsys.readouterr().err == f"seqrl: {WRONG[words]}\n"
    assert not (tmp_path / "FrozenLake-v1").exists()


def test_one_process_has_no_engine(capsys):
    assert train.main(["--agent", "q-learning", "--seeds", "3", "--engine", "ray"]) == 2
    said = "unknown flag --engine. Here it is seqrl compare --engine NAME, where each seed is a run"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "127.0.0.1:1"}, r"127.0.0.1:1: no Ray cluster is there; start one by `ray st"),
        ({"address": "nowhere"}, "--address nowhere: expected auto or HOST:PORT"),
        (
            {"cpus_per_run": 1.5},
            r"--cpus-per-run 1\.5: expected a whole number, or a share below 1",
        ),
        ({"cpus_per_run": 0}, "--cpus-per-run 0: a run that needs nothing"),
    ],
)
def test_what_ray_does_not_take_is_said_in_a_line(options, said):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=said) as error:
        choice.executor("ray", **options)
    assert "\n" not in str(error.value)


def test_a_store_that_cannot_keep_a_state_is_named(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from seqrl.training.engines import depot

    monkeypatch.setattr(depot, "LARGEST", 10)
    unconnected = depot.Depot.__new__(depot.Depot)
    with pytest.raises(UsageError, match=r"its state is \d+ bytes, more than 10 .* by --storage"):
        unconnected.save("k", run_folder(tmp_path / "run"), whole=False)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--storage .*file: File exists; name another"):
        SharedFolder(str(tmp_path / "file"))
