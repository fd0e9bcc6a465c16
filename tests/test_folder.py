"""Where a run lives: names, suffixes, refusals, and what is written there."""

import json
import math
import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrl.core import UsageError
from seqrl.training.runs import folder as runs
from seqrl.training.runs.folder import new_folder, plain_name


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(home):
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def test_a_run_s_folder_is_logdir_env_agent_seed():
    folder = new_folder("runs", "seqrl/TMaze-v0", "q-learning", 7)
    assert str(folder) == "runs/seqrl-TMaze-v0/q-learning/seed-7"
    assert folder.is_dir() and not list(folder.iterdir())


def test_a_folder_that_is_there_gets_a_suffix_and_stays_as_it_is(home):
    first = new_folder("runs", "A-v0", "sarsa", 0)
    (first / "episodes.csv").write_text("mine")
    (first.parent / "seed-0.1").write_text("a file is in the way as well")
    (first.parent / "seed-0.2").symlink_to("nowhere")
    assert new_folder("runs", "A-v0", "sarsa", 0).name == "seed-0.3"
    assert new_folder("runs", "A-v0", "sarsa", 0).name == "seed-0.4"
    assert new_folder("runs", "A-v0", "sarsa", 1).name == "seed-1"
    assert (first / "episodes.csv").read_text() == "mine"


def test_runs_that_start_together_get_folders_of_their_own():
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: new_folder("runs", "A-v0", "sarsa", 0), range(40)))
    names = {"seed-0", *(f"seed-0.{i}" for i in range(1, 40))}
    assert {folder.name for folder in found} == names


def test_run_dir_names_it_outright_new_or_empty(home):
    assert new_folder("runs", "A-v0", "sarsa", 0, "here/it is") == Path("here/it is")
    assert new_folder("runs", "A-v0", "sarsa", 0, "here/it is") == Path("here/it is")
    assert everything(home) == ["here", "here/it is"]


@pytest.mark.parametrize(
    ("logdir", "run_dir", "message"),
    [
        ("runs", "full", r"run folder full is not empty: name a new one"),
        ("runs", "full/file", r"run folder full/file: File exists; name another --run-dir"),
        ("runs", "full/file/x", r"full/file/x: Not a directory; name another --run-dir"),
        ("full/file", None, r"full/file/A-v0/sarsa: Not a directory; name another --logdir"),
        ("/proc/self/x", None, r"run folder /proc/self/x.*; name another --logdir"),
    ],
)
def test_what_cannot_be_a_run_folder_is_refused_and_nothing_is_left(home, logdir, run_dir, message):
    (home / "full").mkdir()
    (home / "full/file").write_text("")
    with pytest.raises(UsageError, match=message):
        new_folder(logdir, "A-v0", "sarsa", 0, run_dir)
    assert everything(home) == ["full", "full/file"]


@pytest.mark.parametrize("run_dir", [None, "mine"])
def test_a_read_only_folder_is_refused(home, monkeypatch, run_dir):
    # whoever is root may write anywhere, so the answer of the system is put in its place
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(UsageError, match="cannot be written to; name another"):
        new_folder("runs", "A-v0", "sarsa", 0, run_dir)
    assert not list(home.rglob("seed-*"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("FrozenLake-v1", "FrozenLake-v1"),
        ("seqrl/TMaze-v0", "seqrl-TMaze-v0"),
        ("mymodule:Name-v0", "mymodule-Name-v0"),
        ("reinforce,network=gru", "reinforce,network=gru"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "run"),
        (".", "run"),
        ("", "run"),
        ("/", "run"),
        ("a b\tc\nd\0e", "a-b-c-d-e"),
    ],
)
def test_names_become_single_folders(text, name):
    assert plain_name(text) == name


@given(st.text(max_size=400))
def test_any_name_is_one_plain_folder(text):
    name = plain_name(text)
    assert Path(name).name == name and name not in ("", ".", "..") and len(name) <= 200


def test_names_too_long_for_a_file_system_are_cut_and_still_differ(tmp_path):
    names = [plain_name(text) for text in ("é" * 300, "é" * 299 + "x", "a" * 200)]
    assert len({*names}) == 3 and names[2] == "a" * 200
    for name in names:
        (tmp_path / f"{name}.log").touch()
        assert len(name.encode()) <= 200


CONFIG = {
    "env": "FrozenLake-v1",
    "seed": 2**70,
    "eval_every": None,
    "env_args": {"map_name": "8x8", "is_slippery": False, "desc": ["SF", "FG"], "x": {"y": 1.5}},
    "bin_range": {"1": [-3.0, 3.0]},
    "agent_args": {"gamma": 0.99, "epsilon": "linear:1:0.05:0.5", "trace": 'quo"te\n'},
}


def test_the_config_comes_back_without_what_was_left_open(home):
    runs.write_config(home, CONFIG)
    del (expected := dict(CONFIG))["eval_every"]
    assert runs.read_config(home) == expected
    assert tomllib.loads((home / "config.toml").read_text())["seed"] == 2**70


@pytest.mark.parametrize(
    "content",
    [b"= 3", b"\xff\xfe", b"a = 1\na = 2", b"x = " + b"[" * 10_000, b"n = " + b"9" * 9999],
)
def test_a_config_that_is_none_is_refused(home, content):
    (home / "config.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.toml: "):
        runs.read_config(home)


def test_a_folder_without_config_is_no_run(home):
    with pytest.raises(UsageError, match=r"no config\.toml there; name a run folder"):
        runs.read_config(home / "missing")
    (home / "config.toml").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        runs.read_config(home)


def test_the_summary_is_strict_json(home):
    facts = {"steps": 5, "ep_rew_mean": math.nan, "best": math.inf, "worst": -math.inf}
    runs.write_summary(home, {**facts, "seconds": np.float64(1.5), "versions": {"a": "1"}})
    text = (home / "summary.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found == {
        "steps": 5,
        "ep_rew_mean": None,
        "best": None,
        "worst": None,
        "seconds": 1.5,
        "versions": {"a": "1"},
    }
    assert everything(home) == ["summary.json"]


def test_checkpoints_are_listed_newest_first_and_drafts_are_not(home):
    for steps in (9, 10, 2_000_000, 0):
        runs.checkpoint_path(home, steps).touch()
    (home / "checkpoint/step-000000000011.ckpt.part").touch()
    found = [path.name for path in runs.checkpoints(home)]
    assert found == [f"step-{steps:012d}.ckpt" for steps in (2_000_000, 10, 9, 0)]
    assert runs.checkpoints(home / "missing") == []


def test_versions_name_what_the_bits_depend_on():
    assert set(runs.versions()) == {"seqrl", "numpy", "gymnasium", "torch", "numba"}
    assert runs.versions()["numpy"] == np.__version__
