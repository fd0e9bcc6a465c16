"""Language models of transformers: what they read, their own tokens, folders, runs, messages."""

import json
import re
import shutil
import sys

import pytest
import torch
from gymnasium import spaces

import seqrl
from seqrl.core import UsageError
from seqrl.core.tokens import BEGIN, END
from seqrl.networks import CausalLM, build
from seqrl.scripts import evaluate, train
from seqrl.training.runs import folder as runs
from tests.tiny_models import tiny

WORDS = 20  # of the models
SPACE = spaces.Dict(
    source=spaces.MultiDiscrete([3 + WORDS] * 4), previous=spaces.Discrete(3 + WORDS)
)
forms = pytest.mark.parametrize("form", ["gpt2", "llama"])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def episode(*steps):
    """Observations [T, 1] of (source, previous), with one start, at the first step."""
    sources = [[*source, 0, 0, 0, 0][:4] for source, _ in steps]
    obs = {"source": torch.tensor(sources)[:, None]}
    obs["previous"] = torch.tensor([[previous] for _, previous in steps])
    start = torch.zeros(len(steps), 1, dtype=torch.bool)
    start[0] = True
    return obs, start


@torch.no_grad()
def logits(network, obs, start):
    """The logits [T, words] of the model's own words, by the weights that are shared."""
    out, _ = network(obs, start)
    return (out @ network.output_weight().T)[:, 0, 3:]


TWO_TURNS = (([5, 9], BEGIN), ([5, 9], 7), ([3], BEGIN), ([3], 8), ([3], 11))
# the same as one text of the model's own tokens: BEGIN is its 0, our 3 its 0
TEXT = torch.tensor([[2, 6, 0, 4, 0, 0, 5, 8]])
SPOKEN = [2, 3, 5, 6, 7]  # where the five steps are in it


@forms
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@torch.no_grad()
def test_own_tokens_are_those_of_the_model(form, tied):
    model = tiny(form, words=WORDS, tie_word_embeddings=tied).eval()
    network = CausalLM(SPACE, model, own_tokens=True).eval()
    found = logits(network, *episode(*TWO_TURNS))
    torch.testing.assert_close(found, model(input_ids=TEXT).logits[0, SPOKEN])
    shared = network.output_weight() is network.body.get_input_embeddings().weight
    assert shared is tied


@forms
@torch.no_grad()
def test_only_what_the_window_holds_is_seen(form):
    """With positions that count on and one layer, it is the model on the newest tokens alone."""
    model = tiny(form, words=WORDS, num_hidden_layers=1).eval()
    network = CausalLM(SPACE, model, own_tokens=True, window=5).eval()
    found = logits(network, *episode(*TWO_TURNS))[-1]
    newest, places = TEXT[:, -5:], torch.arange(3, 8)[None]
    right = model(input_ids=newest, position_ids=places).logits[0, -1]
    torch.testing.assert_close(found, right)
    whole = logits(CausalLM(SPACE, model, own_tokens=True).eval(), *episode(*TWO_TURNS))[-1]
    assert (found - whole).abs().max() > 1e-4


@torch.no_grad()
def test_an_earlier_turn_is_remembered_and_an_earlier_episode_is_not():
    network = CausalLM(SPACE, tiny("llama")).eval()
    outs = []
    for first in (5, 6):
        for again in (False, True):
            obs, start = episode(([first], BEGIN), ([4], BEGIN))
            start[1] = again
            outs.append(network(obs, start)[0][1])
    remembered, forgotten, others, also_forgotten = outs
    assert (remembered - others).abs().max() > 1e-4
    assert torch.equal(forgotten, also_forgotten)


@torch.no_grad()
def test_dropout_is_off_in_learning():
    network = CausalLM(SPACE, tiny("gpt2"))
    obs, start = episode(*TWO_TURNS)
    before = network.eval()(obs, start)[0]
    assert torch.equal(network.train()(obs, start)[0], before) and network.training


def test_a_model_that_is_given_is_copied():
    model = tiny("llama")
    before = {name: x.clone() for name, x in model.state_dict().items()}
    network = CausalLM(SPACE, model)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_two_vocabularies_have_an_embedding_each():
    space = spaces.Dict(source=spaces.MultiDiscrete([9] * 4), previous=spaces.Discrete(6))
    network = CausalLM(space, tiny("llama"))
    assert network.body.get_input_embeddings().weight.shape[0] == 15
    obs, start = episode(([5], BEGIN), ([5], 5))
    with torch.no_grad():
        before = network(obs, start)[0]
        network.body.get_input_embeddings().weight[5] += 1  # of sources
        after = network(obs, start)[0]
        network.body.get_input_embeddings().weight[14] += 1  # the last of `previous`
        last = network(obs, start)[0]
    assert not torch.equal(before[0], after[0])
    assert torch.equal(after[0], last[0]) and not torch.equal(after[1], last[1])


