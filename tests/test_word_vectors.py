"""Word2Vec: contexts and chances by hand, the loss, files of vectors, and what is told of them."""

import itertools
import re

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

import seqrl
from seqrl.agents import Imitation, Optim
from seqrl.core import UsageError
from seqrl.core.types import Batch
from seqrl.envs import make, reference_scores
from seqrl.envs.registry import TASKS, task
from seqrl.envs.tasks.spoken import SPOKEN
from seqrl.networks import build, check_network
from seqrl.scripts.command import main
from seqrl.training import run
from seqrl.training.pictures.word_vectors import analogy, nearest, show_words
from seqrl.training.runs.config import complete
from seqrl.training.runs.word_vectors import as_text, read_vectors

CONTEXT = "seqrl/WordContext-v0"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def text(tmp_path):
    """Write a text; return its path."""

    def write(lines, name="text.txt"):
        path = tmp_path / name
        path.write_text(lines, encoding="utf-8")
        return str(path)

    return write


def shares(rules):
    """The chance of each pair of what is given and a word near it, as they are written."""
    table, word = rules.contexts, rules.vocabulary.word
    share = np.bincount(table.slot) / len(table.slot)
    return {
        (" ".join(word(x) for x in table.given[row] if x), word(near)): float(s)
        for row, near, s in zip(table.row, table.word, share, strict=True)
    }


# the task


def test_pairs_of_skip_gram_by_hand(text):
    """Next to each other a pair counts 1, two apart 1/2; a line ends a context."""
    rules = task(CONTEXT, path=text("a b c\nd\n"), window=2, sample=0)
    weight = {("a", "b"): 1, ("b", "c"): 1, ("a", "c"): 0.5}
    weight |= {(other, one): x for (one, other), x in weight.items()}
    expected = {pair: pytest.approx(x / 5, abs=1e-6) for pair, x in weight.items()}
    assert shares(rules) == expected
    assert rules.vocabulary.words == ("a", "b", "c", "d")


def test_contexts_of_cbow_by_hand(text):
    """As far as is drawn: b alone, or b and c, is what a stands with."""
    rules = task(CONTEXT, path=text("a b c\nd"), window=2, sample=0, sg=False)
    weight = {("b", "a"): 1, ("b c", "a"): 1, ("a c", "b"): 2, ("b", "c"): 1, ("a b", "c"): 1}
    assert shares(rules) == {pair: pytest.approx(x / 6, abs=1e-6) for pair, x in weight.items()}
    assert rules.observation_space["given"].shape == (4,)


def test_frequent_words_are_taken_less_often_by_the_rule_of_word2vec(text):
    """x is 4 of 8 words: (sqrt(0.5 / 0.1) + 1) * 0.1 / 0.5; others 1/8."""
    rules = task(CONTEXT, path=text("x a x b\nx c x d"), sample=0.1)
    taken = dict(zip(rules.vocabulary.words, rules.share_taken[3:], strict=True))
    assert taken["x"] == pytest.approx((5**0.5 + 1) / 5)
    assert taken["a"] == 1 == (task(CONTEXT, path=rules.path, sample=0).share_taken[3])


def test_rare_words_are_one_word(text):
    rules = task(CONTEXT, path=text("a b a b c"), least=2)
    assert rules.vocabulary.words == ("<unknown>", "a", "b")
    assert rules.text.tokens.tolist() == [4, 5, 4, 5, 3]


@pytest.mark.parametrize("options", [{}, {"sg": False, "window": 1}, {"ns_exponent": 0}])
def test_the_optimum_by_adding_up_every_case(text, options):
    rules = task(CONTEXT, path=text("a b\na c\na b c"), negative=2, sample=0, **options)
    near = shares(rules)
    given = {one for one, _ in near}
    count = np.bincount(rules.text.tokens)[3:] ** float(options.get("ns_exponent", 0.75))
    noise = dict(zip("abc", count / count.sum(), strict=True))
    best = 0.0
    for one, word in itertools.product(given, "abc"):
        there = near.get((one, word), 0.0)
        other = noise[word] * sum(x for (first, _), x in near.items() if first == one)
        best += max(there / 3, other * 2 / 3)
    assert rules.scores()["optimum"] == pytest.approx(best, abs=1e-5)


