"""Every block of code in README and docs is run, in order, page by page."""

import configparser
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from seqrl.scripts import compare, doctor, evaluate, export, record, search, talk, train
from seqrl.scripts import list as listing
from seqrl.scripts.options import ALIASES
from seqrl.training import Processes
from seqrl.training.engines import choice

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OWN = (
    "mynets",
    "myenvs",
    "myagents",
    "myscores",
    "myteachers",
    "read_policy",
)  # modules that a reader writes
SHOWN = {"text"}  # not run: what a command prints
SCRIPTS = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "search": search,
    "doctor": doctor,
    "export": export,
    "record": record,
    "talk": talk,
    "list": listing,
}

# A page's own numbers are for a reader who waits a minute; here they become at most these.
AT_MOST = {
    "train": {"--steps": 600, "--episodes": 5, "--num-envs": 4, "--eval-every": 300},
    "evaluate": {"--episodes": 3},
    "record": {"--episodes": 3},
    "compare": {"--steps": 600, "--seeds": 1},
    "search": {"--steps": 600, "--trials": 2},
}
ALWAYS = {
    "train": ["--eval-episodes", "2", "--quiet"],
    "evaluate": [],
    "compare": ["--eval-episodes", "2", "--workers", "2", "--quiet"],
    "search": "--eval-episodes 2 --workers 2 --best 1 --fresh-seeds 1 --quiet".split(),
}
READS_ONLY = {"--help", "--resume", "--runs"}  # nothing may be added to these


def blocks(text):
    """Language and content of every fenced block."""
    return [(kind, code) for kind, code in FENCE.findall(text) if not kind.startswith("{")]


def shortened(script, words):
    """The flags of a command with the page's numbers cut to AT_MOST, and what is ALWAYS added."""
    if READS_ONLY & set(words):
        return words
    limits, cut = AT_MOST.get(script, {}), list(words)
    for i, word in enumerate(words):
        if word in limits:
            cut[i + 1] = str(min(int(words[i + 1]), limits[word]))
    trains = script == "train" or (script == "compare" and "--runs" not in words)
    if trains and "--steps" not in words:
        cut += ["--steps", str(limits["--steps"])]
    return cut + ALWAYS.get(script, [])


def run_python(code, names, home):
    """A block: a module to save where its first line names a file, else code to run."""
    if file := re.match(r"# (\w+\.py)\n", code):
        (home / file[1]).write_text(code)
    else:
        exec(compile(code, "page", "exec"), names)


def run_script(script, words):
    """One of ours, by its main; --help ends it as in a shell."""
    try:
        assert SCRIPTS[script].main(shortened(script, words)) == 0
    except SystemExit as end:
        assert end.code == 0


def check_install(words):
    """A line of pip: what it names is there."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = re.findall(r"\[(\w+)\]", " ".join(words))
    assert named and set(named) <= set(config["options.extras_require"])
    assert all((ROOT / word).exists() for word in words if word.endswith(".txt"))


def run_line(line):
    """A line of a shell block; one that this does not know fails."""
    words = shlex.split(line, comments=True)
    program, rest = words[0], words[1:]
    if program == "python" and rest[0].startswith("scripts/"):
        run_script(Path(rest[0]).stem, rest[1:])
    elif program == "python" and rest[0].startswith("docs/experiments/"):
        assert (ROOT / rest[0]).exists()  # tests/test_experiments.py runs it
    elif program == "torchrun":
        run_processes(rest)
    elif program == "seqrl":
        run_script(rest[0], rest[1:])
    elif program == "ray":
        assert rest[0] in ("start", "stop")
    elif Path(program).name == "tensorboard":
        assert rest[0] == "--logdir"
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        check_install(rest)
    else:
        assert line in ("python3 -m venv .venv", ". .venv/bin/activate"), line


def run_processes(words):
    """A run that torchrun starts, shortened as any other."""
    at = words.index("scripts/train.py")
    command = [sys.executable, "-m", "torch.distributed.run", *words[:at], ROOT / words[at]]
    command += shortened("train", words[at + 1 :])
    assert subprocess.run([*map(str, command)]).returncode == 0


def run_job(code, home):
    """A job of an array, twice: the second time it goes on with what the first has left."""
    (home / "scripts").symlink_to(ROOT / "scripts")
    (home / ".venv/bin").mkdir(parents=True)
    (home / ".venv/bin/activate").touch()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-c", re.sub(r"--steps \d+", "--steps 600", code)]
    for _ in range(2):
        env = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": "0"}
        assert subprocess.run(command, cwd=home, env=env).returncode == 0


def trackers():
    """Stand-ins for wandb and MLflow, which nobody has to install; `told` is what they heard."""
    told = {"wandb": [], "mlflow": []}

    def heard_by(name, what):
        def call(*args, **kwargs):
            told[name].append((what, args, kwargs))

        return call

    run = SimpleNamespace(**{name: heard_by("wandb", name) for name in ("log", "finish")})
    wandb = SimpleNamespace(init=lambda **given: run, told=told["wandb"])
    names = ("set_experiment", "start_run", "log_params", "log_metrics", "end_run")
    mlflow = SimpleNamespace(**{name: heard_by("mlflow", name) for name in names})
    mlflow.told = told["mlflow"]
    return {"wandb": wandb, "mlflow": mlflow}


def no_cluster(workers=None, progress=lambda going, over: None, **of_ray):
    """What runs here in the place of a cluster's executor; tests/test_ray.py has a real one."""
    assert of_ray.keys() <= {"address", "cpus_per_run", "gpus_per_run", "retries", "storage"}
    return Processes(workers, progress=progress)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty current folder, with modules of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n\n"))  # what is said to `seqrl talk`
    for module, made in trackers().items():
        monkeypatch.setitem(sys.modules, module, made)
    monkeypatch.setattr(choice, "ray_executor", no_cluster)
    for module in OWN:
        monkeypatch.delitem(sys.modules, module, raising=False)
    yield tmp_path
    for module in OWN:
        sys.modules.pop(module, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page, home):
    if page.name == "hugging_face.md":
        pytest.importorskip("transformers")
    names = {}
    fewer = f",num_envs={AT_MOST['train']['--num-envs']}"  # in the names of folders
    for kind, code in blocks(re.sub(r",num_envs=\d+", fewer, page.read_text(encoding="utf-8"))):
        if (page.name, kind) == ("design.md", "python"):
            continue  # additions to files of ours, carried out by test_examples
        if kind == "python":
            run_python(code, names, home)
        elif kind == "sh" and code.startswith("#!"):
            run_job(code, home)
        elif kind == "sh":
            for line in filter(None, code.replace("\\\n", " ").splitlines()):
                run_line(line)
        else:
            assert kind in SHOWN, f"a block of {kind or 'no language'}: {code[:60]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_piece_of_code_that_a_page_shows_is_there(page):
    shown = re.findall(r"\{literalinclude\} (\S+)\n:pyobject: (\S+)", page.read_text())
    for file, name in shown:
        code = (page.parent / file).read_text()
        assert re.search(rf"^ *(def|class) {name.rpartition('.')[2]}\b", code, re.MULTILINE), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_is_there(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in link or (page.parent / link).is_file(), link


def flags_of_ours(capsys):
    """Every flag that --help shows, with these agents, and the aliases."""
    agents = ("ppo", "reinforce", "q-learning", "q-learning --network mlp", "sarsa --network mlp")
    others = ((evaluate.main, ""), (compare.main, ""), (search.main, ""), (record.main, ""))
    for main, words in (*others, *((train.main, f"--agent {x}") for x in agents)):
        with pytest.raises(SystemExit):
            main([*words.split(), "--help"])
    return {*ALIASES, *re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)}