# folders and runs


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The current folder, with a model in it."""
    monkeypatch.chdir(tmp_path)
    tiny("llama").save_pretrained("model")
    return tmp_path


def trained(*words, agent="imitate"):
    flags = "--env seqrl/Translate-v0 --env-arg shortest=1 --env-arg longest=2 --num-envs 8 "
    flags += "--network causal-lm --network-arg model=model --network-arg window=8 --quiet "
    flags += "--eval-episodes 4 --steps 400 --checkpoint-every 100"
    return train.main(["--agent", agent, *flags.split(), *words])


def result(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return summary["digest"], summary["eval_mean_reward"]


def test_a_folder_is_the_model(home, capfd):
    torch.manual_seed(5)
    network = build("causal-lm", SPACE, seed=0, model="model", own_tokens=True)
    assert torch.equal(logits(network, *episode(*TWO_TURNS)), logits(
        CausalLM(SPACE, tiny("llama"), own_tokens=True), *episode(*TWO_TURNS)
    ))  # fmt: skip
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("agent", ["imitate", "reinforce", "ppo"])
def test_a_run_goes_on_from_its_checkpoint_to_the_same_end(home, agent):
    assert trained("--run-dir", "whole", agent=agent) == 0
    shutil.copytree("whole", "cut")
    (home / "cut/summary.json").unlink()
    for path in runs.checkpoints(home / "cut")[1:]:
        path.unlink()
    assert train.main(["--resume", "cut", "--quiet"]) == 0
    assert result(home / "cut") == result(home / "whole")


def test_a_run_holds_its_weights(home, capsys):
    """The folder says of what form the model is; its weights are those of the run."""
    assert trained("--run-dir", "run") == 0
    assert evaluate.main(["run", "--episodes", "20"]) == 0
    told = capsys.readouterr().out
    shutil.rmtree("model")
    tiny("llama", seed=9).save_pretrained("model")
    assert evaluate.main(["run", "--episodes", "20"]) == 0
    assert capsys.readouterr().out == told
    policy = seqrl.load("run")
    said = policy.predict({"source": [4, 5], "previous": 1})
    assert policy.action_space.contains(said)
    shutil.rmtree("model")
    assert evaluate.main(["run", "--episodes", "4"]) == 2
    assert "model': expected the folder of a model" in capsys.readouterr().err


def test_a_model_is_found_from_any_folder(home, monkeypatch):
    assert trained("--run-dir", "run") == 0
    assert runs.read_config(home / "run")["network_args"]["model"] == str(home / "model")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert evaluate.main(["../run", "--episodes", "2"]) == 0


# what is refused, in a line


def refused(said, make):
    with pytest.raises(UsageError, match=said) as found:
        make()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("model", [None, "gpt2", 3], ids=["none", "name", "number"])
def test_only_folders_are_models(model, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    expected = "expected the folder of a model that save_pretrained has written; nothing is down"
    refused(f"model {model!r}: {expected}", lambda: CausalLM(SPACE, model))


def test_a_folder_without_weights(home):
    (home / "model/model.safetensors").unlink()
    refused("model 'model': .*model.safetensors", lambda: CausalLM(SPACE, "model"))


def test_weights_that_are_not_all_there(home):
    config = home / "model/config.json"
    config.write_text(re.sub(r'("num_hidden_layers"): 2', r"\1: 3", config.read_text()))
    said = "model 'model': weights are not there, such as model.layers.2"
    refused(said, lambda: CausalLM(SPACE, "model"))


def test_what_has_no_such_cache():
    transformers = pytest.importorskip("transformers")
    model = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, state_size=2)
    )
    said = "CausalLM: MambaModel failed on one token: .*; expected a decoder with a cache of keys"
    refused(said, lambda: CausalLM(SPACE, model))


def test_numbers_that_do_not_fit():
    model = tiny("llama", words=WORDS)
    refused(
        "window 4: expected more than a source, 4 tokens", lambda: CausalLM(SPACE, model, window=4)
    )
    more = spaces.Dict(source=spaces.MultiDiscrete([24] * 4), previous=spaces.Discrete(24))
    said = "own_tokens: the task has 24 tokens; the model has 20, and 3 are not the model's"
    refused(said, lambda: CausalLM(more, model, own_tokens=True))
    other = spaces.Dict(source=spaces.MultiDiscrete([9] * 4), previous=spaces.Discrete(6))
    refused("expected one vocabulary", lambda: CausalLM(other, model, own_tokens=True))
    with pytest.raises(UsageError, match=r"unknown argument 'modle'.*Did you mean"):
        build("causal-lm", SPACE, modle="x")


def test_an_episode_longer_than_the_positions_of_the_model():
    network = CausalLM(SPACE, tiny("gpt2", n_positions=6))
    network(*episode(*TWO_TURNS[:3]))  # 6 tokens
    said = "network CausalLM: an episode of more than 6 tokens; expected shorter episodes"
    refused(said, lambda: network(*episode(*TWO_TURNS[:4])))


def test_sources_that_cannot_be_read():
    network = CausalLM(SPACE, tiny("llama"))
    for source, said in (
        ([0, 3], "padding"),
        ([99], "token 99 in a source"),
        ([], "an empty source"),
    ):
        refused(said, lambda source=source: network(*episode((source, BEGIN))))
    network(*episode(([3], BEGIN), ([0, 3], END)))  # nothing is read there


def test_without_transformers_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(
        r'CausalLM: it takes transformers: pip install "seqrl\[hf\]"', lambda: CausalLM(SPACE, "x")
    )