def test_what_is_drawn_has_the_chances_told(text):
    n, options = 60_000, {"path": text("a b\na c\na b c"), "negative": 2, "sample": 0}
    envs = make(CONTEXT, num_envs=n, **options)
    obs = envs.reset(np.random.SeedSequence(0))
    near, _ = envs.answer()
    rules, word = task(CONTEXT, **options), "___abc"
    found = shares(rules)
    assert abs(near.mean() - 1 / 3) < 0.01
    seen = obs["given"][:, :1].repeat(3, 1)[near == 1], obs["words"][near == 1]
    for (one, other), share in found.items():
        hits = (seen[0] == word.index(one)) & (seen[1] == word.index(other))
        assert abs(hits.mean() - share) < 0.015
    noise = np.bincount(obs["words"][near == 0], minlength=6)[3:] / (near == 0).sum()
    expected = np.array([3, 2, 2]) ** 0.75
    assert abs(noise - expected / expected.sum()).max() < 0.015


def test_the_generated_text_is_what_it_says():
    rules = task(CONTEXT)
    words, kinds = rules.vocabulary.words, [re.sub(r"\d|.$", "", x) for x in rules.vocabulary.words]
    assert len(words) == 108 and len(rules.asked) == 132
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **{"adjective": 36, "noun": 24, "verb": 36},
        **{"article-f": 3, "article-m": 3, "pronoun-f": 3, "pronoun-m": 3},
    }
    first = [rules.vocabulary.word(x) for x in rules.text.tokens[:5]]
    kind, gender = re.fullmatch(r"noun(\d+)([mf])", first[2]).groups()
    assert first[0].startswith(f"article-{gender}") and first[4].startswith(f"pronoun-{gender}")
    assert first[1][:-1] == f"adjective{kind}" and first[3][:-1] == f"verb{kind}"
    assert 0.9 < reference_scores(CONTEXT)["optimum"] < 0.92


# the sentences of another task


def lines_of(rules):
    """The sentences of a task, as words."""
    word, text = rules.vocabulary.word, rules.text
    ends = np.flatnonzero(np.diff(text.line)) + 1
    return [[word(token) for token in row] for row in np.split(text.tokens, ends)]


def test_sentences_of_a_translation_are_its_sources_and_right_replies():
    options = {"task": "seqrl/Translate-v0", "task_args": {"letters": 4, "shortest": 2}}
    rules = task(CONTEXT, **options)
    found, again = lines_of(rules), lines_of(task(CONTEXT, **options))
    assert found == again and rules.vocabulary.words == (*"abcd",)
    assert 100_000 <= sum(map(len, found)) < 110_000 and {len(x) for x in found} == {*range(2, 9)}
    assert [row[::-1] for row in found[:256]] == found[256:512]  # those of 256 episodes at a time


@pytest.mark.parametrize(
    ("env_id", "options", "pattern"),
    [
        ("Dialogue", {}, r"filler\d .*|what slot\d|chat .*|ok|slot\d is .*|(reply\d.\d ?){3}"),
        ("Facts", {}, r"\w+ (went-to|took) \S+|where-is \w+"),
        ("NextToken", {"length": 9}, r"(\d ){9}\d"),
        ("Trees", {"depth": 1}, r"[-+*] \d \d"),
    ],
)
def test_sentences_of_every_task_that_has_some(env_id, options, pattern):
    rules = task(CONTEXT, task=f"seqrl/{env_id}-v0", task_args=options)
    for words in lines_of(rules)[:2000]:
        assert re.fullmatch(pattern, " ".join(words))


