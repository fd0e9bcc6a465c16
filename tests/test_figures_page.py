"""docs/figures.md is what the results give."""

import importlib.util
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1] / "benchmarks"
spec = importlib.util.spec_from_file_location("figures", HOME / "figures.py")
figures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(figures)


def test_the_page_is_of_the_results():
    assert figures.PAGE.read_text(encoding="utf-8") == figures.page()


def test_what_is_asked():
    some = {"seeds": 3, "least": 5, "of": 2}
    assert figures.holds(some, [5, 6, 4]) and not figures.holds(some, [4.9, 6, 4])
    assert figures.asked(some) == ">= 5 in 2 of 3"
    median = {"seeds": 3, "most": 5}
    assert figures.holds(median, [1, 5, 9]) and not figures.holds(median, [1, 6, 9])
    assert figures.asked(median) == "<= 5, median"


def test_results_of_other_flags_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    (tmp_path / "one.json").write_text('{"flags": "a", "runs": {"0": {}}}')
    assert figures.results("one", {"flags": "a"})["runs"] == {"0": {}}
    assert figures.results("one", {"flags": "b"})["runs"] == {}


@pytest.mark.parametrize("name", figures.figures())
def test_flags_are_those_of_a_run(name):
    from seqrl.scripts import train

    words = [*figures.figures()[name]["flags"].split(), "--seed", "0"]
    assert train.make_config(train.make_parser(words).read(words))["agent"] == "ppo"
