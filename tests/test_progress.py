"""How progress is shown: a bar on a terminal, lines in a file or a pipe, nothing where quiet."""

import re
from types import SimpleNamespace

import pytest

from seqrl.scripts import compare, train
from seqrl.training.runs import progress
from seqrl.training.runs.progress import Meter, Progress

RUN = "--steps 600 --eval-episodes 0 --no-pictures --run-dir".split()


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(progress, "time", made := Clock())
    return made


def test_a_line_comes_with_each_tenth_between_ten_seconds_and_ten_minutes(clock, capsys):
    with Meter(2_000, "steps") as meter:
        told = ((5, 1), (9, 900), (15, 1_000), (24, 1_400), (26, 1_401), (400, 1_402), (999, 2_000))
        for now, done in told:
            clock.now = now
            meter.show(done, "return 3")
        clock.now = 626
        meter.show(1_403)
    assert capsys.readouterr().err.splitlines() == [
        "seqrl: 1,000 of 2,000 steps (50%) in 15 s, return 3",
        "seqrl: 1,401 of 2,000 steps (70%) in 26 s, return 3",
        "seqrl: 1,403 of 2,000 steps (70%) in 626 s",
    ]


@pytest.mark.parametrize(("plays", "whose"), [(True, "return"), (False, "teacher's return")])
def test_a_return_of_training_is_said_to_be_a_teachers(plays, whose, clock, capsys):
    agent = SimpleNamespace(teacher=None, plays=plays)
    for name in ("meet", "form_of_turns"):
        setattr(agent, name, lambda: None)
    books = SimpleNamespace(ep_rew_mean=0.5, recent=[0.5])
    loop = SimpleNamespace(agent=agent, envs=None, books=books, steps=500)
    with Meter(1_000, "steps") as meter:
        Progress(meter)(loop)
        clock.now = 20
        Progress(meter)(loop)
    assert capsys.readouterr().err == f"seqrl: 500 of 1,000 steps (50%) in 20 s, {whose} 0.5\n"


def test_a_quiet_one_shows_nothing(clock, capsys):
    with Meter(10, "seeds", quiet=True) as meter:
        meter.show(1)
        clock.now = 1_000
        meter.show(9)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(clock, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Meter(10, "steps") as meter:
        clock.now = 1_000
        meter.show(9, "return 3")
        assert (meter.bar.n, meter.bar.total) == (9, 10)
    assert "seqrl:" not in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--seeds", "30", "--threads", "1", "--no-compile"]])
def test_a_run_in_a_pipe_tells_how_far_it_is(more, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LEAST", 0.0)
    assert train.main([*RUN, str(tmp_path / "told"), *more]) == 0
    share = r"\d+ of 30 seeds" if more else "300 of 600 steps"
    told = capsys.readouterr().err
    assert re.search(rf"^seqrl: {share} \(\d+%\) in ", told, re.MULTILINE) and "\r" not in told
    assert train.main([*RUN, str(tmp_path / "quiet"), *more, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_comparison_in_a_pipe_tells_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LEAST", 0.0)
    words = (
        f"--agents sarsa --seeds 2 --workers 1 --steps 300 --logdir {tmp_path} --eval-episodes 1"
    )
    assert compare.main(words.split()) == 0
    assert re.search(
        r"seqrl: 300 of 600 steps \(50%\) in \d+ s, 1 of 2 runs", capsys.readouterr().err
    )
