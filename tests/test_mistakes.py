"""Typical mistakes at the keyboard: each gives one line that names it and the next step."""

import re
import shlex

import gymnasium as gym
import pytest

from seqrl.scripts import command

MISTAKES = {
    # names
    "train --agent pp0": r"unknown agent 'pp0'. Did you mean \"ppo\"\?",
    "train --agent trpo": r"unknown agent 'trpo'. Nearest here: ppo. Known: q-learning",
    "train --agent TD3": r"Nearest here: sac",
    "train --agent sac --env CartPole-v1": r"Discrete\(2\): sac takes a Box of real numbers",
    "train --agent sac --env Pendulum-v1 --network lstm": r"LSTM: has memory, and sac learns from",
    "train --agent recurrent_ppo": r"Nearest here: ppo with --network lstm",
    "train --agent vpg": r"Nearest here: reinforce",
    "train --env FrozenLake": r"FrozenLake.*Did you mean \"FrozenLake-v1\"\?",
    "train --env CartPole-v9": r"CartPole-v9.*v1",
    "train --env ALE/Pong-v5": r"pip install \"seqrl\[atari\]\", then --env ale_py:ALE/Pong",
    "train --env MiniGrid-Empty-5x5-v0": r"pip install \"seqrl\[envs\]\", then --env minigrid:Mini",
    "train --env popgym-RepeatFirstEasy-v0": r"pip install popgym, then --env popgym:popgym-Rep",
    "train --env nowhere:Env-v0": r"module 'nowhere' cannot be imported",
    "train --agent ppo --env CartPole-v1 --network lstmm": r"lstmm.*Did you mean \"lstm\"\?",
    "train --agent ppo --env CartPole-v1 --network nets:My": r"--network nets:My.*module:Class",
    "train --preset lunarlander": r"--preset lunarlander.*Did you mean \"lunar-lander\"\?",
    "train --agent ppo --env CartPole-v1 --network mynets.MyNet": r"named module:Class, as in myn",
    "train --agent ppo --env CartPole-v1 --network nets.py:My": r'Did you mean "nets:My"\?',
    "train --agent ppo --env CartPole-v1 --network torch.nn:linear": r'Did you mean "Linear"\?',
    "train --env-arg slippery=False": r"no argument 'slippery', it has .*Did you mean \"is_slippe",
    # flags of other libraries
    "train --out x": r"unknown flag --out. Here it is --run-dir FOLDER",
    "train --n-envs 4": r"unknown flag --n-envs. Here it is --num-envs N",
    "train --timesteps 10": r"Here it is --steps N",
    "train --tensorboard-log x": r"Here it is --logdir FOLDER",
    "train --agent ppo --ent_coef 0.1": r"Here it is --entropy-coef X",
    "train --cuda": r"Here it is --device cuda",
    "train --setps 10": r"unknown flag --setps. Did you mean \"--steps\"\?",
    "train 1000": r"unknown argument 1000",
    "train ppo CartPole-v1": r"unknown argument ppo. Each has a flag before it, as in --agent ppo",
    "train --agent PPO": r'unknown agent "?.?PPO.*Did you mean "ppo"',
    "train --env Pendulum-v1 --steps 9": r"a table takes Discrete actions; .* --agent ppo",
    "train --resume nowhere --steps 9": r"--steps with --resume.*docs/resume.md",
    "train --double yes": r"unknown argument yes. --double takes no value. Each has a flag before",
    "train --agent ppo --network gru lstm": r"unknown argument lstm. --network takes one value",
    "list --everything": r"unknown flag --everything. `seqrl list --help` shows those there are",
    # numbers
    "train --steps 1e5.5": r"--steps: '1e5.5', expected a whole number",
    "train --steps 0": r"--steps 0: expected a whole number of at least 1",
    "train --steps": r"--steps: expected one argument",
    "train --gamma 1.5": r"gamma 1.5: expected a number from 0 to 1",
    "train --learning-rate fast": r"fast.*(schedule|linear:)",
    "train --agent ppo --env CartPole-v1 --clip 0": r"clip 0.0: expected a number above 0",
    "train --env-arg is_slippery": r"'is_slippery', expected name=value",
    # what does not go together
    "train --env CartPole-v1 --preset none": r"a table needs countable states; give --bins 8",
    "train --env Pendulum-v1 --agent q-learning --network mlp": r"action values take Discrete",
    "train --agent ppo --env CartPole-v1 --bins 8": r"--bins: that is for tables",
    "train --network-arg hidden=3": r"--network-arg: q-learning learns a table here; name a --net",
    "train --stop-at 1": r"--stop-at: it looks at evaluations; add --eval-every 10000",
    "train --seeds 3 --seed 1": r"--seed with --seeds: seeds 0, 1, ... are trained; leave it out",
    "train --processes --env-arg vectorization=serial": r"--processes says it already; leave out",
    "train --resume nowhere": r"nowhere.*no config.toml there; name a run folder",
    "train --config no.toml": r"--config no.toml: No such file",
    "train --config run.yaml": r"--config run.yaml: .*expected TOML, lines such as steps = 100000",
    "evaluate nowhere": r"nowhere.*no config.toml there; name a run folder",
    "export nowhere --to x.pt2": r"nowhere.*no config.toml there; name a run folder",
    "compare --agents q-learning q-learning": r"--agents q-learning q-learning: one is named twice",
    "compare --seed 3": r"--seed: a comparison sets it for each run itself. Did you mean --seeds\?",
    "compare --runs nowhere*": r"nowhere",
    "search --trials 0": r"--trials 0: expected a whole number of at least 1",
    "search --search learning_rate=log:1": r"--search: 'log:1': expected log:LOW:HIGH, uniform:LOW",
    "search --search learning_rate=uniform:2:1": r"expected two finite ends, the lower one first",
    "search --search learning_rat=log:0.1:1": (
        r"--search learning_rat: no flag has this name. Did you mean \"learning_rate\"\?"
    ),
    "search --agent ppo --env CartPole-v1 --search hiden=choice:32,64": (
        r"--search hiden: no flag has .*unknown argument 'hiden'. Did you mean \"hidden\"\?"
    ),
    "search --search hidden=choice:8": r"--search hidden: no flag has this name. --network-arg: q-",
    "search --search lr=choice:0.5,1,0.50": r"learning_rate: 0.50 is the same as 0.5; leave one",
    "search --search gamma=uniform:0.9:2": r"gamma 2.0: expected a number from 0 to 1",
    "search --search steps=int:10:20": r"--search steps: it is the same in all trials; leave",
    "search --gamma 1 --search gamma=uniform:0:1": r"--gamma: it is searched for and typed; leave",
    "search --search gamma=uniform:0:1 --search gamma=choice:1": r"--search gamma: it is named",
    "search --seeds 3": r"--seeds: a search sets it .*Did you mean --seeds-per-trial\?",
    "search --metric reward": r"--metric: invalid choice: '?reward'? .*eval_mean_reward",
    "search --eval-episodes 0": r"--eval-episodes 0 leaves nothing for --metric eval_mean_reward",
    "search --agent pp0": r"unknown agent 'pp0'. Did you mean \"ppo\"\?",
    "train --search-trial x": r"--search-trial: `seqrl search` sets it, beside --resume",
    # sequences
    "train --agent seq2seq": r"'seq2seq'. Nearest here: imitate or ppo with --network seq2seq",
    "train --agent imitate --attention none": r"Here it is --network-arg attention=NAME",
    "train --agent imitate --path a.tsv": r"unknown flag --path. Here it is --env-arg path=FILE",
    "compare --agents imitate --networks gru lstm": r"several are compared by --grid network=NAME",
    "compare --agents imitate --grid attention=none,dot": r"Here it is --network-arg attention=NA",
    "train --agent imitate --env CartPole-v1": r"tells no right answers; give it a method answer",
    "train --agent imitate --network hred --env CartPole-v1": r"no 'source' in Box.*expected a Di",
    "train --agent imitate --env seqrl/Translate-v0 --network seq2seq --network-arg atention=dot": (
        r"unknown argument 'atention'. Did you mean \"attention\"\?"
    ),
    "train --agent imitate --env seqrl/Corpus-v0 --env-arg path=no.tsv": (
        r"'no.tsv': there is no such file"
    ),
    "train --agent imitate --env seqrl/Corpus-v0 --env-arg path=run.yaml": (
        r"path 'run.yaml', line 1: no tab; expected SOURCE<TAB>TARGET"
    ),
    "train --agent imitate --env seqrl/Corpus-v0 --env-arg reward=blue": (
        r"reward 'blue': expected one of exact, accuracy, bleu, edit, or module:function"
    ),
    "train --agent imitate --dataset nowhere": r"no such folder.*name a folder, or fetch it by",
    "train --agent ppo --from nowhere": r"^seqrl: --from nowhere: no config.toml there; name a run",
    "compare --agents nowhere:No": r"^seqrl: --agent nowhere:No: .*No module named 'nowhere'",
    "compare --network mlp gru": r"--network mlp gru: a run takes one; --grid network=mlp,gru comp",
    "train --agent ppo --from run.yaml": r"run.yaml: no config.toml there; name a run folder",
    "talk run.yaml": r"run.yaml: no config.toml there; name a run folder",
    "record": r"the following arguments are required: run",
    "evaluate nowhere --beams 5": r"unknown flag --beams. Did you mean \"--beam\"\?",
    "tarin": r"Did you mean \"?train",
    "resume nowhere": r"unknown command 'resume'. Here it is seqrl train --resume RUN",
    "--agent ppo": r"--agent: a command stands before it, as in seqrl train --agent ppo",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_the_next_step(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in gym.registry if name.startswith(("ALE/", "MiniGrid-"))]:
        monkeypatch.delitem(gym.registry, name)  # another test may have imported their packages
    (tmp_path / "run.yaml").write_text("steps: 100\n")
    status = command.main(shlex.split(words))
    told = capsys.readouterr().err
    assert status == 2
    assert told.startswith("seqrl: ") and told.count("\n") == 1
    assert re.search(MISTAKES[words], told)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_whole_numbers_may_be_powers_of_ten(tmp_path):
    more = "--lr 0.5 --eval-episodes 0 --quiet --no-pictures --run-dir".split()
    assert command.main(["train", "--steps", "1e3", *more, str(tmp_path / "run")]) == 0
    settings = (tmp_path / "run" / "config.toml").read_text()
    assert "steps = 1000\n" in settings and "learning_rate = 0.5" in settings


def test_an_agent_is_known_by_the_name_of_its_preset(tmp_path):
    more = "--env CartPole-v1 --steps 60 --eval-episodes 0 --quiet --no-pictures --run-dir".split()
    assert command.main(["train", "--agent", "dqn", *more, str(tmp_path / "run")]) == 0
    settings = (tmp_path / "run" / "config.toml").read_text()
    for line in ('agent = "q-learning"', 'network = "mlp"', "double = false", "n_step = 1"):
        assert f"{line}\n" in settings
    plain = ["--agent", "r2d2", "--preset", "none", *more, str(tmp_path / "plain")]
    assert command.main(["train", *plain]) == 0
    settings = (tmp_path / "plain" / "config.toml").read_text()
    assert 'network = "lstm"\n' in settings and "rescale = false\n" in settings


def test_the_list_shows_aliases_and_what_presets_reach(capsys):
    assert command.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "dqn            q-learning --network mlp --preset dqn" in shown
    assert "acrobot                  ppo on Acrobot-v1: greedy return -76" in shown