def test_sentences_of_a_corpus_are_those_of_its_part():
    rows = task("seqrl/Corpus-v0").rows_of("train")
    said = {text for row in rows for turn in row for text in turn.texts}
    assert {" ".join(words) for words in lines_of(task(CONTEXT, task="seqrl/Corpus-v0"))} == said


def test_the_file_of_a_task_is_kept_by_its_whole_path(text, tmp_path, monkeypatch):
    text(PAIRS, "pairs.tsv")
    monkeypatch.chdir(tmp_path)
    args = {"task": "seqrl/Corpus-v0", "task_args": {"path": "pairs.tsv"}}
    config = complete({"agent": "imitate", "network": "word2vec", "env": CONTEXT, "env_args": args})
    assert config["env_args"]["task_args"] == {"path": str(tmp_path / "pairs.tsv")}
    assert args["task_args"] == {"path": "pairs.tsv"}


def test_all_tasks_with_sentences_are_named():
    assert {env_id for env_id, rules in TASKS.items() if hasattr(rules, "sentences")} == {*SPOKEN}


def test_a_run_goes_on_with_the_same_sentences_only(text):
    one, other = text(PAIRS, "one.tsv"), text(PAIRS + "a\tx\n", "other.tsv")
    told = {
        repr(task(CONTEXT, task="seqrl/Corpus-v0", task_args={"path": path, **more}))
        for path, more in [(one, {}), (other, {}), (one, {"part": "all"})]
    }
    assert len(told) == 3
    own = repr(task(CONTEXT))
    assert "task" not in own  # runs of before go on


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "seqrl/Translat-v0"}, "task 'seqrl/Translat-v0': expected one of seqrl/Corpus"),
        ({"task": "CartPole-v1"}, "task 'CartPole-v1': expected one of seqrl/Corpus"),
        ({"task": ["seqrl/Facts-v0"]}, "expected one of seqrl/Corpus"),
        ({"task": "seqrl/Translate-v0", "path": "x"}, "of one of the two; leave one out"),
        ({"task": "seqrl/Translate-v0", "task_args": {"rul": 1}}, "seqrl/Translate-v0 has no opt"),
        ({"task": "seqrl/Translate-v0", "task_args": {"rule": "x"}}, "rule 'x': expected one of"),
        ({"task": "seqrl/Translate-v0", "task_args": "rule"}, "task_args 'rule': expected a dict"),
        ({"task": "seqrl/Translate-v0", "task_args": {1: 2}}, "task_args {1: 2}: expected a dict"),
        ({"task_args": {"rule": "sort"}}, "task_args: no effect without task"),
        ({"task": "seqrl/Facts-v0", "least": 2}, "least: seqrl/Facts-v0 has words; leave it out"),
        (
            {"task": "seqrl/Translate-v0", "task_args": {"longest": 1, "shortest": 1}},
            "task 'seqrl/Translate-v0': no line of two words",
        ),
    ],
)
def test_what_is_no_task_of_sentences(refused, options, message):
    refused(re.escape(message), CONTEXT, **options)


@pytest.mark.parametrize(
    ("env", "network"),
    [("Translate", "seq2seq"), ("NextToken", "gru"), ("Facts", "memory-network")],
)
def test_from_a_task_to_an_agent_on_its_tokens(tmp_path, env, network):
    env_id = f"seqrl/{env}-v0"
    config = {"agent": "imitate", "num_envs": 8, "steps": 64, "eval_episodes": 0}
    words = {"env": CONTEXT, "env_args": {"task": env_id}, "network": "word2vec"}
    words["network_args"] = {"size": 4}
    run({**config, **words, "agent_args": {"batch_size": 8}}, tmp_path / "words")
    vectors = tmp_path / "words.vec"
    assert main(["export", str(tmp_path / "words"), "--to", str(vectors)]) == 0
    args = {"network_args": {"embedding": str(vectors), "size": 4}, "steps": 8}
    then = {**config, "env": env_id, "network": network, **args}
    run({**then, "agent_args": {"learning_rate": 0.0, "batch_size": 2}}, tmp_path / "then")
    learned = seqrl.load(tmp_path / "words").agent.network.table.weight[3:]
    tables = [
        layer.weight
        for layer in seqrl.load(tmp_path / "then").agent.network.modules()
        if isinstance(layer, torch.nn.Embedding)
    ]
    assert tables and all(torch.equal(learned, table[-len(learned) :]) for table in tables)


