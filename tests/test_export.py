"""Exported policies: what is in the file acts as the agent does, or no file is written."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import seqrl
from seqrl.agents import PPO, SAC, DeepQ, QLearning, Reinforce
from seqrl.agents.export import Exported, to_npz, to_pt2
from seqrl.agents.npz_policy import read_policy
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.core.errors import RunError, UsageError
from seqrl.envs.batches import clipper
from seqrl.envs.observations import observations
from seqrl.networks import build
from seqrl.networks.normalized import Normalized, normalized_space
from seqrl.scripts import export as script
from seqrl.scripts import train
from seqrl.training.runs import export

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
MASKED = spaces.Dict({"action_mask": spaces.MultiBinary(5), "seen": VECTOR})
PARTS = spaces.Dict(
    {
        "a": spaces.Tuple([spaces.Discrete(3, start=2), spaces.Box(0, 9, (2,), np.float64)]),
        "action_mask": spaces.MultiBinary(4),
        "b": spaces.MultiDiscrete([2, 3], start=[1, 0]),
    }
)
TABLES = {
    "discrete": (spaces.Discrete(9, start=3), {}),
    "counted": (spaces.Box(-1, 2, (2, 2), np.int64), {}),
    "binary": (spaces.MultiBinary(4), {}),
    "bins": (VECTOR, {"bins": 4}),
    "tiles": (VECTOR, {"bins": 3, "tiles": 4, "ranges": {1: (-0.5, 0.2)}}),
    "unbounded": (spaces.Box(-np.inf, np.inf, (2,)), {"bins": 5}),
    "parts": (PARTS, {"bins": 3, "tiles": 2}),
    "masked": (spaces.Dict({"action_mask": spaces.MultiBinary(4), "s": spaces.Discrete(7)}), {}),
}
UNEVEN = spaces.Box(np.array([-1, 2, -np.inf]), np.array([1, 2.5, np.inf]), dtype=np.float64)
PLAIN = {  # agent, observation space, action space, options
    "values": (DeepQ, VECTOR, spaces.Discrete(3, start=4), {}),
    "dueling": (DeepQ, spaces.Discrete(6, start=1), spaces.Discrete(3), {"dueling": True}),
    "policy": (Reinforce, spaces.MultiDiscrete([3, 2]), spaces.Discrete(4), {"temperature": 0.5}),
    "shared": (PPO, spaces.Box(0, 255, (4,), np.uint8), spaces.Discrete(4), {"share": True}),
    "several": (PPO, VECTOR, spaces.MultiDiscrete([2, 3], start=[1, 5]), {}),
    "masked": (PPO, MASKED, spaces.MultiDiscrete([2, 3]), {}),
    "binary": (PPO, VECTOR, spaces.MultiBinary((2, 2)), {}),
    "box": (Reinforce, VECTOR, UNEVEN, {"temperature": 2.0}),
    "squashed": (SAC, VECTOR, spaces.Box(np.float32([-2, 0, 1]), np.float32([2, 5, np.inf])), {}),
    "box 32": (PPO, VECTOR, spaces.Box(-2, 2, (2, 1)), {"share": True}),
}


def batch(space, n):
    space.seed(1)
    return observations(space).stack([space.sample() for _ in range(n)])


def with_random_weights(agent):
    """An agent whose numbers differ enough for actions to."""
    with torch.no_grad():
        for weight in agent.network.parameters():
            weight += torch.randn_like(weight)
        layer = next(iter(agent.parts.values())).module.layer
        layer.weight[:], layer.bias[:] = (
            torch.randn_like(layer.weight),
            torch.randn(len(layer.bias)),
        )
    return agent


def check_same(agent, made, space, action_space, turns=3):
    obs, start, state = batch(space, made.n * turns), np.ones(made.n, bool), None
    clip, taken = clipper(action_space), []
    for i in range(turns):
        rows = slice(i * made.n, (i + 1) * made.n)
        seen = seqrl.core.tree.map(lambda leaf, rows=rows: leaf[rows], obs)
        decision = agent.act(seen, start, state, explore=False)
        found, start, state = made.play(seen, start), np.zeros(made.n, bool), decision.state
        assert found.dtype == clip(decision.action).dtype
        np.testing.assert_allclose(found, clip(decision.action), rtol=1e-4, atol=1e-6)
        taken += found.tolist()
    assert len({str(action) for action in taken}) > 1
    return taken


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_numpy_is_the_table(name):
    space, options = TABLES[name]
    actions = spaces.Discrete(4, start=7)
    agent = QLearning(TableIndex(space, **options), actions)
    agent.q[:] = np.random.default_rng(0).normal(size=agent.q.shape)
    check_same(agent, to_npz(agent, space, actions), space, actions, turns=60)


@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_network_in_numpy_is_the_network(name, normal):
    cls, space, actions, options = PLAIN[name]
    seen = space["seen"] if space is MASKED else space
    if normal and seen is not VECTOR:
        return
    torch.manual_seed(0)
    network = build("mlp", normalized_space(seen) if normal else seen, hidden=8)
    if normal:
        network = Normalized(network, seen)
        network.parts[0].mean += torch.tensor([0.5, 0.1, -0.2])
        network.parts[0].var *= 0.01
    agent = with_random_weights(cls(network, actions, space, **options))
    check_same(agent, to_npz(agent, space, actions), space, actions, turns=60)


NETWORKS = {
    **{name: ("mlp", *PLAIN[name]) for name in ("dueling", "masked", "binary", "box")},
    "lstm": ("lstm", PPO, MASKED, spaces.Discrete(5, start=2), {}),
    "gru": ("gru", DeepQ, PARTS, spaces.Discrete(4), {}),
    "attention": ("attention", Reinforce, spaces.Discrete(5), spaces.Discrete(3), {}),
    "frame-stack": ("frame-stack", PPO, VECTOR, spaces.Discrete(3), {"share": True}),
    "real": ("mlp", SAC, VECTOR, spaces.Box(-0.2, 0.2, (2, 1)), {}),
    "image": ("cnn", PPO, spaces.Box(0, 255, (6, 6, 3), np.uint8), spaces.Discrete(3), {}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_of_torch_is_the_network(name):
    kind, cls, space, actions, options = NETWORKS[name]
    torch.manual_seed(1)
    seen = seqrl.core.action_mask.rest_space(space)
    agent = with_random_weights(cls(build(kind, seen), actions, space, **options))
    made = to_pt2(agent, actions, batch(space, 1))
    check_same(agent, made, space, actions, turns=20)
    assert made.n > 1 and not made.note  # any number of rows


class Counted(nn.Module):
    """Takes a batch's length for a constant, where a trace is concerned."""

    features = 3

    def forward(self, obs):
        return obs.reshape(len(obs), 3)


