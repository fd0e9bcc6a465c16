"""The arrows between rooms and wings, circles between files, and what a tabular run imports."""

import ast
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import seqrl.core
from seqrl.agents.arguments import agent_parameters, documented
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.agents.tabular.tabular_agent import TableArrays
from seqrl.training.loop import compiled

HOME = Path(seqrl.core.__file__).resolve().parents[1]
# what a wing, or the files at the top of a room, may import besides core and itself
ARROWS = {
    "core": set(),
    "agents": {"agents.tabular", "agents.deep", "networks"},
    "agents.decoding": {"agents.deep"},
    "agents.tabular": {"agents"},
    "agents.experience": set(),
    "agents.deep": {"agents", "agents.tabular", "agents.experience", "networks", "networks.plain"},
    "networks": {"networks.sequences"},
    "networks.sequences": {"networks"},
    "networks.plain": {"networks"},
    "networks.diagnosis": {"networks", "networks.sequences"},
    "envs": {"envs.tasks"},
    "envs.tasks": {"envs"},
    "training": set(),
    "training.loop": {"agents", "agents.experience", "agents.tabular", "envs", "training"},
    "training.pictures": {"agents", "agents.tabular", "envs", "training.loop"},
    "training.runs": {
        *("agents", "agents.decoding", "agents.experience", "agents.tabular"),
        *("envs", "envs.tasks", "networks.diagnosis"),
        *("training", "training.loop", "training.pictures"),
    },
    "training.engines": {"agents", "envs", "training.runs"},
    "training.comparison": {"envs", "training", "training.engines", "training.runs"},
    "training.search": {
        *("agents", "training", "training.comparison", "training.engines", "training.runs"),
    },
    "training.doctor": {
        *("agents", "agents.deep", "envs", "networks", "networks.diagnosis", "training.runs"),
    },
    "root": {"scripts", "training.loop", "training.runs"},
}
ARROWS["scripts"] = set(ARROWS)
DOTTED = re.compile(r"seqrl\.(\w+)[\w.:]*")  # also in a registry, whose modules come later


def product_files():
    """Every product file, by its dotted name without `seqrl.`."""
    folders = {wing.partition(".")[0] for wing in ARROWS}
    files = (path for folder in sorted(folders) for path in sorted((HOME / folder).rglob("*.py")))
    return {".".join(path.relative_to(HOME).with_suffix("").parts): path for path in files}


FILES = product_files()


def names_in(tree):
    """The dotted names that a module imports, at its top, inside a function or in a string."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.replace(":", ".")]
        yield from (name.removeprefix("seqrl.") for name in names if DOTTED.fullmatch(name))


@cache
def parsed(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def file_of(name):
    """The file in which a dotted name is defined, looked up through the rooms' `__init__`."""
    if name in FILES:
        return name
    if f"{name}.__init__" in FILES:
        return f"{name}.__init__"
    package, _, last = name.rpartition(".")
    if package in FILES:
        return package
    facade = f"{package}.__init__"
    if facade not in FILES:
        return None
    found = (n for n in names_in(parsed(facade)) if n.rpartition(".")[2] == last)
    return next((file_of(n) for n in found), facade)


def wing_of(file):
    """The wing that a file is in, or its room."""
    package = file.rpartition(".")[0]
    return package if package in ARROWS else file.partition(".")[0]


@cache
def imported(file):
    """The product files that a file imports."""
    found = {file_of(name) for name in names_in(parsed(file))}
    return found - {None, file}


@pytest.mark.parametrize("wing", ARROWS)
def test_arrows_go_one_way(wing):
    own = [file for file in FILES if wing_of(file) == wing and not file.endswith("__init__")]
    assert own
    for file in own:
        reached = {wing_of(other) for other in imported(file)}
        assert reached <= ARROWS[wing] | {wing, "core"}, file


def test_every_folder_with_code_is_a_wing():
    assert {file.rpartition(".")[0] for file in FILES} == set(ARROWS)


def test_no_file_is_in_a_circle():
    # an `__init__` names what others define and is not followed
    after = {f: {o for o in imported(f) if not o.endswith("__init__")} for f in FILES}
    after = {file: others for file, others in after.items() if not file.endswith("__init__")}
    while leaves := [file for file, others in after.items() if not others]:
        for leaf in leaves:
            del after[leaf]
        after = {file: others - set(leaves) for file, others in after.items()}
    assert not after


def test_a_name_is_imported_from_where_it_is_defined():
    """Through an `__init__` a reader would have to look twice, and a room would load its wings."""
    for file in FILES:
        for name in names_in(parsed(file)):
            package, _, last = name.rpartition(".")
            if package and last and name not in FILES and not file.endswith("__init__"):
                assert package in FILES, f"{file}: {name}"


