"""The agent's part of a run's folder: what was typed, in one order, and nothing else."""

import json
import shlex
from pathlib import Path

import pytest

from seqrl.scripts import list as listing
from seqrl.scripts import train
from seqrl.scripts.run_name import LONGEST, run_name
from seqrl.scripts.settings import expanded


def name_of(words, varied=()):
    argv = words.split()
    return run_name(argv, train.make_parser(expanded(argv)), "q-learning", varied)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "q-learning"),
        ("--agent reinforce --env CartPole-v1 --seed 3 --steps 9 --episodes 5", "reinforce"),
        ("--logdir x --run-dir y --quiet --debug --no-pictures --checkpoint-every 5", "q-learning"),
        ("--eval-every 5 --eval-episodes 5 --stop-at 3 --patience 2", "q-learning"),
        ("--agent ppo --threads 2 --device cpu --backend numpy --processes --no-compile", "ppo"),
        ("--agent reinforce --network gru", "reinforce,network=gru"),
        ("--agent reinforce --network my:Net", "reinforce,network=my:Net"),
        ("--agent=ppo --num_envs=8 --network gru", "ppo,num_envs=8,network=gru"),
        ("--agent ppo --network gru --num-envs 8", "ppo,num_envs=8,network=gru"),
        ("--algo ppo --lr 1e-3 --env CartPole-v1", "ppo,learning_rate=0.001"),
        ("--learning-rate .1 --learning-rate 0.20", "q-learning,learning_rate=0.2"),
        ("--epsilon linear:1:0.1", "q-learning,epsilon=linear:1:0.1"),
        ("--double", "q-learning,double=true"),
        ("--no-double", "q-learning,double=false"),
        ("--agent ppo --network-arg layers=2 --network-arg hidden=3", "ppo,hidden=3,layers=2"),
        ("--network-arg hidden=2 --network-arg hidden=3", "q-learning,hidden=3"),
        ("--bins 8 --bin-range 1=-3:3 --bin-range 0=-1:1", "q-learning,bins=8,0=-1:1,1=-3:3"),
        ("--wrapper a.b:C --wrapper-arg n=3", "q-learning,wrapper=a.b:C,n=3"),
        (
            "--wrapper a:D --wrapper-arg n=3 --wrapper a:C --wrapper-arg n=4 --double",
            "q-learning,wrapper=a:D,n=3,wrapper=a:C,n=4,double=true",
        ),
        ("--wrapper a:C --wrapper a:C", "q-learning,wrapper=a:C,wrapper=a:C"),
        ("--agent ppo --network-arg hidden=(64,064e0)", "ppo,hidden=(64,64.0)"),
        ("--preset none --env FrozenLake-v1", "q-learning,preset=none"),
        ("--agent dqn --env CartPole-v1", "dqn"),
        ("--agent r2d2 --num-envs 4", "r2d2,num_envs=4"),
    ],
)
def test_what_was_typed_and_changes_what_is_learned_is_in_the_name(words, name):
    assert name_of(words) == name


def test_spaces_in_a_list_name_no_other_run():
    argv = ["--agent", "ppo", "--network-arg", "hidden=[64, 64]"]
    parser = train.make_parser(argv)
    assert run_name(argv, parser, "q-learning") == name_of(" ".join(argv[:3]) + " hidden=[64,64]")


def test_a_preset_and_a_default_are_not_in_the_name():
    argv = "--agent ppo --env MountainCar-v0".split()
    parser = train.make_parser(argv)
    assert parser.note.startswith("preset mountain-car")  # it sets num_envs and others
    assert run_name(argv, parser, "q-learning") == "ppo"


def test_a_config_file_is_there_by_its_name(tmp_path):
    (tmp_path / "tuned.toml").write_text("learning_rate = 0.2\n[agent_args]\ngamma = 0.9\n")
    words = f"--config {tmp_path / 'tuned.toml'} --double"
    assert name_of(words) == "q-learning,config=tuned,double=true"


def test_what_a_comparison_varies_is_always_there():
    words = ["--steps=20", "--backend=numpy", "--agent", "ppo"]
    assert name_of(" ".join(words), words[:2]) == "ppo,steps=20,backend=numpy"
    assert name_of(" ".join(words), words[:1]) == "ppo,steps=20"


def test_a_long_name_ends_in_a_hash_of_all_of_it():
    words = "--agent ppo --network mymodule:MyMemory --network-arg hidden=128 --clip 0.2"
    words += " --gae-lambda 0.9"
    long = [name_of(f"{words} --entropy-coef {x} --learning-rate 0.001") for x in (0.1, 0.2)]
    assert long[0] != long[1]  # which is past the cut
    for name in long:
        assert len(name) == LONGEST and name.startswith("ppo,network=mymodule:MyMemory,hidden=128")
        assert name[-7] == "-" and int(name[-6:], 16) >= 0