def test_every_flag_that_a_how_to_page_names_is_there(capsys):
    """But for the first column of the tables of names, which is another library's."""
    known, named = flags_of_ours(capsys), set()
    for page in (ROOT / "docs/how_to").glob("*.md"):
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        if page.name.startswith("from_"):
            text = re.sub(r"^\|[^|]*\|", "", text, flags=re.MULTILINE)
        named |= {(page.name, flag) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)}
    assert len(named) > 80 and {name for name in named if name[1] not in known} == set()


def test_numbers_are_cut_and_only_those():
    words = "--agent sarsa --steps 90000 --num-envs 2 --gamma 1".split()
    short = ["--agent", "sarsa", "--steps", "600", "--num-envs", "2", "--gamma", "1"]
    assert shortened("train", words) == short + ALWAYS["train"]
    assert shortened("train", ["--resume", "runs/x"]) == ["--resume", "runs/x"]
    assert shortened("train", [])[:2] == ["--steps", "600"]


def test_what_nobody_runs_is_noticed(home):
    with pytest.raises(AssertionError, match="rm -r runs"):
        run_line("rm -r runs")
    with pytest.raises(AssertionError):
        run_line("make coffee")
    with pytest.raises(AssertionError):
        run_line("pip install -e .[nothing]")
    with pytest.raises(AssertionError):
        run_line("python scripts/train.py --agent sarza")


def test_the_adapters_of_other_loggers_hand_on_every_number(home):
    names = {}
    for _, code in blocks((ROOT / "docs/how_to/loggers.md").read_text()):
        run_python(code, names, home)
    (*heard, last), told = sys.modules["wandb"].told, sys.modules["mlflow"].told
    points = [(*args[0], given["step"]) for what, args, given in heard if what == "log"]
    assert last[0] == "finish" and len(points) == len(heard) == len(set(points))
    assert [step for _, step in points] == sorted(step for _, step in points)
    assert {"rollout/ep_rew_mean", "train/td_error", "eval/mean_reward"} < {x for x, _ in points}
    assert [what for what, *_ in told[:3]] == ["set_experiment", "start_run", "log_params"]
    assert told[-1][0] == "end_run"
    steps = [given["step"] for what, _, given in told if what == "log_metrics"]
    assert len(steps) == len(told) - 4 > 100 and steps == sorted(set(steps))
    assert all("rollout/ep_rew_mean" in args[0] for _, args, _ in told[3:-1])


def test_the_tour_shows_the_runs_that_it_names():
    made = runpy.run_path(str(ROOT / "docs/make_screens.py"))
    page = (ROOT / "docs/tensorboard.md").read_text(encoding="utf-8")
    commands = " ".join(page.replace("\\\n", " ").split())
    assert made["RUNS"] and made["SCREENS"]
    for flags in made["RUNS"].values():
        assert f"scripts/train.py {flags}" in commands
    assert f"scripts/compare.py {made['COMPARISON']}" in commands
    assert f"tensorboard --logdir {made['COMPARED']}" in commands
    for name in (name for screens in made["SCREENS"].values() for name in screens):
        picture = f"pictures/tensorboard-{name}.png"
        assert f"({picture})" in page
        assert (ROOT / "docs" / picture).stat().st_size < 100_000