# what is wrong with a text


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ("a\nb\n", {}, "no line of two words; expected sentences"),
        ("a <end> b", {}, "'<end>' is a token of its own"),
        ("a b", {"unit": "byte"}, "unit 'byte': expected"),
        ("a b", {"sg": 2}, "sg 2: expected True or False"),
        ("a b", {"window": 0}, "window 0: expected a whole number"),
        ("a b", {"negative": 0}, "negative 0: expected a whole number"),
        ("a b", {"sample": -1}, "sample -1: expected"),
        ("a b", {"ns_exponent": float("nan")}, "ns_exponent nan: expected a finite number"),
        (None, {"least": 2}, "least: the generated text has words; leave it out"),
        (None, {"path": "nowhere"}, "path 'nowhere': there is no such file"),
    ],
)
def test_bad_options(text, refused, lines, options, message):
    path = {} if lines is None else {"path": text(lines)}
    refused(re.escape(message), CONTEXT, **path, **options)


def test_what_is_no_question(text, refused):
    path = text(": capitals\nParis France\n", "questions.txt")
    said = "line 2: 2 words; expected four, a b c d"
    refused(said, CONTEXT, path=text("a b"), questions=path)


# the network


def test_how_well_words_fit_by_hand():
    space = task(CONTEXT, sg=False, window=1, negative=1).observation_space
    network = build("word2vec", space, size=2)
    assert check_network(network, space) == 2
    with torch.no_grad():
        network.table.weight[3:5] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        network.context.weight[5:7] = torch.tensor([[1.0, 0.0], [0.5, -1.0]])
    obs = {"given": torch.tensor([[3, 4], [4, 0]]), "words": torch.tensor([[5, 6], [6, 5]])}
    assert network.encode(obs).tolist() == [[2.0, -2.0], [-2.5, 3.0]]  # of (2, 3) and (3, 4)
    with pytest.raises(UsageError, match='network Word2Vec: no "given" and "words" in Box'):
        build("word2vec", make("CartPole-v1").single_observation_space)


def imitation(options, **numbers):
    envs = make(CONTEXT, num_envs=8, **options)
    spaces = envs.single_action_space, envs.single_observation_space
    network = build("word2vec", spaces[1], size=3, seed=0)
    return envs, Imitation(network, *spaces, device="cpu", seed=0, **numbers)


def test_imitation_is_negative_sampling():
    """-log sigmoid(v . u) of words near, -log sigmoid(-v . u) of noise, where the bias is 0."""
    envs, agent = imitation({"negative": 2})
    obs = envs.reset(np.random.SeedSequence(0))
    near, _ = envs.answer()
    rows = {name: torch.as_tensor(x)[None] for name, x in obs.items()}
    known = torch.ones(1, 8, dtype=torch.bool)
    batch = Batch(rows, known, None, None, None, None, None, known, answer=(near[None], known))
    batch = batch._replace(answer=(torch.as_tensor(near)[None], known))
    loss = agent.loss(batch).total
    loss.backward()
    network, (v, u) = agent.network, (agent.network.table, agent.network.context)
    expected, slope = 0.0, torch.zeros_like(v.weight)
    for i, k in itertools.product(range(8), range(3)):
        word, other = obs["given"][i, 0], obs["words"][i, k]
        fit = float(v.weight[word].detach() @ u.weight[other].detach())
        sign = 1 if near[i, k] else -1
        expected += np.log1p(np.exp(-sign * fit))
        slope[word] -= sign / (1 + np.exp(sign * fit)) * u.weight[other].detach()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(v.weight.grad, slope)
    assert network.same.grad is None and agent.policy.module.layer.weight is network.same


