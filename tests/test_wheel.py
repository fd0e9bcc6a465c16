"""The wheel, installed into an environment of its own and used from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ConfigParser()
CONFIG.read(ROOT / "setup.cfg")
ROOMS = CONFIG["options"]["packages"].split()
MAPPED = dict(re.findall(r"(\S+) = (\S+)", CONFIG["options"]["package_dir"]))
TEXTS = ("dialogues.txt", "pairs.tsv")  # beside the tasks that read them
FOLDERS = {
    name: ROOT / MAPPED.get(name, name.removeprefix("seqrl.").replace(".", "/")) for name in ROOMS
}


def pip(*words):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def isolation():
    """Nothing is downloaded where the setuptools that is here can build."""
    try:
        here = int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        here = 0
    (needed,) = re.findall(r'"setuptools>=(\d+)"', (ROOT / "pyproject.toml").read_text())
    return ["--no-build-isolation"] if here >= int(needed) else []


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources, as setuptools leaves traces where it builds."""
    source = tmp_path_factory.mktemp("source")
    for folder in MAPPED.values():
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=left_out)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", source, "--wheel-dir", out, "--no-deps", *isolation())
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of a fresh environment; what the wheel needs is borrowed from this one."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    pip("--python", home / "bin/python", "install", wheel, "--no-deps")
    # a plain path: of the .pth files there (editable installs) none is read
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


@pytest.fixture
def run(installed, tmp_path):
    """A function that runs a command of that environment in an empty folder."""

    def called(name, *words):
        env = {key: x for key, x in os.environ.items() if not key.startswith("PYTHON")}
        command = [str(installed / name), *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return called


def test_the_wheel_holds_the_rooms_and_nothing_else(wheel, source):
    names = zipfile.ZipFile(wheel).namelist()
    number = CONFIG["metadata"]["version"]
    assert wheel.name == f"seqrl-{number}-py3-none-any.whl"
    held = {name for name in names if not name.startswith(f"seqrl-{number}.dist-info/")}
    expected = {
        f"{name.replace('.', '/')}/{path.name}"
        for name, folder in FOLDERS.items()
        for path in (source / folder.relative_to(ROOT)).iterdir()
        if path.suffix == ".py" or path.name in ("py.typed", "presets.toml", "iris.csv", *TEXTS)
    }
    assert held == expected
    assert {"seqrl/py.typed", *(f"seqrl/envs/tasks/{name}" for name in ("iris.csv", *TEXTS))} < held


def test_every_folder_with_code_is_a_room():
    # a subfolder or a new room is not found by itself: setup.cfg lists each
    skipped = ("tests", "benchmarks", "docs", "typings", "build")
    tops = [top for top in ROOT.iterdir() if top.name not in skipped and top.name[0] != "."]
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for top in tops
        for path in top.glob("**/__init__.py")
    }
    assert {ROOT / name for name in found} == set(FOLDERS.values())
    tops = {name: folder for name, folder in MAPPED.items() if folder != "root"}
    assert tops == {f"seqrl.{folder}": folder for folder in tops.values()}


def test_every_room_is_imported_from_the_new_environment(run, installed):
    code = "import " + ", ".join(ROOMS) + "; print(*(x.__file__ for x in ["
    found = run("python", "-c", code + ", ".join(ROOMS) + "]))").split()
    assert len(found) == len(ROOMS)
    for path in found:
        assert Path(path).is_relative_to(installed.parent), path


def test_the_installed_command_trains_evaluates_and_lists(run, installed, tmp_path):
    out = run("seqrl", "train", "--steps", "2000", "--eval-episodes", "5")
    folder = tmp_path / "runs/FrozenLake-v1/q-learning/seed-0"
    assert "saved in" in out and (folder / "summary.json").exists()
    assert "success rate" in run("seqrl", "evaluate", str(folder), "--episodes", "3")
    assert "q-learning" in run("seqrl", "list")
    assert run("python", "-m", "seqrl", "list") == run("seqrl", "list")
    version = run("python", "-c", "import seqrl; print(seqrl.__version__, seqrl.train.__name__)")
    assert version.split() == [CONFIG["metadata"]["version"], "train"]
