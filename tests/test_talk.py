"""Talking to runs and showing replies: as the environment hears them, with memory over turns."""

import io
import sys
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import seqrl
from seqrl.agents import Imitation
from seqrl.agents.decoding.beam import Beam
from seqrl.core import UsageError
from seqrl.envs import make
from seqrl.envs.registry import replies_of, task
from seqrl.networks import HRED, Seq2Seq
from seqrl.networks.diagnosis.reading import reading
from seqrl.scripts import evaluate, talk, train
from seqrl.training.pictures import memory
from seqrl.training.pictures.replies import exchanges, shaded
from seqrl.training.runs.conversation import Conversation

SHORT = ["--num-envs", "4", "--steps", "120", "--quiet", "--eval-episodes", "0", "--no-pictures"]
DIALOGUE = task("seqrl/Dialogue-v0", turns=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk") / "run"
    words = ["--agent", "imitate", "--network", "seq2seq", "--env", "seqrl/Translate-v0"]
    assert train.main([*words, *SHORT, "--run-dir", str(folder)]) == 0
    return str(folder)


def agent_of(cls, rules, seed=2):
    """An agent whose replies are of many tokens and depend on all it has heard."""
    torch.manual_seed(seed)
    space = rules.observation_space
    agent = Imitation(cls(space, 8), rules.action_space, space, seed=seed, device="cpu")
    with torch.no_grad():
        for weight in agent.network.parameters():
            weight.mul_(3)
        agent.policy.module.layer.weight.normal_(0, 2)
        agent.policy.module.layer.bias[:3] = torch.tensor([-9.0, -9.0, 1.0])
    return agent


def conversation(agent, rules):
    return Conversation(
        SimpleNamespace(agent=agent, replies=rules, observation_space=rules.observation_space)
    )


@pytest.mark.parametrize("decode", [lambda agent: agent, lambda agent: Beam(agent, 3, longest=5)],
                         ids=["greedy", "beam"])  # fmt: skip
def test_a_dialogue_is_heard_as_the_environment_shows_it(decode):
    """What the user of an environment says, said in a conversation, gets the same replies."""
    agent = agent_of(HRED, DIALOGUE)
    envs = make("seqrl/Dialogue-v0", 1, turns=4)
    found = list(islice(exchanges(decode(agent), envs, np.random.SeedSequence(3)), 8))
    talk, spell = conversation(decode(agent), DIALOGUE), DIALOGUE.vocabulary.decode
    said = []
    for i, exchange in enumerate(found):
        if i % 4 == 0:
            talk.reset()
        said.append(talk.reply(spell(exchange.user)))
        assert said[-1] == spell(exchange.said)
    assert len(set(said)) > 2
    apart = []  # the same, without memory of the turns before
    for exchange in found:
        talk.reset()
        apart.append(talk.reply(spell(exchange.user)))
    assert apart != said


def test_a_translation_remembers_nothing():
    rules = task("seqrl/Translate-v0")
    talk = conversation(agent_of(Seq2Seq, rules), rules)
    first = talk.reply("abc")
    assert talk.reply("zyx") != first and talk.reply("abc") == first


def test_what_cannot_be_heard_changes_nothing():
    agent = agent_of(HRED, DIALOGUE)
    talk, undisturbed = conversation(agent, DIALOGUE), conversation(agent, DIALOGUE)
    for each in (talk, undisturbed):
        each.reply("filler0 slot0 value1")
    for text, said in [
        ("what slot9", "unknown word 'slot9'"),
        ("", "0 words; expected 1 to 6"),
        ("what " * 7, "7 words; expected 1 to 6"),
    ]:
        with pytest.raises(UsageError, match=said):
            talk.reply(text)
    assert talk.reply("what slot0") == undisturbed.reply("what slot0")


def test_a_policy_that_refuses_within_a_reply_changes_nothing():
    agent = agent_of(HRED, DIALOGUE)
    talk, undisturbed = conversation(agent, DIALOGUE), conversation(agent, DIALOGUE)
    for each in (talk, undisturbed):
        each.reply("filler0 slot0 value1")
    acts, act = [], agent.act

    def refusing(*args, **how):
        acts.append(args)
        if len(acts) > 1:
            raise UsageError("no more")
        return act(*args, **how)

    agent.act = refusing
    with pytest.raises(UsageError, match="no more"):
        talk.reply("what slot1")
    agent.act = act
    assert len(acts) == 2 and talk.reply("what slot0") == undisturbed.reply("what slot0")


def test_bytes_that_are_no_text_are_unknown(run, monkeypatch, capsys):
    lines = io.BytesIO(b"abc\n\xff\nabc\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines, encoding="utf-8"))
    assert talk.main([run]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and err.startswith("seqrl: text: unknown char '\ufffd'")
    assert err.count("\n") == 1


def test_lines_are_answered(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("abc\nAb\n\nabc\n"))
    assert talk.main([run, "--beam", "3"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and len(set(out.splitlines())) == 1
    assert err == "seqrl: text: unknown char 'A'; the vocabulary has 26.\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("abc\n" * 8))
    assert talk.main([run, "--temperature", "2"]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) > 1


def test_evaluate_decodes_and_shows(run, capsys, tmp_path):
    flags = [run, "--episodes", "3", "--beam", "2", "--length-penalty", "0.6", "--show"]
    assert evaluate.main([*flags, "--picture", str(tmp_path / "p.png")]) == 0
    out = capsys.readouterr().out
    assert out.count("\nright ") == out.count("\nsaid ") == 5 and "over 3 beam-2 episodes" in out
    source = out.splitlines()[0].split()[1]
    assert " ".join(source) in out and (tmp_path / "p.png").stat().st_size > 10_000
    assert evaluate.main([run, "--episodes", "3", "--top-p", "0.5", "--seed", "1"]) == 0
    first = capsys.readouterr().out
    assert "over 3 sampled episodes" in first
    assert evaluate.main([run, "--episodes", "3", "--top-p", "0.5", "--seed", "1"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--beam", "0"], "beam 0: expected a whole number of at least 1"),
        (["--length-penalty", "1"], "length_penalty: no effect without beam"),
        (["--beam", "2", "--top-k", "3"], "top_k: a beam draws no tokens"),
        (["--temperature", "hot"], "'hot', expected a number"),
    ],
    ids=["width", "penalty", "both", "text"],
)
def test_flags_that_make_no_sense_are_said(run, flags, said, capsys):
    assert evaluate.main([run, "--episodes", "2", *flags]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_who_takes_no_replies_is_told(tmp_path, capsys):
    words = ["--agent", "ppo", "--network", "mlp", "--env", "CartPole-v1", "--run-dir"]
    assert train.main([*words, str(tmp_path / "run"), *SHORT]) == 0
    for script, flags, said in [
        (talk, [], "talk: CartPole-v1 takes no replies; expected Translate, Dialogue or Corpus"),
        (evaluate, ["--beam", "5"], "beam on an observation without `previous`: expected a Dict"),
    ]:
        assert script.main([str(tmp_path / "run"), *flags]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1


def test_a_loaded_policy_is_decoded(run):
    policy = seqrl.load(run).decode(beam=3)
    assert policy.agent.longest == policy.replies.room == 9
    obs = {"source": policy.replies.hear("abc"), "previous": 1}
    first = policy.predict(obs)
    assert policy.action_space.contains(first)
    assert Conversation(policy).reply("abc") == Conversation(policy).reply("abc")
    assert seqrl.load(run).decode().agent.__class__ is Imitation


# what is shown


def test_shades_by_hand():
    weights = np.array([[0.0, 1.0], [0.55, 0.45]])
    assert list(shaded(weights, ["x", "<end>"], ["one", "b"])) == [
        "       one b",
        "x          @",
        "<end>  +   =",
    ]


@pytest.mark.parametrize("options", [{}, {"input_feeding": True}], ids=["at once", "fed"])
def test_where_the_first_reply_looks(options):
    """As attention weighs what was read, over a reply of three steps and three tokens."""
    space = task("seqrl/Translate-v0").observation_space
    torch.manual_seed(0)
    network = Seq2Seq(space, 8, **options).eval()
    source = torch.tensor([3, 4, 5, 0, 0, 0, 0, 0]).expand(5, 1, 8)
    obs = {"source": source, "previous": torch.tensor([[1], [7], [8], [1], [9]])}
    start = torch.tensor([[True], [False], [False], [False], [False]])
    weights = reading(network, obs, start)
    assert weights.shape == (3, 3)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    seen = []
    hook = network.attend.register_forward_hook(
        lambda part, args, out: seen.append(part.weights(*args)[0, 0, :3])
    )
    state = None
    with torch.no_grad():
        for t in range(3):
            at = {name: leaf[t : t + 1] for name, leaf in obs.items()}
            _, state = network(at, start[t : t + 1], state)
    hook.remove()
    np.testing.assert_allclose(weights, torch.stack(seen), atol=1e-6)
    assert reading(Seq2Seq(space, 8, attention="none"), obs, start) is None


def test_the_picture_of_attention_has_all_words():
    figure = memory.draw_reading(np.eye(2), ["zwei", "<end>"], ["two", "words"])
    panel = figure.axes[0]
    assert [x.get_text() for x in panel.get_xticklabels()] == ["two", "words"]
    assert [x.get_text() for x in panel.get_yticklabels()] == ["zwei", "<end>"]


def test_other_environments_take_no_replies():
    assert replies_of(make("CartPole-v1", 2)) is None
    assert replies_of(make("seqrl/Translate-v0", 2)).room == 9
    assert replies_of(make("seqrl/TMaze-v0", 2)) is None
