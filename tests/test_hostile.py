"""Damaged and foreign checkpoints: refused in one line that names the entry, and nothing else."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
import zlib
from functools import cache, partial

import numpy as np
import pytest
import torch

from seqrl.agents.arguments import arguments
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.agents.tabular.monte_carlo import MonteCarlo
from seqrl.agents.tabular.q_learning import QLearning
from seqrl.agents.tabular.sarsa import Sarsa
from seqrl.core.errors import UsageError
from seqrl.envs.making import make
from seqrl.networks.mlp import MLP
from seqrl.networks.recurrent import LSTM
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs.checkpoint import HASH_SIZE, MAGIC, digest, load, save

DAMAGED = 200  # of each kind


def tabular(cls, env, **options):
    envs = make(env, 3)
    return Interaction(
        cls(envs.single_observation_space, envs.single_action_space, seed=0, **options), envs
    )


SMALL = {
    "imitate": {"batch_size": 3, "own_share": 0.5},
    "reinforce": {"batch_episodes": 3},
    "ppo": {"rollout": 20},
    "sarsa": {"optimizer": "AdaBound", "bptt": 5, "l1": 1e-4},
    "q-learning": {"buffer_size": 300, "learning_starts": 50, "priority": 0.5},
}


def recurrent(name, **more):
    """The agent of that name on an LSTM, with what is large made small."""
    envs = make("seqrl/RepeatFirst-v0", 3)
    space = envs.single_observation_space
    network, cls = LSTM(MLP(space, 8), 8), agent_class(name, network=True)
    given = network, envs.single_action_space, space
    numbers = {**AGENTS[name].numbers, **SMALL.get(name, {}), "device": "cpu", "seed": 0, **more}
    return Interaction(cls(*given, **arguments(cls, numbers)), envs)


def squashed(**more):
    """SAC on Pendulum, with what is large made small."""
    envs = make("Pendulum-v1", 3)
    space, cls = envs.single_observation_space, agent_class("sac")
    numbers = {"buffer_size": 300, "learning_starts": 50, "batch_size": 8, "priority": 0.5}
    given = MLP(space, 8), envs.single_action_space, space
    return Interaction(cls(*given, **arguments(cls, {**numbers, "seed": 0, **more})), envs)


LOOPS = {
    "q-learning": lambda: tabular(QLearning, "FrozenLake-v1", double=True),
    "sarsa": lambda: tabular(Sarsa, "CliffWalking-v1", n_step=3),
    "traces": lambda: tabular(QLearning, "Taxi-v4", trace_decay=0.5),
    "monte-carlo": lambda: tabular(MonteCarlo, "Blackjack-v1"),
    # a2c is the same class as ppo
    **{f"{name}, lstm": partial(recurrent, name) for name in AGENTS if name not in ("a2c", "sac")},
    "sac": partial(squashed, noise_correlation=0.5),
    "ppo, anchor": partial(recurrent, "ppo", kl_coef=0.1, critic_warmup=60),
}
kinds = pytest.mark.parametrize("kind", LOOPS)


@cache
def saved_bytes(kind, folder):
    """The file of a run that is in the middle of a turn and of episodes, with all it can hold."""
    loop = LOOPS[kind]()
    loop.reset(np.random.SeedSequence(1))
    loop.run(400)
    while loop.stepped.surplus is None or loop.start.all():
        loop.run(1)
    save(folder / "original", loop.state_dict())
    return (folder / "original").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def places(tree, name=""):
    """The places of the arrays in a header's tree, in order."""
    if isinstance(tree, list):
        for i, part in enumerate(tree):
            yield from places(part, f"{name}/{i}")
    elif isinstance(tree, dict):
        ((form, inner),) = tree.items()
        if form == "array":
            yield name[1:]
        elif form in ("tuple", "dict"):
            pairs = inner.items() if form == "dict" else enumerate(inner)
            for key, part in pairs:
                yield from places(part, f"{name}/{key}")


def layout(whole):
    """What a file consists of: (name as it is said, where it ends)."""
    header = len(MAGIC) + HASH_SIZE
    end = header + int(whole[len(MAGIC) + 65 : header])
    content = json.loads(whole[header:end])
    parts = [("the first line", len(MAGIC)), ("the header", end)]
    for name, claim in zip(places(content["tree"]), content["arrays"], strict=True):
        end += int(np.prod(claim["shape"])) * np.dtype(claim["dtype"]).itemsize
        parts.append((f"entry {name} ", end))
    assert end == len(whole)
    return parts