def run(*words):
    flags = ["--steps", "300", "--eval-episodes", "2", "--quiet"]
    assert train.main([*flags, *map(str, words)]) == 0


def test_runs_are_listed_with_settings_score_steps_and_state(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run()
    run()
    run("--gamma", 0.9, "--env", "Taxi-v4", "--seed", 2)
    run("--seeds", 2)
    run("--run-dir", "runs/mine")
    half = Path("runs/FrozenLake-v1/q-learning/seed-0.1")
    (half / "summary.json").unlink()
    old = half.rename(half.with_name("seed-0-1"))  # as 0.1 numbered them
    score = json.loads(Path("runs/mine/summary.json").read_text())["eval_mean_reward"]
    capsys.readouterr()
    assert listing.main(["--runs"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    head = ["score", "env", "steps", "state", "folder", "in", "runs"]
    assert lines[0] == ["FrozenLake-v1", *head] and lines[5] == ["Taxi-v4", *head]
    done = [f"{score:.4g}", "300", "finished"]
    home = "FrozenLake-v1/q-learning"
    assert lines[1] == ["q-learning", *done, f"{home}/seed-0"]
    steps = lines[2][1]
    assert lines[2] == ["q-learning", steps, *"not finished, of 300".split(), f"{home}/{old.name}"]
    assert 0 < int(steps) <= 300
    assert lines[3][0] == "q-learning" and lines[3][-1] == f"{home}/seeds-2"
    assert lines[3][2:-1] == ["600", "finished,", "not", "evaluated"]
    assert lines[4] == ["q-learning", *done, "mine"]
    assert lines[6][0] == "q-learning,gamma=0.9"
    assert lines[6][-1] == "Taxi-v4/q-learning,gamma=0.9/seed-2"


def test_settings_in_which_runs_of_one_folder_differ_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("--gamma", 0.9, "--run-dir", "runs/FrozenLake-v1/q-learning/seed-0")
    run("--gamma", 0.8, "--run-dir", "runs/FrozenLake-v1/q-learning/seed-0-1")
    capsys.readouterr()
    assert listing.main(["--runs", "runs/FrozenLake-v1"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["FrozenLake-v1", "q-learning,gamma=0.8", "q-learning,gamma=0.9"]


def test_a_folder_without_runs_is_said(tmp_path, capsys):
    assert listing.main(["--runs", str(tmp_path)]) == 2
    assert "no run folder there" in capsys.readouterr().err


def test_a_run_under_way_shows_the_steps_of_its_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run()
    (tmp_path / "runs/FrozenLake-v1/q-learning/seed-0/summary.json").unlink()
    capsys.readouterr()
    assert listing.main(["--runs"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "300"  # of episodes fewer


def test_a_preset_s_note_leaves_out_what_was_typed():
    argv = "--agent ppo --env MountainCar-v0 --num-envs 3 --lr 0.5".split()
    note = train.make_parser(argv).note
    assert "preset mountain-car" in note
    assert "num_envs" not in note and "learning_rate" not in note
    assert "num_envs=" in train.make_parser(argv[:4]).note


def test_what_cannot_be_read_keeps_no_run_from_the_list(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("--run-dir", "runs/good")
    config = Path("runs/good/config.toml").read_text()
    for name, text in {
        "empty": "",
        "half": config[:40],
        "steps": config.replace("steps = 300", "steps = 'many'"),
        "env": config.replace('env = "FrozenLake-v1"', "env = 3"),
    }.items():
        Path("runs", name).mkdir()
        Path("runs", name, "config.toml").write_text(text)
    for name, summary in {
        "torn": '{"steps": 30',
        "told": '{"steps": 300, "ep_rew_mean": "x"}',
    }.items():
        Path("runs", name).mkdir()
        Path("runs", name, "config.toml").write_text(config)
        Path("runs", name, "summary.json").write_text(summary)
    capsys.readouterr()
    assert listing.main(["--runs"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == ["runs", "good"]
    damaged = ["empty", "env", "half", "steps", "told", "torn"]
    told = sorted(err.splitlines())
    assert len(told) == 6
    assert all(f"runs/{name}/" in line for name, line in zip(damaged, told, strict=True))


def test_a_pattern_names_folders_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("--run-dir", "runs/good")
    capsys.readouterr()
    assert listing.main(["--runs", "ru*"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "runs/good"


def test_the_command_that_is_printed_can_be_pasted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--steps", "50", "--eval-episodes", "0", "--no-pictures", "--logdir", "my runs"]
    assert train.main(words) == train.main([*words, "--seeds", "2"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("see it:")]
    assert [shlex.split(line)[-2:] for line in shown] == [["--logdir", "my runs"]] * 2