class Branching(nn.Module):
    features = 3

    def forward(self, obs):
        return obs if obs.sum() > 0 else -obs


def test_a_network_of_ones_own_may_be_traced_for_one_row_alone():
    agent = with_random_weights(PPO(Counted(), spaces.Discrete(3), VECTOR))
    made = to_pt2(agent, spaces.Discrete(3), batch(VECTOR, 1))
    assert made.n == 1 and "one observation at a time" in made.note
    check_same(agent, made, VECTOR, spaces.Discrete(3), turns=20)


TOKENS = spaces.Dict(source=spaces.MultiDiscrete([5] * 4), previous=spaces.Discrete(5))


@pytest.mark.parametrize(
    ("make", "space"),
    [(Branching, VECTOR), (lambda: build("seq2seq", TOKENS), TOKENS)],
    ids=["branching", "seq2seq"],
)
def test_what_cannot_be_traced_is_said_in_a_line(make, space, capsys):
    network = make()
    agent, name = PPO(network, spaces.Discrete(3), space), type(network).__name__
    with pytest.raises(UsageError, match=rf"^network {name} cannot be traced: .*seqrl\.load$"):
        to_pt2(agent, spaces.Discrete(3), batch(space, 1))
    assert capsys.readouterr() == ("", "")


def test_an_agent_of_ones_own_says_how_it_is_greedy():
    class Own(nn.Module):
        greedy = None

    for agent in (Own(), object()):
        with pytest.raises(UsageError, match=r"how it acts greedily is not known"):
            to_npz(agent, VECTOR, spaces.Discrete(3))
        with pytest.raises(UsageError, match=r"how it acts greedily is not known"):
            to_pt2(agent, spaces.Discrete(3), batch(VECTOR, 1))


# of runs


def trained(folder, words):
    words = [*words.split(), *"--preset none --quiet --eval-episodes 0 --run-dir".split()]
    assert train.main([*words, str(folder)]) == 0
    return str(folder)


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    words = "--agent ppo --env Pendulum-v1 --steps 200 --rollout 64 --normalize-obs"
    return trained(tmp_path_factory.mktemp("runs") / "pendulum", f"{words} --network gru")


@pytest.fixture(scope="module")
def taxi(tmp_path_factory):
    words = "--agent q-learning --env Taxi-v4 --action-mask info --steps 3000"
    return trained(tmp_path_factory.mktemp("runs") / "taxi", words)


