"""The checkpoint file: whole or refused, whatever is put in its place."""

import hashlib
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seqrl.core import UsageError
from seqrl.training.runs import checkpoint
from seqrl.training.runs.checkpoint import DTYPES, HASH_SIZE, MAGIC, digest, load, save

SMALL = {"q": np.arange(4.0), "n": (3, None, [True, "é"]), "rate": float("inf"), 7: -0.0}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ckpt"


def same(a, b):
    """Equal types, values, shapes and dtypes all the way down; NaN equals NaN, -0.0 is not 0.0."""
    if isinstance(a, np.ndarray):
        facts = a.dtype == b.dtype and a.shape == b.shape
        return facts and a.tobytes() == b.tobytes() and b.flags.owndata and b.flags.writeable
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(map(typed, a)) == list(map(typed, b)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b if not isinstance(a, float) else struct.pack("d", a) == struct.pack("d", b)


def typed(key):
    return type(key), key


plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
plain |= st.just(float("nan")) | st.integers(2**64, 2**300)
dtypes = st.sampled_from(sorted(DTYPES)).map(np.dtype)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
leaves = plain | hnp.arrays(dtypes, shapes)
keys = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
trees = st.recursive(
    leaves,
    lambda parts: (
        st.lists(parts) | st.lists(parts).map(tuple) | st.dictionaries(keys, parts, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_saved_comes_back_to_the_last_bit(path, tree):
    save(path, tree)
    assert same(tree, load(path))
    assert digest(tree) == digest(load(path))


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24).reshape(4, 6)[::2, ::-3],
        np.broadcast_to(np.float32(2.5), (2, 3)),
        np.array([1.5, -2.0], ">f8"),
        np.array([[1, 2], [3, 4]], ">i4"),
    ],
    ids=["fortran", "strided", "broadcast", "big-endian floats", "big-endian ints"],
)
def test_memory_layout_and_byte_order_do_not_matter(path, array):
    save(path, array)
    found = load(path)
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)
    assert digest(array) == digest(np.array(array, array.dtype.newbyteorder("="), order="C"))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int8, np.uint64, np.bool_, np.str_])
def test_numpy_numbers_come_back_as_plain_ones(path, kind):
    save(path, [kind(1)])
    (found,) = load(path)
    assert found == kind(1) and type(found) is type(kind(1).item())


def test_equal_arrays_in_two_places_come_back_as_two(path):
    q = np.zeros(3)
    save(path, {"q": q, "again": q})
    found = load(path)
    found["q"][0] = 1
    assert found["again"][0] == 0


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        {1, 2},
        1j,
        np.longdouble(1),
        np.array([object()]),
        np.array(["text"]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, [("a", "f8")]),
        np.zeros(2, np.longdouble),
        np.zeros(2, complex),
        lambda: 0,
        {object(): 1},
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)
def test_what_the_file_has_no_form_for_is_refused_and_the_old_file_stays(path, value):
    save(path, "old")
    with pytest.raises(TypeError, match="cannot be saved"):
        save(path, {"ok": np.ones(2), "bad": value})
    assert load(path) == "old"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(path, monkeypatch, call):
    def full(*args):
        raise OSError(28, "No space left on device")

    save(path, SMALL)
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint.os, call, full)
    with pytest.raises(OSError, match="No space left"):
        save(path, {"other": np.zeros(100)})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_while_it_is_written_the_old_file_is_whole(path, monkeypatch):
    save(path, "old")
    seen = []
    monkeypatch.setattr(checkpoint.os, "fsync", lambda handle: seen.append(load(path)))
    save(path, "new")
    assert seen[0] == "old" and load(path) == "new"


def test_digests_tell_trees_apart():
    ones = [
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"b": 1},
        {"a": (1,)},
        {"a": [1]},
        {"a": np.ones(1)},
        {"a": np.ones(1, int)},
        {"a": np.ones((1, 1))},
        {"a": np.ones(())},
        {"a": "1"},
        {"a": None},
        {1: 1},
        {"1": 1},
        {"a": {"float": "nan"}},
        {"a": float("nan")},
        {"a": {"array": 0}},
        {"a": -0.0},
        {"a": 0.0},
    ]
    assert len({digest(one) for one in ones}) == len(ones)


def test_any_flipped_bit_is_refused(path):
    save(path, SMALL)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    seal = 8 * (len(MAGIC) + HASH_SIZE)
    lines = [range(8 * (len(MAGIC) - 1), 8 * len(MAGIC) + 8), range(seal - 16, seal)]
    places = [*lines[0], *lines[1], *rng.integers(8 * len(whole), size=300).tolist()]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"checkpoint .*x\.ckpt: .*take an older checkpoint"):
            load(path)


