"""The arrows between the rooms, and what a tabular run does not import."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import seqrl.core

ROOMS = {
    "core": set(),
    "agents": {"core", "networks"},
    "envs": {"core"},
    "networks": {"core"},
    "training": {"core", "agents", "envs"},
    "scripts": {"core", "agents", "envs", "networks", "training"},
}
HOME = Path(seqrl.core.__file__).parents[1]
DOTTED = re.compile(r"seqrl\.(\w+)[\w.:]*")  # also in a registry, whose modules come later


def rooms_named(tree):
    """The rooms that a module imports, at its top, inside a function or by a name in a string."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        yield from (found[1] for name in names if (found := DOTTED.fullmatch(name)))


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_go_one_way(room):
    files = sorted((HOME / room).rglob("*.py"))
    assert files
    for file in files:
        named = set(rooms_named(ast.parse(file.read_text(encoding="utf-8"))))
        assert named <= ROOMS[room] | {room}, file


def test_the_arrows_are_read():
    text = """
import seqrl.agents.td
def f():
    from seqrl import networks
    from seqrl.training.folder import new_folder
LAZY = {"x": "seqrl.scripts.train:main"}
"in a sentence, seqrl.core is no arrow"
"""
    assert set(rooms_named(ast.parse(text))) == {"agents", "networks", "training", "scripts"}


def imported_by(code):
    """The packages that a fresh interpreter holds after `code`."""
    report = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + report],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_core_needs_numpy_alone():
    held = imported_by("import seqrl.core")
    assert "numpy" in held
    assert not held & {"torch", "gymnasium", "tensorboard", "numba", "tqdm"}


def test_a_tabular_run_imports_no_torch(tmp_path):
    held = imported_by(f"""
import seqrl.agents, seqrl.core, seqrl.envs, seqrl.training
from seqrl.scripts import train, evaluate
options = ["--steps", "500", "--eval-episodes", "3", "--run-dir", {str(tmp_path / "run")!r}]
assert train.main(options) == 0
assert evaluate.main([{str(tmp_path / "run")!r}, "--episodes", "2"]) == 0
""")
    assert "tensorboard" in held
    assert "torch" not in held


def test_every_bug_to_be_planted_still_has_its_text():
    bugs = runpy.run_path(str(Path(__file__).with_name("planted.py")))["BUGS"]
    found = {name: (HOME / bug.file).read_text().count(bug.right) for name, bug in bugs.items()}
    assert bugs and set(found.values()) == {1}, found