TOPICS = ["king queen crown castle throne".split(), "cod trout herring salmon eel".split()]


def topics(rng):
    """Lines of three words of one topic each."""
    rows = [rng.choice(TOPICS[rng.integers(2)], 3) for _ in range(500)]
    return "\n".join(" ".join(row) for row in rows)


@pytest.mark.parametrize("sg", [True, False])
def test_words_that_stand_together_become_neighbours(text, sg):
    path = text(topics(np.random.default_rng(0)))
    options = {"path": path, "sg": sg, "sample": 0, "window": 2}
    envs = make(CONTEXT, num_envs=64, **options)
    spaces = envs.single_action_space, envs.single_observation_space
    network = build("word2vec", spaces[1], size=8, seed=0)
    agent = Imitation(network, *spaces, optim=Optim(0.05, 1.0), batch_size=64, seed=0)
    seqrl.train(agent, envs, steps=20_000, seed=0)
    vectors, words = network.table.weight.detach().numpy()[3:], task(CONTEXT, **options).vocabulary
    for i, word in enumerate(words.words):
        near = {words.words[j] for j in nearest(vectors, vectors[i], (i,), 4)}
        assert any({word, *near} == set(topic) for topic in TOPICS)
    assert torch.equal(network.same, torch.eye(6))


# what vectors say, and files of them


def test_analogies_and_neighbours_by_hand():
    names = "man woman king queen apple".split()
    vectors = np.float32([[1, 0, 0], [1, 1, 0], [1, 0, 2], [1, 1, 2], [-1, 0, 0]])
    assert nearest(vectors, vectors[3], (3,), 2).tolist() == [2, 1]
    assert analogy(vectors, 0, 1, 2) == 3
    asked = [("man", "woman", "king", "queen"), ("man", "woman", "king", "apple")]
    lines = "\n".join(show_words(names, vectors, [0], [*asked, ("man", "pear", "king", "apple")]))
    assert "  man: woman 0.71, king 0.45" in lines
    assert "analogies: 1 of 2 right; 1 more have words that are not known" in lines
    assert "man : woman = king : queen\n" in lines and "queen  (not apple)" in lines


