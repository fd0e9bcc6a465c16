"""A disk that is full says so once and ends nothing; what waits is written when there is room.

RLIMIT_FSIZE stands for the disk: a write beyond it is cut short, then refused.
"""

import errno
import resource
import runpy
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from seqrl.core import UsageError
from seqrl.scripts import train
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs
from seqrl.training.runs.growing_file import GrowingFile

outcome = runpy.run_path(str(Path(__file__).with_name("killing.py")))["outcome"]
WORDS = "--env FrozenLake-v1 --steps 6000 --no-compile --quiet --seed 3 --eval-every 2000".split()
WORDS += "--eval-episodes 4 --no-pictures --checkpoint-every 1000 --run-dir".split()


@contextmanager
def room(size):
    """No file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_records_wait_for_room_whole_and_in_order(here, caplog):
    file = GrowingFile(here / "log")
    with room(10):
        for record in (b"12345678", b"abcdef", b"gh"):
            file.write(record)
            file.flush()
        assert (here / "log").read_bytes() == b"12345678"
        file.write(b"i" * 20_000)
        assert len(caplog.records) == 1 and "log: File too large; going on" in caplog.text
    file.write(b"j")
    file.flush()
    assert (here / "log").read_bytes() == b"12345678abcdefgh" + b"i" * 20_000 + b"j"
    with room(10):
        file.write(b"kl")
        file.close()
    assert "log lacks its last 2 bytes" in caplog.text


def test_a_run_on_a_full_disk_ends_as_it_should_and_can_be_resumed(here, caplog, capsys):
    """Its log is full after 2,000 env steps, and its later checkpoints hold what waits."""
    assert train.main([*WORDS, "whole"]) == 0
    (log,) = (here / "whole").glob("events*")
    with room(log.stat().st_size * 2 // 3):
        assert train.main([word for word in [*WORDS, "r"] if word != "--quiet"]) == 0
    said = [record.getMessage() for record in caplog.records]
    assert sum("going on" in text for text in said) == 1
    assert sum("lacks its last" in text for text in said) == 1
    (here / "r/summary.json").unlink()  # killed right before its end
    runs.checkpoints(here / "r")[0].unlink()
    assert train.main(["--resume", "r", "--quiet"]) == 0
    assert outcome(here / "r") == outcome(here / "whole")


@pytest.mark.parametrize("what", ["checkpoint", "summary"])
def test_an_end_that_could_not_be_saved_is_said_and_the_run_not_finished(
    here, monkeypatch, capsys, what
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert train.main([*WORDS, "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            *{"checkpoint": (checkpoint, "save"), "summary": (Path, "write_text")}[what], full
        )
        patch.setattr(runs, "write_config", lambda folder, config: None)
        assert train.main([*WORDS, "r"]) == 0
    assert "the end of the run is not saved: make room" in capsys.readouterr().err
    assert not list((here / "r").glob("summary.json*"))
    (here / "r/config.toml").write_text((here / "whole/config.toml").read_text())
    assert train.main(["--resume", "r", "--quiet"]) == 0
    assert outcome(here / "r") == outcome(here / "whole")


def test_no_room_at_the_start_is_a_line(here, capsys):
    with room(0):
        assert train.main([*WORDS, "r"]) == 2
        with runs.locked(here), pytest.raises(UsageError, match="is in use by another process"):
            with runs.locked(here):
                pass
    error = capsys.readouterr().err
    assert error.startswith("seqrl: r/config.toml: File too large; ") and error.count("\n") == 1
    assert not list((here / "r").iterdir())


# NumPy 2.0 leaves the archive that it could not write to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_room_for_the_curves_of_many_seeds_is_a_line(here, capsys):
    words = "--env FrozenLake-v1 --seeds 2 --steps 500 --no-compile --quiet --run-dir r".split()
    with room(3_000):
        assert train.main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("seqrl: r/curves.npz: File too large; make room")
    assert not (here / "r/curves.npz").exists()


def test_output_that_cannot_be_written_is_a_line(here):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "seqrl", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=here)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "No space left on device" in done.stderr
