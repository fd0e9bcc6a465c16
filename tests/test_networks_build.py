"""Networks by name: every name on every space, arguments, messages."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.core import UsageError
from seqrl.networks import (
    NETWORKS,
    RNN,
    Attention,
    Normalize,
    Tokens,
    build,
    check_network,
    encoder,
    flat,
)
from seqrl.networks.build import SEQUENCES
from seqrl.networks.diagnosis.check import largest_gap, sample_rollout, slice_time
from tests.tiny_models import tiny

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (10, 5, 1), np.uint8)
TREE = spaces.Dict(
    a=VECTOR, b=spaces.Tuple((spaces.Discrete(3), IMAGE)), c=spaces.MultiBinary([2, 2])
)
WORDS = spaces.MultiDiscrete([7] * 4)
SPACES = {
    "vector": VECTOR,
    "scalar": spaces.Box(-1, 1, ()),
    "matrix": spaces.Box(-1, 1, (2, 3)),
    "double": spaces.Box(-1, 1, (2,), np.float64),
    "bytes": spaces.Box(0, 255, (6,), np.uint8),
    "image": IMAGE,
    "grey": spaces.Box(0, 255, (7, 7), np.uint8),
    "first": spaces.Box(0, 255, (3, 8, 9), np.uint8),
    "floats": spaces.Box(0, 1, (6, 6, 2)),
    "discrete": spaces.Discrete(5, start=3),
    "words": WORDS,
    "mixed": spaces.MultiDiscrete([2, 5], start=[1, -1]),
    "binary": spaces.MultiBinary(4),
    "tree": TREE,
    "tokens": spaces.Dict(source=WORDS, previous=spaces.Discrete(7)),
    "trees": spaces.Dict(tokens=WORDS, parent=spaces.MultiDiscrete([4] * 4)),
    "facts": spaces.Dict(facts=spaces.MultiDiscrete([[7] * 3] * 4), question=WORDS),
    "context": spaces.Dict(given=WORDS, words=WORDS),
}
# networks of one space alone
OWN = dict.fromkeys(SEQUENCES, "tokens") | {
    "word2vec": "context",
    "tree": "trees",
    "memory-network": "facts",
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_on_every_space(name, space):
    if name == "cnn" and space not in ("image", "grey", "first", "floats", "tree"):
        with pytest.raises(UsageError, match="network cnn: no image"):
            build(name, SPACES[space])
    elif name in OWN and space != OWN[name]:
        with pytest.raises(UsageError, match=r"no .* in .*; expected a Dict of"):
            build(name, SPACES[space])
    else:
        args = {"model": tiny("llama")} if name == "causal-lm" else {}
        check_network(build(name, SPACES[space], **args), SPACES[space], steps=4, envs=2)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "lsmt",
            {},
            "network 'lsmt': unknown. Did you mean \"lstm\"\\? Known: attention, autoencoder",
        ),
        ("lstm", {"hiden": 8}, "network lstm: unknown argument 'hiden'. Did you mean \"hidden\""),
        (
            "mlp",
            {"layers": 2},
            "network mlp: unknown argument 'layers'.*Known: activation, dropout",
        ),
        ("mlp", {"activation": "rleu"}, "activation 'rleu': unknown. Did you mean \"relu\""),
        ("mlp", {"init": "ortho"}, "init 'ortho': expected xavier, he, orthogonal"),
        ("mlp", {"init": -1.0}, "init -1.0: expected"),
        ("mlp", {"hidden": "big"}, "hidden 'big': expected a whole number or a tuple"),
        ("mlp", {"dropout": 1}, "dropout 1: expected a number of at least 0 and below 1"),
        ("gru", {"hidden_size": 0}, "hidden_size 0: expected a whole number of at least 1"),
        ("gru", {"layers": True}, "layers True: expected a whole number"),
        ("rnn", {"nonlinearity": "gelu"}, "nonlinearity 'gelu': unknown.*Known: identity, relu"),
        ("lstm", {"forget_bias": "x"}, "forget_bias 'x': expected a number or None"),
        ("lstm", {"tokens": "gru"}, "Tokens: expected MultiDiscrete with equal counts, got Box"),
        ("attention", {"heads": 5}, "hidden_size 64: expected an even multiple of heads = 5"),
        ("frame-stack", {"k": 0}, "k 0: expected a whole number of at least 1"),
    ],
)
def test_messages(name, args, message):
    with pytest.raises(UsageError, match=message):
        build(name, VECTOR, **args)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(4),
        spaces.Graph(VECTOR, None),
        spaces.Sequence(VECTOR),
        spaces.OneOf((VECTOR, VECTOR)),
        spaces.Dict(a=spaces.Text(3)),
    ],
)
@pytest.mark.parametrize("name", ["mlp", "lstm", "frame-stack"])
def test_unsupported_spaces_are_named_with_what_is_supported(name, space):
    with pytest.raises(UsageError, match=r"(takes|supported are) Box, Discrete, MultiDisc"):
        build(name, space)


def test_by_name_with_arguments():
    network = build(
        "LSTM", VECTOR, hidden=32, hidden_size=16, layers=2, activation="relu", init="he"
    )
    assert network.features == 16 + 32 and len(network.layers) == 2
    assert [type(layer) for layer in network.source.layers] == [nn.Linear, nn.ReLU]
    assert not network.layers[0].bias_ih[:8].any() and not network.source.layers[0].bias.any()
    network = build("gru", WORDS, tokens="attention", size=8, hidden_size=16)
    assert isinstance(network.source, Tokens) and isinstance(network.source.core, Attention)
    check_network(network, WORDS, steps=4)
    assert build("frame_stack", VECTOR, k=3, hidden=16).layers[0].in_features == 9
    assert build("cnn", IMAGE, preset="IMPALA", features=32).features == 32
    tree_network = build("gru", TREE, size=5, preset="small", hidden=7, normalize=True)
    assert tree_network.source.source.features == 3 + (5 + 128) + 4


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2)])
def test_an_elman_network_on_numbers_alone_has_nothing_before_it(space):
    """RNN(2, 16): z = tanh(W_in x + W z + b) of 2 numbers and 16 units; by name likewise."""
    numbers = {"hidden": (), "hidden_size": 16, "shortcut": False, "init": "torch"}
    for network in (RNN(2, 16), build("rnn", space, **numbers)):
        check_network(network, space)
        weights = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
        sizes = {"weight_ih": (16, 2), "weight_hh": (16, 16), "bias_ih": (16,), "bias_hh": (16,)}
        assert weights == {f"layers.0.{name}": shape for name, shape in sizes.items()}
        bounds = [weight.abs().max().item() for weight in network.parameters()]
        assert network.features == 16 and max(bounds) <= 0.25 and min(bounds) > 0.1
        layer = network.layers[0]
        x = torch.ones(1, 1, 2)
        own = torch.tanh(layer.weight_ih.sum(1) + layer.bias_ih + layer.bias_hh)
        torch.testing.assert_close(network(x, torch.ones(1, 1, dtype=torch.bool))[0][0, 0], own)


def test_tokens_read_in_order():
    network = Tokens(WORDS, size=8, hidden_size=8)
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[4, 3, 2, 1]])
    assert largest_gap(network.encode(one), network.encode(other)) > 1e-3
    other = torch.tensor([[5, 2, 3, 4]])  # the first one is remembered to the last
    assert largest_gap(network.encode(one), network.encode(other)) > 1e-3
    shifted = Tokens(spaces.MultiDiscrete([7] * 4, start=[3] * 4), size=8, hidden_size=8)
    shifted.load_state_dict(network.state_dict())
    assert largest_gap(network.encode(one), shifted.encode(one + 3)) == 0
    with pytest.raises(UsageError, match="equal counts"):
        Tokens(spaces.MultiDiscrete([2, 3]))


def test_running_statistics_are_updated_through_any_network():
    network = build("lstm", TREE, normalize=True)
    obs, _, _ = sample_rollout(TREE, 6, 3)
    valid = torch.ones(6, 3, dtype=torch.bool)
    network.update(obs, valid)
    (layer,) = (module for module in network.modules() if isinstance(module, Normalize))
    assert layer.count == 18
    assert torch.allclose(layer.mean, obs["a"].flatten(0, 1).mean(0), atol=1e-6)


def test_source_kinds_and_helpers():
    assert flat(TREE).features == 3 + 3 + 50 + 4
    assert encoder(VECTOR, hidden=()).features == 3
    obs, start, other = sample_rollout(TREE, 4, 2, seed=1)
    assert start[1:].any(0).all() and slice_time(obs, slice(1))["a"].shape == (1, 2, 3)
    assert largest_gap(obs, other) > 0
    assert largest_gap(torch.tensor([float("nan")]), torch.tensor([0.0])) == float("inf")