def damage(whole, rng):
    """A file with a flipped bit, without its end, or with a block of zeros; where it begins."""
    at = int(rng.integers(len(whole)))
    way = rng.integers(3)
    if way == 0:
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        return bytes(changed), at
    if way == 1:
        return whole[:at], at
    size = int(2 ** rng.integers(13))
    changed = whole[:at] + bytes(len(whole[at : at + size])) + whole[at + size :]
    if changed == whole:
        return damage(whole, rng)
    return changed, next(i for i in range(at, len(whole)) if changed[i] != whole[i])


@kinds
def test_all_damaged_files_are_refused_and_the_entry_is_named(kind, folder):
    whole, rng = saved_bytes(kind, folder), np.random.default_rng(len(kind))
    parts, path = layout(whole), folder / f"damaged {kind}"
    named = set()
    for _ in range(DAMAGED):
        changed, first = damage(whole, rng)
        path.write_bytes(changed)
        with pytest.raises(UsageError, match="take an older checkpoint") as caught:
            load(path)
        name = next(name for name, end in parts if first < end)
        assert name in str(caught.value), (first, len(changed))
        named.add(name)
    assert len(named) > 3
    path.write_bytes(whole)
    load(path)


def test_an_optimizers_entry_has_a_name(folder):
    whole = saved_bytes("reinforce, lstm", folder)
    names = [name for name, _ in layout(whole)]
    assert "entry agent/parts/policy/optimizer/0/exp_avg " in names


# what does not come from `save`


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def sealed(content, data=b""):
    header = content
    if not isinstance(content, bytes):
        header = json.dumps(content, separators=(",", ":")).encode()
    seal = f"{hashlib.sha256(header).hexdigest()} {len(header):020d}\n"
    return MAGIC + seal.encode() + header + data


def one_array(tree, data, dtype="uint8", shape=None, sha=None):
    claim = {"dtype": dtype, "shape": [len(data)] if shape is None else shape}
    claim["sha256"] = sha or hashlib.sha256(data).hexdigest()
    return sealed({"tree": tree, "arrays": [claim]}, data)


def archive(kind, inside):
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("../../outside", inside)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            entry = tarfile.TarInfo("/tmp/../outside")
            entry.size = len(inside)
            tar.addfile(entry, io.BytesIO(inside))
    return file.getvalue()


def saved_with(write, *parts):
    file = io.BytesIO()
    write(file, *parts)
    return file.getvalue()


