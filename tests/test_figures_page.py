"""docs/figures.md is what the results give, and presets say the same."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

from seqrl.training.runs.folder import write_config
from seqrl.training.search.files import write_best

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


def test_a_figure_that_is_not_complete_is_shown_as_it_is():
    some = {"seeds": 5, "least": 5, "of": 4}
    run = {"score": 6.0, "seconds": 2.4, "date": "today"}
    assert figures.measured(some, []) == ("not measured yet", "", "", "")
    assert figures.measured(some, [run]) == ("6", "1 of 5 seeds so far", "2", "today")
    assert figures.verdict(some, [1, 1]) == "**a miss**"  # whatever the others give
    assert figures.verdict(some, [1, 6, 6, 6, 6]) == "holds"
    assert figures.verdict({"seeds": 1}, [1]) == ""
    assert figures.shown({**run, "steps": 40_000}) == "6 (40,000 steps)"


def test_a_figure_of_each_network():
    family = {"networks": ["gru", "lstm"], "what": "{network}", "flags": "--network {network} -x"}
    found = dict(figures.of_each_network("name", family))
    assert [figure["flags"] for figure in found.values()] == [
        "--network gru -x",
        "--network lstm -x",
    ]
    assert list(found) == ["name-gru", "name-lstm"] and found["name-gru"]["what"] == "gru"


def test_a_figure_whose_package_is_not_there_is_left_out_and_told(capsys):
    assert figures.there("own", {}) and figures.there("other", {"needs": "numpy"})
    assert not figures.there("cards", {"needs": "no_such_package"})
    assert (
        capsys.readouterr().out == "cards: left out, it needs no_such_package; see figures.toml\n"
    )


PRESETS = tomllib.loads((HOME.parent / "training/runs/presets.toml").read_text(encoding="utf-8"))


def asked_for(line):
    """The words of a command or of flags, without what does not change what is learned."""
    line = re.sub(r"--(preset|eval-episodes) \S+", "", line.removeprefix("seqrl train "))
    return sorted(line.split())


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_is_said_to_reach_is_measured(preset):
    """By a figure of its command, whose scores are those that it says, rounded."""
    said, command = PRESETS[preset]["reached"], PRESETS[preset]["command"]
    if said.startswith("no score"):
        assert "seed" not in said
        return
    numbers = [float(x.replace(",", "")) for x in re.findall(r"-?\d[\d,]*(?:\.\d+)?", said)]
    (name,) = (
        name
        for name, figure in figures.figures().items()
        if f"--preset {preset} " in figure["flags"]
        and asked_for(figure["flags"]) == asked_for(command)
    )
    for run in figures.results(name, figures.figures()[name])["runs"].values():
        room = 0.5 if abs(run["score"]) >= 10 else 0.0051
        assert any(abs(run["score"] - number) <= room for number in numbers), run


def test_results_of_other_flags_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    (tmp_path / "one.json").write_text('{"flags": "a", "runs": {"0": {}}}')
    assert figures.results("one", {"flags": "a"})["runs"] == {"0": {}}
    assert figures.results("one", {"flags": "b"})["runs"] == {}


def test_results_of_a_preset_that_says_something_else_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    figure = {"flags": "--agent ppo --preset acrobot"}
    kept = {**figures.results("one", figure), "runs": {"0": {}}}
    assert kept["preset"]["num_envs"] == 16
    (tmp_path / "one.json").write_text(json.dumps(kept))
    assert figures.results("one", figure)["runs"] == {"0": {}}
    kept["preset"]["num_envs"] = 8
    (tmp_path / "one.json").write_text(json.dumps(kept))
    assert figures.results("one", figure)["runs"] == {}


@pytest.mark.parametrize("name", figures.figures())
def test_flags_are_those_of_a_run(name, tmp_path):
    from seqrl.scripts import search, train

    figure, places = figures.figures()[name], {"folder": tmp_path, "seed": 0}
    before = [line.format(**places).split() for line in figure.get("before", ())]
    for command, *flags in before:
        assert command in ("train", "record", "search")
        if command == "search":  # the best of its runs, of which none is tried
            own, words = search.make_parser(flags).parse_known_args(flags)
            Path(own.out).mkdir()
            config = train.make_config(train.make_parser(words).read(words))
            write_best(config, Path(own.out) / "best.toml")
        if command == "train":  # a run of its settings, of which nothing is trained
            folder = Path(flags[flags.index("--run-dir") + 1])
            folder.mkdir()
            write_config(folder, train.make_config(train.make_parser(flags).read(flags)))
    words = [*figure["flags"].format(**places).split(), "--seed", "0"]
    args = train.make_parser(words).read(words)
    assert args.agent == words[words.index("--agent") + 1]
    if "record" not in [command for command, *_ in before]:  # what that writes is not there yet
        train.make_config(args)


def test_what_a_figure_needs_is_run_before_it(monkeypatch):
    ran = []

    def run(*words):
        ran.append(words)
        if "--seed" in words:
            folder = Path(words[words.index("--run-dir") + 1])
            folder.mkdir()
            text = '{"eval_mean_reward": 1.0, "seconds": 2.0}'
            (folder / "summary.json").write_text(text, encoding="utf-8")

    monkeypatch.setattr(figures, "seqrl", run)
    figure = {"before": ["record r --out {folder}/d"], "flags": "--dataset {folder}/d"}
    assert figures.measure({"one": figure}, 3)["one"]["score"] == 1.0
    (first, second) = ran
    assert first[:3] == ("record", "r", "--out") and second[1:3] == ("--dataset", first[3])
    assert figures.commands(figure) == "record r --out {folder}/d; --dataset {folder}/d"
