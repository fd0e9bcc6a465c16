"""Runs on a corpus: the words that they keep, rows for evaluations, rewards that are code."""

import re
import sys

import pytest

import seqrl
from seqrl.core import UsageError
from seqrl.envs.tasks.rewards import own_function
from seqrl.scripts import evaluate, train
from seqrl.training.engines.executor import code_flags
from seqrl.training.runs.config import complete
from seqrl.training.runs.folder import read_config
from seqrl.training.runs.hparams import flatten

CORPUS = "seqrl/Corpus-v0"
SHORT = ["--network", "gru", "--num-envs", "4", "--steps", "200", "--quiet", "--eval-episodes", "2"]
ROWS = "".join(f"{a} {b}\t{b} {a}\n" for a in "abc" for b in "xyz")
SCORE = "def exact(said, right):\n    return float(said == right)\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The current folder, with a corpus and code of a user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.delitem(sys.modules, "corpus_scores", raising=False)
    own_function.cache_clear()
    (tmp_path / "rows.tsv").write_text(ROWS)
    (tmp_path / "corpus_scores.py").write_text(SCORE)
    return tmp_path


def trained(*flags, agent="imitate"):
    words = ["--agent", agent, "--env", CORPUS, "--env-arg", "path=rows.tsv", *SHORT]
    assert train.main([*words, "--run-dir", "run", *flags]) == 0


def test_a_run_keeps_its_words(home, capsys):
    trained()
    kept = read_config(home / "run")["env_args"]
    assert kept == {
        "path": str(home / "rows.tsv"),
        "vocabulary": list("abcxyz"),
        "longest_source": 2,
        "longest_target": 2,
    }
    (home / "rows.tsv").write_text(ROWS + "a\tx\nx\ta\n")  # other rows of the same words
    assert evaluate.main(["run", "--episodes", "2"]) == 0
    (home / "rows.tsv").write_text(ROWS + "Q a\tx\n")
    capsys.readouterr()
    assert evaluate.main(["run", "--episodes", "2"]) == 2
    told = capsys.readouterr().err
    assert "rows.tsv', line 10: unknown word 'Q'; the vocabulary has 6" in told
    assert told.count("\n") == 1


def test_a_file_is_found_from_any_folder(home, monkeypatch):
    trained("--eval-env-arg", "path=rows.tsv")
    assert read_config(home / "run")["eval_env_args"] == {"path": str(home / "rows.tsv")}
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert evaluate.main(["../run", "--episodes", "2"]) == 0


def test_a_file_that_is_not_there_is_a_mistake_of_the_user(home, capsys):
    trained()
    capsys.readouterr()
    assert evaluate.main(["run", "--env-arg", "path=none"]) == 2
    assert capsys.readouterr().err == "seqrl: path 'none': there is no such file\n"


def test_a_run_without_its_file_can_be_talked_to(home):
    trained()
    (home / "rows.tsv").unlink()
    policy = seqrl.load("run")
    rules = policy.make_envs().envs[0].unwrapped.task
    action = policy.predict({"source": rules.hear("c z"), "previous": 1})
    assert policy.action_space.contains(action) and policy.action_space.n == 9


def test_a_run_goes_on_where_its_file_is_the_same(home, capsys):
    trained()
    (home / "rows.tsv").write_text(ROWS.replace("a x\tx a", "a x\tx b"))
    config = {**read_config(home / "run"), "steps": 400}
    with pytest.raises(UsageError, match="begun with other settings: steps 400"):
        seqrl.run(config, "run", resume=True)


def test_evaluations_have_arguments_of_their_own(home, capsys):
    """In a reward that tells: the training rows are worth 1, those of evaluations nothing."""
    trained("--eval-env-arg", "reward=edit", "--eval-env-arg", "part=test")
    config = read_config(home / "run")
    assert config["eval_env_args"] == {"reward": "edit", "part": "test"}
    assert "part" not in config["env_args"]
    capsys.readouterr()
    found = []
    for more in ([], ["--env-arg", "reward=accuracy"]):
        assert evaluate.main(["run", "--episodes", "3", *more]) == 0
        found.append(float(re.search(r"mean return (\S+)", capsys.readouterr().out)[1]))
    assert found[0] <= 0 <= found[1] <= 1
    assert found[0] == int(found[0] * 3) / 3


def test_evaluations_take_the_actions_that_are_learned(home, capsys):
    words = ["--agent", "imitate", "--env", "seqrl/Translate-v0", *SHORT, "--run-dir", "run"]
    assert train.main([*words, "--eval-env-arg", "letters=20"]) == 2
    told = capsys.readouterr().err
    said = "--eval-env-arg: actions Discrete(23), those of training are Discrete(29)"
    assert said in told and told.count("\n") == 1


def test_a_reward_that_is_code_has_to_be_named_again(home, capsys):
    reward = "reward=corpus_scores:exact"
    trained("--env-arg", reward, agent="reinforce")
    capsys.readouterr()
    assert evaluate.main(["run", "--episodes", "2"]) == 2
    told = capsys.readouterr().err
    assert f"its reward imports code; to allow it, add --env-arg {reward}" in told
    assert evaluate.main(["run", "--episodes", "2", "--env-arg", reward]) == 0
    assert evaluate.main(["run", "--episodes", "2", "--env-arg", "reward=bleu"]) == 0
    capsys.readouterr()
    assert evaluate.main(["run", "--env-arg", "reward=corpus_scores:other"]) == 2
    assert "has no attribute 'other'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="its reward imports code"):
        seqrl.load("run")
    seqrl.load("run", env_args={"reward": "corpus_scores:exact"})
    assert train.main(["--resume", "run"]) == 2
    assert train.main(["--resume", "run", "--env-arg", "reward=bleu"]) == 2
    assert "the run has 'corpus_scores:exact' and keeps it" in capsys.readouterr().err
    assert train.main(["--resume", "run", "--env-arg", reward]) == 0
    assert code_flags(read_config(home / "run")) == [f"--env-arg={reward}"]


def test_code_that_is_none_is_refused_before_there_is_a_folder(home, capsys):
    words = ["--env", CORPUS, "--env-arg", "reward=corpus_scores:none", *SHORT]
    assert train.main(["--agent", "imitate", *words, "--run-dir", "run"]) == 2
    told = capsys.readouterr().err
    assert "reward 'corpus_scores:none': AttributeError" in told and told.count("\n") == 1
    assert not (home / "run").exists()


def test_long_settings_are_shown_by_their_beginning(home):
    (home / "many.tsv").write_text("".join(f"word{i}\tother{i}\n" for i in range(300)))
    config = complete({"agent": "imitate", "network": "gru", "env": CORPUS,
                       "env_args": {"path": "many.tsv"}})  # fmt: skip
    shown = dict(flatten(config))["env_args.vocabulary"]
    assert len(config["env_args"]["vocabulary"]) == 600
    assert shown.startswith("['other0', ") and len(shown) < 600 and "characters, checksum" in shown