def test_a_table_is_exported_and_plays_an_episode(taxi, tmp_path, capsys):
    file = tmp_path / "policy.npz"
    assert script.main([taxi, "--to", str(file)]) == 0
    assert f"written   {file} (" in capsys.readouterr().out
    act, policy = read_policy(file), seqrl.load(taxi)
    env = policy.make_envs().envs[0]
    obs, _ = env.reset(seed=0)
    for _ in range(100):
        action = act(obs)
        assert env.action_space.contains(action) and action == policy.predict(obs)
        obs, *_ = env.step(seqrl.core.action_mask.sample(env.action_space, obs))
    assert [path.name for path in tmp_path.iterdir()] == ["policy.npz"]


def test_the_page_shows_the_reader_as_it_is():
    page = Path(__file__).resolve().parents[1] / "docs" / "deploy.md"
    assert inspect.getsource(read_policy) in page.read_text(encoding="utf-8")


WITHOUT_SEQRL = """
import json, sys
import numpy as np, torch
sys.modules["seqrl"] = None
about = {"policy.json": ""}
policy = torch.export.load(sys.argv[1], extra_files=about).module()
about = json.loads(about["policy.json"])
state = tuple(torch.zeros(2, *leaf["shape"], dtype=getattr(torch, leaf["dtype"]))
              for leaf in about["state"])
start, actions = torch.ones(2, dtype=torch.bool), []
for x in json.loads(sys.argv[2]):
    action, state = policy(torch.tensor([x, x], dtype=getattr(torch, about["obs"]["dtype"])),
                           state, start)
    start, actions = ~torch.ones(2, dtype=torch.bool), [*actions, action.tolist()]
print(json.dumps([about, actions]))
"""


def test_a_program_runs_without_seqrl_and_its_memory_is_handed_on(pendulum, tmp_path):
    file = tmp_path / "policy.pt2"
    assert script.main([pendulum, "--to", str(file)]) == 0
    seen = [[1.0, 0.0, 8.0], [0.0, -1.0, -2.0], [0.6, 0.8, 0.5]]
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_SEQRL, str(file), json.dumps(seen)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    about, actions = json.loads(done.stdout)
    assert about["batch"] == "any" and about["obs"] == {"shape": [3], "dtype": "float32"}
    assert [leaf["shape"] for leaf in about["state"]] == [[1, 64]]
    policy = seqrl.load(pendulum)
    for x, (first, second) in zip(seen, actions, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4)  # rows of a batch may be rounded apart
        np.testing.assert_allclose(first, policy.predict(np.float32(x)), rtol=1e-4)


def test_what_plays_another_way_is_not_written(taxi, pendulum, tmp_path, monkeypatch):
    file, true = tmp_path / "policy.npz", export.to_npz
    file.write_text("another one")

    def off(*args):
        made = true(*args)
        seen = []

        def play(obs, start):
            seen.append(made.play(obs, start))
            return seen[-1] + 2 * (len(seen) == 900)

        return made._replace(play=play)

    monkeypatch.setattr(export, "to_npz", off)
    with pytest.raises(RunError, match=r"is not written, .* the largest difference is 2; "):
        export.export(seqrl.load(taxi), file)
    assert file.read_text() == "another one"
    assert [path.name for path in tmp_path.iterdir()] == ["policy.npz"]

    monkeypatch.setattr(export, "to_pt2", lambda *_: Exported(b"", lambda obs, start: obs[:, :1]))
    with pytest.raises(RunError, match=r"policy.pt2 is not written"):
        export.export(seqrl.load(pendulum), tmp_path / "policy.pt2")


@pytest.mark.parametrize(
    "found, expected",
    [
        ([1.0, 2.0], 0.0),
        ([1.00005, 2.0], 0.0),
        ([1.0, 2.5], 0.5),
        ([np.nan, 2.0], np.inf),
        ([[1.0, 2.0]], np.inf),
    ],
)
def test_rounding_is_no_difference(found, expected):
    assert export.difference(np.array(found), np.array([1.0, 2.0])) == expected
    assert export.difference(np.array([3]), np.array([4])) == 1.0


def test_what_is_typed_wrongly_is_said_in_a_line(taxi, pendulum, tmp_path, capsys):
    missing = str(tmp_path / "no" / "policy.npz")
    for words, said in (
        (
            [taxi, "--to", "policy.onnx"],
            "policy.onnx: expected a name that ends in .pt2, .npz or .vec",
        ),
        ([taxi, "--to", "policy.pt2"], "a table is no program of torch; export it to NAME.npz"),
        ([pendulum, "--to", "p.npz"], "without memory; export it to NAME.pt2"),
        ([taxi, "--to", missing], f"{missing}: No such file or directory; name another file"),
        ([taxi], "the following arguments are required: --to"),
        ([str(tmp_path), "--to", "x.npz"], "no config.toml there; name a run folder"),
    ):
        assert script.main(words) == 2
        assert said in capsys.readouterr().err