def test_vectors_come_back_from_a_file_to_the_bit(text):
    vectors = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    words = ["a", " ", "ein Wort"]  # characters may be spaces
    found = read_vectors(text(as_text(words, vectors)))
    assert list(found) == words and np.array_equal(np.stack([*found.values()]), vectors)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("king 0.5 0.25\n", "line 1: 'king 0.5 0.25'; expected the text format of word2vec"),
        ("2 2\na 1 2\n", ": 1 words, line 1 says 2"),
        ("1 2\na 1\n", "line 2: 'a 1'; expected a word and 2 numbers"),
        ("1 2\na 1 x\n", "line 2: 'a 1 x'; expected a word and 2 numbers"),
        ("2 2\na 1 2\na 3 4\n", "line 3: 'a' is there twice; expected each word once"),
        ("1 2\na 1 nan\n", "line 2: 'a 1 nan'; expected a word and 2 numbers"),
    ],
)
def test_files_that_are_none(text, lines, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        read_vectors(text(lines))


PAIRS = "a b\tx y\nb a\ty x\na a\tx x\nb b\ty y\n"
NEXT = {"agent": "imitate", "network": "seq2seq", "env": "seqrl/Corpus-v0", "steps": 16}
NEXT |= {"num_envs": 2, "eval_episodes": 0, "agent_args": {"batch_size": 2}}


@pytest.fixture
def learned(text, tmp_path):
    """A run that learned vectors of four words, and those in a file."""
    path = text(PAIRS, "pairs.tsv")
    config = {"agent": "imitate", "network": "word2vec", "env": CONTEXT, "num_envs": 8}
    config |= {"env_args": {"path": path}, "network_args": {"size": 5}, "steps": 640}
    questions = text(": letters\na b x y\n", "questions.txt")
    config["env_args"]["questions"] = questions
    folder = tmp_path / "words"
    run({**config, "agent_args": {"batch_size": 8}, "eval_episodes": 2, "pictures": False}, folder)
    vectors = tmp_path / "words.vec"
    assert main(["export", str(folder), "--to", str(vectors)]) == 0
    return folder, path, str(vectors)


def test_from_a_text_to_a_translator_that_begins_with_its_words(learned, tmp_path):
    folder, path, vectors = learned
    table = seqrl.load(folder).agent.network.table.weight
    args = {"env_args": {"path": path, "part": "all"}}
    args["network_args"] = {"embedding": vectors, "size": 5, "hidden_size": 8}
    first = {}

    def look(loop):
        first.setdefault("table", loop.agent.network.table.weight.detach().clone())

    def halt(loop):
        if loop.steps >= 6:
            loop.stop.set()

    look.every = halt.every = 2
    whole = run({**NEXT, **args}, tmp_path / "whole", callbacks=[look])
    assert torch.equal(first["table"], table)  # nothing was learned yet
    stopped = run({**NEXT, **args}, tmp_path / "stopped", callbacks=[halt])
    assert stopped.interrupted
    (tmp_path / "words.vec").unlink()  # a run goes on without the file, and is loaded
    again = run({}, tmp_path / "stopped", resume=True)
    assert again.contents["digest"] == whole.contents["digest"]
    assert seqrl.load(tmp_path / "whole").agent.network.table.weight.shape == (7, 5)


def test_neighbours_are_shown_and_the_projector_is_filled(learned, capsys):
    folder, *_ = learned
    assert main(["evaluate", str(folder), "--episodes", "2", "--show"]) == 0
    shown = capsys.readouterr().out
    assert "word: its neighbours" in shown and re.search("^  a: ", shown, re.MULTILINE)
    assert re.search(r"analogies: [01] of 1 right", shown)
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (entry,) = config.embeddings
    words = (folder / entry.metadata_path).read_text().split()
    vectors = np.loadtxt(folder / entry.tensor_path, delimiter="\t")
    assert words == ["a", "b", "x", "y"]
    table = seqrl.load(folder).agent.network.table.weight.detach().numpy()
    np.testing.assert_allclose(vectors, table[3:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_args": {"size": 4}}, "5 numbers a word, the network's has 4; add"),
        ({"network": "mlp"}, "the network has none of 7 tokens; expected a network that embeds"),
        ({"env": "seqrl/Translate-v0"}, "22 of 29 words of seqrl/Translate-v0 have no vector: 'c'"),
        ({"env": "CartPole-v1", "network": "mlp"}, "CartPole-v1 names no words; expected a task"),
        ({"network_args": {"embedding": "nowhere"}}, "embedding 'nowhere': there is no such file"),
    ],
)
def test_vectors_that_do_not_fit(text, tmp_path, change, message):
    path, vectors = text(PAIRS), text(as_text("abxy", np.ones((4, 5))), "words.vec")
    config = {**NEXT, "env_args": {"path": path}, "network_args": {"embedding": vectors}}
    changed = {**config, **change}
    changed["network_args"] = {**config["network_args"], **changed["network_args"]}
    if changed["env"] != NEXT["env"]:
        changed["env_args"] = {}
    with pytest.raises(UsageError, match=re.escape(message)) as no:
        run(changed, tmp_path / "refused")
    assert "\n" not in str(no.value) and not (tmp_path / "refused").exists()