def test_a_damaged_header_and_a_damaged_array_are_told_apart(path):
    save(path, SMALL)
    whole = path.read_bytes()
    for place, message in ((len(MAGIC) + HASH_SIZE + 9, "the header is damaged"), (-9, "entry q")):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=message):
            load(path)


def test_any_truncation_and_any_extra_byte_is_refused(path):
    save(path, SMALL)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 3), len(whole) - 1, len(whole) + 1]:
        path.write_bytes((whole + b"\0")[:size])
        with pytest.raises(UsageError, match="take an older checkpoint"):
            load(path)


def sealed(content, data=b""):
    """A file with valid checksums around any header."""
    header = content
    if not isinstance(content, bytes):
        header = json.dumps(content, separators=(",", ":")).encode()
    sha = hashlib.sha256(header).hexdigest()
    return MAGIC + f"{sha} {len(header):020d}\n".encode() + header + data


def entry(**changes):
    zeros = bytes(16)
    sha = hashlib.sha256(zeros).hexdigest()
    return {"dtype": "float64", "shape": [2], "sha256": sha, **changes}


def array_file(tree={"array": 0}, entries=None, **changes):  # noqa: B006
    return sealed({"tree": tree, "arrays": entries or [entry(**changes)]}, bytes(16))


FOREIGN = {
    "empty": b"",
    "text": b"hello\nworld\n",
    "binary": bytes(range(256)) * 8,
    "pickle": pickle.dumps({"q": np.zeros(3)}),
    "magic alone": MAGIC,
    "size of words": MAGIC + b"0" * 64 + b" " + b"x" * 20 + b"\n",
    "negative size": MAGIC + b"0" * 64 + b" -0000000000000000001\n",
    "header of 10^19 bytes": MAGIC + b"0" * 64 + b" 9" + b"9" * 19 + b"\n",
    "not JSON": sealed(b"{"),
    "not UTF-8": sealed(b'"\xff\xfe"'),
    "deep lists": sealed(b"[" * 100_000 + b"]" * 100_000),
    "deep tree": sealed(b'{"arrays":[],"tree":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "deep objects": sealed(
        b'{"arrays":[],"tree":' + b'{"tuple":[' * 4000 + b"]}" * 4000 + b"}",
    ),
    "number of 10,000 digits": sealed(b'{"arrays":[],"tree":' + b"9" * 10_000 + b"}"),
    "a number": sealed(5),
    "a list": sealed([]),
    "null": sealed(None),
    "no tree": sealed({"arrays": []}),
    "no arrays": sealed({"tree": 1}),
    "arrays no list": sealed({"tree": 1, "arrays": 3}),
    "arrays an object": sealed({"tree": 1, "arrays": {"dtype": 1}}),
    "entry a number": array_file(entries=[5]),
    "entry without dtype": array_file(entries=[{"shape": [2]}]),
    "dtype object": array_file(dtype="object"),
    "dtype O": array_file(dtype="O"),
    "dtype text": array_file(dtype="str128"),
    "dtype structured": array_file(dtype="f8,f8"),
    "dtype complex": array_file(dtype="complex128", shape=[1]),
    "dtype a list": array_file(dtype=["float64"]),
    "dtype null": array_file(dtype=None),
    "negative side": array_file(shape=[-1, -2]),
    "one negative side": array_file(shape=[2, -1]),
    "a negative claim for a large one": array_file(
        [{"array": 0}, {"array": 1}], [entry(shape=[10**12]), entry(shape=[2 - 10**12])]
    ),
    "broken side": array_file(shape=[2.0]),
    "side true": array_file(shape=[True, 2]),
    "side of words": array_file(shape=["2"]),
    "shape a number": array_file(shape=2),
    "shape null": array_file(shape=None),
    "shape too small": array_file(shape=[1]),
    "shape too large": array_file(shape=[3]),
    "10^12 elements": array_file(shape=[10**12]),
    "10^40 elements": array_file(shape=[10**20, 10**20]),
    "no elements in 10^30 rows": sealed(
        {"tree": 0, "arrays": [entry(shape=[10**30, 0], sha256=hashlib.sha256().hexdigest())]}
    ),
    "100 dimensions": array_file(shape=[2, *[1] * 99]),
    "sides of 4,000 digits": array_file(shape=[10**4000] * 1000),
    "no checksum": array_file(entries=[{"dtype": "float64", "shape": [2]}]),
    "checksum a number": array_file(sha256=0),
    "other checksum": array_file(sha256="0" * 64),
    "claims that overlap": array_file(entries=[entry(), entry()]),
    "no such array": array_file({"array": 1}),
    "array from behind": array_file({"array": -1}),
    "array by name": array_file({"array": "0"}),
    "array by list": array_file({"array": [0]}),
    "array twice": array_file([{"array": 0}, {"array": 0}]),
    "array never": array_file(1),
    "unknown kind": sealed({"tree": {"code": "print(1)"}, "arrays": []}),
    "two kinds": sealed({"tree": {"tuple": [], "dict": {}}, "arrays": []}),
    "no kind": sealed({"tree": {}, "arrays": []}),
    "float of words": sealed({"tree": {"float": "x"}, "arrays": []}),
    "float of a list": sealed({"tree": {"float": [1]}, "arrays": []}),
    "tuple of a number": sealed({"tree": {"tuple": 5}, "arrays": []}),
    "tuple of letters": sealed({"tree": {"tuple": "abc"}, "arrays": []}),
    "dict of a list": sealed({"tree": {"dict": [1]}, "arrays": []}),
    "dict of a number": sealed({"tree": {"dict": 1}, "arrays": []}),
    "items of a number": sealed({"tree": {"items": 1}, "arrays": []}),
    "items not in pairs": sealed({"tree": {"items": [[1]]}, "arrays": []}),
    "key that has no hash": sealed({"tree": {"items": [[[1], 2]]}, "arrays": []}),
}