@pytest.mark.parametrize(
    "algorithm, most",
    [("tabular.q_learning", 8), ("deep.reinforce", 13), ("deep.ppo", 13), ("deep.deep_q", 16)],
)
def test_an_algorithm_is_read_in_few_files(algorithm, most):
    """All of agents/ that is reached from it, whoever imports it."""
    reached, ahead = set(), {f"agents.{algorithm}"}
    while ahead:
        reached |= ahead
        ahead = {other for file in ahead for other in imported(file)} - reached
        ahead = {file for file in ahead if file.startswith("agents.") and "__init__" not in file}
    assert len(reached) <= most, sorted(reached)


def test_the_arrows_are_read():
    text = """
import seqrl.agents.tabular.td
def f():
    from seqrl import networks
    from seqrl.agents import QLearning
    from seqrl.training.runs.folder import new_folder
LAZY = {"x": "seqrl.scripts.train:main"}
"in a sentence, seqrl.core is no arrow"
"""
    found = {file_of(name) for name in names_in(ast.parse(text))}
    assert found == {
        "agents.tabular.td",
        "agents.tabular.q_learning",
        "networks.__init__",
        "training.runs.folder",
        "scripts.train",
    }
    assert {wing_of(file) for file in found} == {
        *("agents.tabular", "networks", "training.runs", "scripts")
    }


def test_git_tracks_every_product_file():
    """An ignored name would leave a file out of what others get, without a word."""
    inside = subprocess.run(["git", "rev-parse"], cwd=HOME, capture_output=True).returncode == 0
    if inside:
        paths = [str(path) for path in FILES.values()]
        done = subprocess.run(["git", "check-ignore", *paths], cwd=HOME, capture_output=True)
        assert done.stdout == b""


def test_arrays_are_unrolled_in_the_order_of_their_fields():
    """Numba takes named tuples by position only."""
    (unrolling,) = (
        node
        for node in ast.walk(parsed("training.loop.compiled"))
        if isinstance(node, ast.FunctionDef) and node.name == "turns_each"
    )
    calls = {}
    for node in ast.walk(unrolling):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            parts = (a.value if isinstance(a, ast.Subscript) else a for a in node.args)
            calls[node.func.id] = tuple(getattr(part, "attr", None) for part in parts)
    for kind in (TableArrays, compiled.World, compiled.Ended):
        assert calls[kind.__name__] == kind._fields


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
    held = imported_by("import seqrl.core, seqrl.core.team")
    assert "numpy" in held
    assert not held & {"torch", "gymnasium", "tensorboard", "numba", "tqdm"}


def test_a_tabular_run_imports_no_torch(tmp_path):
    held = imported_by(f"""
import seqrl.agents, seqrl.core, seqrl.envs, seqrl.training
from seqrl.scripts import train, evaluate
options = ["--steps", "500", "--eval-episodes", "3", "--run-dir", {str(tmp_path / "run")!r}]
assert train.main(options) == 0
assert evaluate.main([{str(tmp_path / "run")!r}, "--episodes", "2"]) == 0
assert seqrl.load({str(tmp_path / "run")!r}).predict(0) in range(4)
""")
    assert "tensorboard" in held
    assert not held & {"torch", "fsspec", "absl"}  # the last two: tensorboard's, a fifth of a start


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--gama 0.9", 'unknown flag --gama. Did you mean "--gamma"?'),
        ("--vf-coef 1", "unknown flag --vf-coef. Here it is --value-coef X"),
        ("--steps many --gamma 1", "--steps: 'many', expected a whole number"),
        ("--env CartPole-v9", "unknown environment 'CartPole-v9'"),
    ],
)
def test_a_slip_of_the_hand_is_told_before_torch_is_imported(words, told):
    held = imported_by(f"""
import contextlib, io
from seqrl.scripts import train
with contextlib.redirect_stderr(io.StringIO()) as heard:
    assert train.main("--agent ppo {words}".split()) == 2
assert {told!r} in heard.getvalue(), heard.getvalue()
""")
    assert "torch" not in held


def test_every_flag_of_our_agents_is_documented():
    for name, entry in AGENTS.items():
        for network in (False, True) if entry.table else (True,):
            assert agent_parameters(agent_class(name, network)).keys() <= documented()


def test_a_run_on_a_network_imports_no_compiler(tmp_path):
    """torch's optimisers import torch's compiler, a second, where nothing keeps them from it."""
    held = imported_by(f"""
import sys
from seqrl.scripts import train
flags = "--agent reinforce --env CartPole-v1 --network rnn --eval-episodes 2 --steps 300"
flags += " --batch-episodes 2 --checkpoint-every 100 --no-pictures --run-dir "
assert train.main([*flags.split(), {str(tmp_path / "run")!r}]) == 0
assert "torch._dynamo" not in sys.modules
""")
    assert "torch" in held


def test_every_bug_to_be_planted_still_has_its_text():
    bugs = runpy.run_path(str(Path(__file__).with_name("planted.py")))["BUGS"]
    found = {name: (HOME / bug.file).read_text().count(bug.right) for name, bug in bugs.items()}
    assert bugs and set(found.values()) == {1}, found