def hostile_files(canary):
    """By name: bytes, or a function that puts something else in the file's place."""
    evil = Evil(canary)
    pickled = pickle.dumps(evil)
    protocols = {f"pickle {p}": pickle.dumps(evil, protocol=p) for p in range(6)}
    bomb = zlib.compress(bytes(20 << 20), 9)
    deep = 4 << 20
    return {
        **protocols,
        "torch.save": saved_with(lambda f, x: torch.save(x, f), {"q": torch.zeros(3), "x": evil}),
        "torch.save of old": saved_with(
            lambda f, x: torch.save(x, f, _use_new_zipfile_serialization=False), evil
        ),
        "npz": saved_with(np.savez, np.array([evil], object)),
        "npy": saved_with(np.save, np.array([evil], object)),
        "zip": archive("zip", pickled),
        "zip bomb": archive("zip", bytes(10 << 20)),
        "tar": archive("tar", pickled),
        "zlib bomb": bomb,
        "bomb in an array": one_array({"array": 0}, bomb, "float64", [(20 << 20) // 8]),
        "pickle behind the first line": MAGIC + pickled,
        "pickle as header": sealed(pickled),
        "pickle behind the header": sealed({"tree": 1, "arrays": []}, pickled),
        "pickle as objects": one_array({"array": 0}, pickled, "object", [1]),
        "pickle as dtype": one_array({"array": 0}, pickled, pickled.decode("latin1")),
        "pickle as checksum": one_array({"array": 0}, pickled, sha=pickled.decode("latin1")),
        "pickle as kind": sealed({"tree": {"pickle": pickled.decode("latin1")}, "arrays": []}),
        "name of code": sealed({"tree": {"__reduce__": ["os.system", "true"]}, "arrays": []}),
        "name that leads out": one_array({"dict": {"../../x": {"array": 0}}}, b"ab", sha="0" * 64),
        "absolute name": one_array({"dict": {str(canary): {"array": 0}}}, b"ab", sha="0" * 64),
        "name of many lines": one_array({"dict": {"a\nb\x1b[2J‮": {"array": 0}}}, b"", shape=[9]),
        "name of a megabyte": one_array({"dict": {"x" * (1 << 20): {"array": 0}}}, b"", shape=[9]),
        "lone surrogate": one_array({"dict": {"\ud800": {"array": 0}}}, b"", shape=[9]),
        "same name twice": sealed(b'{"tree":{"dict":{"a":1,"a":2}},"arrays":[]}'),
        "two trees": sealed(b'{"tree":1,"tree":2,"arrays":[]}'),
        "not a number": sealed(b'{"tree":NaN,"arrays":[]}'),
        "infinity": sealed(b'{"tree":-Infinity,"arrays":[]}'),
        "1e999": sealed(b'{"tree":1e999,"arrays":[]}'),
        "spaces": sealed(b'{"tree": 1, "arrays": []}'),
        "long number": sealed(b'{"tree":' + b"9" * 5000 + b',"arrays":[]}'),
        "header of a million lists": sealed(b"[" + b"[]," * (deep // 3 - 9) + b"[]]"),
        "tree of a million lists": sealed(
            b'{"tree":[' + b"[]," * (deep // 3 - 20) + b'1],"arrays":3}'
        ),
        "a million claims": sealed(b'{"tree":1,"arrays":[' + b"{}," * (deep // 3 - 20) + b"1]}"),
        "deep lists": sealed(b"[" * deep),
        "deep objects": sealed(b'{"a":' * (deep // 5)),
        "deep tuples": sealed(b'{"tree":' + b'{"tuple":[' * 900 + b"]}" * 900 + b',"arrays":[]}'),
        "header too large": sealed(b" " * (deep + 1)),
        "header of 10^19": MAGIC + b"0" * 64 + b" " + b"9" * 20 + b"\n",
        "header longer than the file": MAGIC + b"0" * 64 + b" 00000000000008000000\n",
        "10^15 bytes claimed": one_array({"array": 0}, b"ab", shape=[10**15]),
        "claims that overflow": one_array({"array": 0}, b"ab", shape=[2**33, 2**33]),
        "claims whose product is 2": one_array({"array": 0}, b"ab", shape=[-1, -2]),
        "half a row": one_array({"array": 0}, b"ab", shape=[0.5, 4]),
        "true rows": one_array({"array": 0}, b"ab", shape=[True, 2]),
        "1,000 dimensions": one_array({"array": 0}, b"ab", shape=[2] + [1] * 999),
        "link": lambda path: path.symlink_to(path.parent / "valid"),
        "link to a device": lambda path: path.symlink_to("/dev/zero"),
        "link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
        "link to itself": lambda path: path.symlink_to(path),
        "pipe": os.mkfifo,
        "folder": os.mkdir,
        "10 TB of holes": lambda path: sparse(path, 10 << 40),
        "6 GB of holes": lambda path: sparse(path, 6 << 30),
    }


def sparse(path, size):
    path.write_bytes(one_array({"array": 0}, b"", shape=[size], sha="0" * 64))
    os.truncate(path, path.stat().st_size + size)


CHILD = """
import resource, sys
from pathlib import Path
import numpy
from seqrl.core.errors import UsageError
from seqrl.training.runs import checkpoint
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (2 << 30), size + (2 << 30)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        checkpoint.load(path)
        print("taken", path.name)
    except UsageError as error:
        assert str(path) in str(error), error
        print(str(error).replace(str(path), "PATH").__repr__())
assert "torch" not in sys.modules and "pickle" not in vars(checkpoint)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def snapshot(folder):
    return {p: (p.lstat().st_size, p.lstat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


def test_foreign_files_run_nothing_write_nothing_and_take_little_memory(tmp_path):
    canary, home = tmp_path / "canary", tmp_path / "files"
    home.mkdir()
    files = hostile_files(canary)
    assert len(files) >= 40
    save(home / "valid", {"q": np.zeros(3)})
    for name, content in files.items():
        if isinstance(content, bytes):
            (home / name).write_bytes(content)
        else:
            content(home / name)
    before = snapshot(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, home], capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    *lines, peak = answer.stdout.splitlines()
    assert len(lines) == len(files) + 1
    assert [line for line in lines if line.startswith("taken")] == ["taken valid"]
    for line in lines:
        assert len(line) < 300 and "\\" not in line, line
    assert int(peak) < 700_000, "KB"
    assert snapshot(tmp_path) == before and not canary.exists()


def test_the_canary_sings(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "canary"))).close()
    assert (tmp_path / "canary").exists()


def test_nothing_is_written_through_a_link(tmp_path):
    target, path = tmp_path / "precious", tmp_path / "x.ckpt"
    target.write_text("precious")
    for name in ("x.ckpt", "x.ckpt.part"):
        (tmp_path / name).symlink_to(target)
    save(path, "new")
    assert target.read_text() == "precious"
    assert load(path) == "new" and not path.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["precious", "x.ckpt"]


# files that are whole and hold nonsense


def slots(tree, place=()):
    """The nodes of a tree below its root, of a list the first two."""
    pairs = ()
    if isinstance(tree, dict):
        pairs = tree.items()
    elif isinstance(tree, list | tuple):
        pairs = enumerate(tree[:2])
    for key, part in pairs:
        yield (*place, key)
        yield from slots(part, (*place, key))


def changed(tree, place, value):
    """A copy with another value at a place; DROP takes the entry away."""
    if not place:
        return value
    key, *rest = place
    if rest:
        value = changed(tree[key], rest, value)
    if isinstance(tree, tuple):
        return (*tree[:key], value, *tree[key + 1 :])
    if isinstance(tree, list):
        return [*tree[:key], *([] if value is DROP else [value]), *tree[key + 1 :]]
    return {k: v for k, v in {**tree, key: value}.items() if v is not DROP}


DROP = object()
NONSENSE = {
    "nothing": None,
    "dropped": DROP,
    "text": "x" * 1000 + "\n",
    "negative": -7,
    "huge": 10**30,
    "NaN": float("nan"),
    "infinity": float("-inf"),
    "true": True,
    "empty": {},
    "list": [[]],
    "tuple": (),
    "pickle": np.frombuffer(pickle.dumps(print), np.uint8),
    "large": np.full((3, 7, 7), 2**40),
    "one": np.array(np.nan),
    "flat": np.zeros(0),
}


# what some slots may be, and lists may be without
HARMLESS = {"nothing", "dropped", "empty"}
FREE = {("state", "state"), ("state", "inc"), ("rng", "has_uint32"), ("np_random", "has_uint32")}
FREE |= {
    ("store", "split"),
    ("inner", "dealer_top_card_suit"),
    ("inner", "dealer_top_card_value_str"),
}
FREE |= {("inner", "fickle_step")}
FREE |= {("reward_scale", "totals")}  # of no environments, as before the first turn


@pytest.mark.filterwarnings("ignore:The truth value of an empty array")  # of NumPy before 2.2
@kinds
def test_nonsense_in_any_slot_is_refused_or_does_no_harm(kind, folder):
    """Refused in one line; what can be taken for a state is one that the run can go on from.

    What an observation or memory is, a store is told with the next turn, which refuses it then.
    """
    path = folder / f"nonsense {kind}"
    path.write_bytes(saved_bytes(kind, folder))
    state = load(path)
    loop = LOOPS[kind]()
    refused = 0
    for place in slots(state):
        for name, value in NONSENSE.items():
            try:
                loop.load_state_dict(changed(state, place, value))
                loop.run(7)
            except UsageError as error:
                refused += 1
                text = str(error)
                assert text.isprintable() and len(text) < 300, text
                assert "entry" in text or "environments" in text, text
            else:
                shown = place[0] == "metrics"  # readings, which nothing depends on
                assert name in HARMLESS or place[-2:] in FREE or shown, (place, name)
    assert refused > 400
    loop.load_state_dict(state)
    loop.run(50)


@kinds
def test_the_state_of_another_run_is_refused(kind, folder):
    path, loop = folder / f"other than {kind}", LOOPS[kind]()
    for other in LOOPS.keys() - {kind}:
        path.write_bytes(saved_bytes(other, folder))
        with pytest.raises(UsageError, match=r"entry|environments"):
            loop.load_state_dict(load(path))


def test_an_agent_that_refuses_tables_is_as_it_was(folder):
    path, agent = folder / "tables", LOOPS["sarsa"]().agent
    path.write_bytes(saved_bytes("sarsa", folder))
    state, before = load(path)["agent"], digest(agent.state_dict())
    rows = state["arrays"]["active"]
    for wrong in (48, -1):  # compiled turns would read and write there
        rows[1, 0, 0] = wrong
        with pytest.raises(UsageError, match=r"agent/arrays/active: .*from 0 to 47"):
            agent.load_state_dict(state)
        assert digest(agent.state_dict()) == before
    rows[1, 0, 0] = 47
    agent.load_state_dict(state)