def test_the_foreign_files_are_built_as_ours_are(path):
    path.write_bytes(array_file({"dict": {"q": {"array": 0}}}))
    assert same(load(path), {"q": np.zeros(2)})


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_in_one_short_line(path, name):
    path.write_bytes(FOREIGN[name])
    with pytest.raises(UsageError) as caught:
        load(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and len(text) - len(str(path)) < 200


def test_a_claim_of_more_than_there_is_allocates_nothing(path, monkeypatch):
    path.write_bytes(array_file(shape=[10**12]))
    monkeypatch.setattr(checkpoint.np, "empty", None)
    with pytest.raises(UsageError, match=r"cut off: 8,000,000,000,000 bytes expected, 16 are"):
        load(path)


def test_more_than_the_limit_is_refused_before_it_is_read(path):
    save(path, np.zeros(1000))
    with pytest.raises(UsageError, match=r"8,000 bytes of arrays, more than 7,999"):
        load(path, limit=7_999)
    assert len(load(path, limit=8_000)) == 1000


def test_missing_files_and_folders_are_refused(path, tmp_path):
    with pytest.raises(UsageError, match=r"x\.ckpt: No such file"):
        load(path)
    with pytest.raises(UsageError, match="expected a plain file"):
        load(tmp_path)


def test_nothing_in_a_file_is_ever_unpickled(path, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UsageError):
        load(path)
    path.write_bytes(array_file() + pickle.dumps(Evil()))
    with pytest.raises(UsageError):
        load(path)
    assert not (tmp_path / "ran").exists()


KILLED = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from seqrl.training.runs import checkpoint

path = Path(sys.argv[1])
old, new = ({"a": np.full(5000, x), "b": [x] * 200, "c": np.full(3000, x)} for x in (1.0, 2.0))


steps = checkpoint.save.__code__, checkpoint.fsync_folder.__code__


def at_line(number):
    left = number

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code not in steps:
            return None
        left -= event in ("line", "return")
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def at_byte(number):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def trial(prepare, number):
    checkpoint.save(path, old)
    child = os.fork()
    if not child:
        prepare(number)
        checkpoint.save(path, new)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = checkpoint.load(path)
    assert checkpoint.digest(found) in map(checkpoint.digest, (old, new)), number
    left = {p.name for p in path.parent.iterdir()} - {path.name}
    assert left <= {path.name + ".part"}, left
    checkpoint.save(path, new)
    assert os.listdir(path.parent) == [path.name]
    return os.WIFSIGNALED(status), found["b"][0] == 2.0, bool(left)


checkpoint.save(path, old)
size = path.stat().st_size
lines = []
while not lines or lines[-1][0]:
    lines.append(trial(at_line, len(lines) + 1))
sizes = [trial(at_byte, n) for n in (*range(0, size, 1999), size - 1)]
assert lines[-1] == (False, True, False) and all(killed for killed, *_ in sizes)
print(len(lines) - 1, sum(new for _, new, _ in lines[:-1]), sum(left for *_, left in lines))
print(len(sizes), sum(new for _, new, _ in sizes), sum(left for *_, left in sizes))
"""


def test_a_kill_at_any_line_and_any_byte_of_a_save_leaves_the_old_or_the_new_file(path):
    """SIGKILL before each line of a save, and at bytes of the file while they are written.

    What is left behind is one draft at most; the next save takes it away.
    """
    command = [sys.executable, "-c", KILLED, path]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    lines, sizes = (list(map(int, line.split())) for line in answer.stdout.splitlines())
    assert lines[0] > 20 and 0 < lines[1] < lines[0] and lines[2] > 3
    assert sizes[0] > 30 and sizes[1:] == [0, sizes[0]]
