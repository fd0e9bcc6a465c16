"""Encoders: shapes by the formula, scaling, categories, normalisation, initialisation."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.core import UsageError
from seqrl.networks import (
    CNN,
    MLP,
    Embedding,
    Normalize,
    activation,
    as_network,
    conv_size,
    encoder,
    flat,
    initialise,
    is_image,
)
from seqrl.networks.activations import pieces
from seqrl.networks.cnn import channels_last
from seqrl.networks.options import ACTIVATIONS


def bytes_image(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def test_conv_size_is_the_formula():
    assert conv_size(5, 3, 2, 1) == 3  # the textbook's: 5x5, kernel 3, stride 2, padding 1 -> 3x3
    assert conv_size(84, 8, 4) == 20 and conv_size(20, 4, 2) == 9 and conv_size(9, 3) == 7
    for size in range(3, 12):
        for kernel, stride, padding in [(3, 1, 0), (3, 2, 1), (2, 2, 0), (3, 3, 2)]:
            out = nn.Conv1d(1, 1, kernel, stride, padding)(torch.zeros(1, 1, size))
            assert conv_size(size, kernel, stride, padding) == out.shape[-1]


@pytest.mark.parametrize(
    ("preset", "space", "flattened", "features"),
    [
        ("small", bytes_image(10, 5, 1), 32 * 5 * 3, 128),
        ("small", bytes_image(1, 1, 1), 32, 128),
        ("nature", bytes_image(84, 84, 4), 64 * 7 * 7, 512),  # 3,136, as in Mnih et al.
        ("nature", bytes_image(36, 36), 64, 512),
        ("impala", bytes_image(3, 64, 64), 32 * 8 * 8, 256),
        ("impala", bytes_image(10, 5, 1), 32 * 2 * 1, 256),
        ("lenet", bytes_image(32, 32, 1), 16 * 5 * 5, 84),  # 400, 120, 84, as in LeCun et al.
        ("lenet", bytes_image(16, 16, 3), 16, 84),
        ("alexnet", bytes_image(32, 32, 3), 64 * 4 * 4, 256),
        ("alexnet", bytes_image(8, 8, 3), 64, 256),
        (None, bytes_image(63, 64, 3), 32 * 32 * 32, 128),
        (None, bytes_image(64, 64, 3), 64 * 4 * 4, 512),
    ],
)
def test_cnn_shapes(preset, space, flattened, features):
    network = CNN(space, preset)
    assert network.head[1].in_features == flattened
    out = network.encode(torch.zeros(2, *space.shape, dtype=torch.uint8))
    assert out.shape == (2, features) and network.features == features


def test_layers_in_place_of_a_preset():
    network = CNN(bytes_image(5, 5, 1), layers=[[2, 3, 2, 1]], hidden=(6, 5), features=4)
    seen = network.trunk(torch.zeros(1, 1, 5, 5))
    assert seen.shape == (1, 2, 3, 3)  # the textbook's 5x5, kernel 3, stride 2, padding 1
    assert [
        tuple(layer.weight.shape) for layer in network.head if isinstance(layer, nn.Linear)
    ] == [*((6, 18), (5, 6), (4, 5))]
    pooled = CNN(bytes_image(6, 6, 1), layers=((1, 3, 1, 1, 2),), init="zeros")
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = 1.0  # each pixel as it is, and the largest of each 2x2
    pooled.trunk[0].weight.data = kernel
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert pooled.trunk(image)[0, 0].tolist() == [[7, 9, 11], [19, 21, 23], [31, 33, 35]]
    assert CNN(bytes_image(32, 32, 1), "lenet").head[1].out_features == 120


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), r"layers \(\): expected a convolution or more"),
        ("small", "layers 'small': expected a convolution or more"),
        ((16, 3), r"layers: 16; expected \(channels, kernel\) and perhaps stride"),
        (((16,),), r"layers: \(16,\); expected \(channels, kernel\)"),
        (((16, 0),), "layers, kernel 0: expected a whole number of at least 1"),
        (((16, 3, 1, -1),), "layers, padding -1: expected a whole number of at least 0"),
        (((16, 9),), "layers: too large for an image of 8 x 8"),
        (((16, 3, 1, 0, 7),), "layers: too large for an image of 8 x 8"),
    ],
)
def test_layers_that_are_none(layers, message):
    with pytest.raises(UsageError, match=message):
        CNN(bytes_image(8, 8, 1), layers=layers)
    with pytest.raises(UsageError, match="layers: they stand in place of preset 'lenet'"):
        CNN(bytes_image(32, 32, 1), "lenet", layers=((16, 3),))


def test_cnn_refuses_what_is_too_small_or_no_image():
    with pytest.raises(UsageError, match="preset 'nature': too large for an image of 35 x 84"):
        CNN(bytes_image(35, 84, 3), "nature")
    with pytest.raises(UsageError, match=r"expected an image space.*use MLP for a vector"):
        CNN(spaces.Box(0, 1, (4,)))
    with pytest.raises(UsageError, match="preset 'natrue': unknown"):
        CNN(bytes_image(84, 84, 3), "natrue")
    with pytest.raises(UsageError, match='channels \'middle\': expected "first", "last" or None'):
        CNN(bytes_image(84, 84, 3), channels="middle")


def test_channels_are_found_first_or_last():
    assert channels_last((10, 10, 7)) and channels_last((10, 5, 1))
    assert channels_last((84, 84, 4)) and channels_last((3, 3, 3))
    assert not channels_last((4, 84, 84)) and not channels_last((1, 10, 5))
    assert channels_last((10, 5, 12), "last") and not channels_last((10, 5, 1), "first")
    first, last = CNN(bytes_image(3, 8, 9)), CNN(bytes_image(8, 9, 3))
    last.load_state_dict(first.state_dict())
    image = torch.randint(256, (2, 3, 8, 9), dtype=torch.uint8)
    assert torch.equal(first.encode(image), last.encode(image.permute(0, 2, 3, 1)))


def test_bytes_are_scaled_to_one_and_floats_are_kept():
    seen = []
    for space, value in ((bytes_image(4, 4, 1), 255), (spaces.Box(0, 9, (4, 4, 1)), 9.0)):
        network = CNN(space)
        network.trunk[0].register_forward_hook(lambda layer, args, out: seen.append(args[0]))
        network.encode(torch.full((1, 4, 4, 1), value, dtype=torch.uint8 if value == 255 else None))
    assert seen[0].eq(1.0).all() and seen[1].eq(9.0).all()
    ones = spaces.Box(0, 1, (3,), np.uint8)  # bits are not 255ths
    assert flat(ones).encode(torch.ones(1, 3, dtype=torch.uint8)).tolist() == [[1, 1, 1]]
    assert flat(bytes_image(2)).encode(torch.tensor([[51, 255]])).tolist() == [
        [pytest.approx(0.2), 1.0]
    ]


def test_what_counts_as_an_image():
    assert is_image(bytes_image(4, 4)) and is_image(spaces.Box(0, 1, (4, 4, 1)))
    assert not is_image(spaces.Box(0, 1, (4, 4))) and not is_image(bytes_image(4))
    assert not is_image(spaces.MultiBinary((4, 4, 4)))


def test_categories_are_one_hot_from_their_start_on():
    out = flat(spaces.Discrete(3, start=-1)).encode(torch.tensor([-1, 1, 0]))
    assert out.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    out = flat(spaces.MultiDiscrete([2, 3], start=[5, 0])).encode(torch.tensor([[6, 0], [5, 2]]))
    assert out.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    grid = spaces.MultiDiscrete([[2, 2], [2, 2]])
    assert flat(grid).encode(torch.tensor([[[0, 1], [1, 0]]])).tolist() == [
        [1, 0, 0, 1, 0, 1, 1, 0]
    ]


def test_embedding_begins_at_the_start_of_its_space():
    network = Embedding(spaces.Discrete(3, start=7), 4, init="orthogonal")
    out = network.encode(torch.tensor([7, 9]))
    assert torch.equal(out, network.table.weight[[0, 2]])
    assert network.table.weight.shape == (3, 4)
    with pytest.raises(UsageError, match="expected a Discrete observation space"):
        Embedding(spaces.MultiBinary(2))


def test_parts_stand_side_by_side_in_the_order_of_the_space():
    space = spaces.Dict(b=spaces.Discrete(2), a=spaces.Tuple((spaces.Box(0, 1, (2,)),)))
    obs = {"a": (torch.tensor([[0.5, 0.25]]),), "b": torch.tensor([1])}
    assert list(space.keys()) == ["b", "a"]
    assert flat(space).encode(obs).tolist() == [[0, 1, 0.5, 0.25]]


def test_encoder_follows_the_space():
    kinds = {
        MLP: [spaces.Box(0, 1, (3,)), spaces.MultiBinary(3), spaces.MultiDiscrete([2, 2])],
        CNN: [bytes_image(4, 4, 1), bytes_image(4, 4)],
        Embedding: [spaces.Discrete(3)],
    }
    for kind, several in kinds.items():
        assert all(type(encoder(space)) is kind for space in several)
    tree = encoder(spaces.Tuple((spaces.Box(0, 1, (3,)), spaces.Discrete(4))), size=5, hidden=6)
    assert isinstance(tree, MLP) and tree.source.features == 8 and tree.features == 6


def test_mlp_layers():
    network = MLP(3, [4, 5], activation=nn.ReLU, layer_norm=True, dropout=0.1)
    kinds = [nn.Linear, nn.LayerNorm, nn.ReLU, nn.Dropout]
    assert [type(layer) for layer in network.layers] == kinds * 2
    assert (
        network.features == 5 and MLP(3, ()).features == 3 and MLP(nn.Linear(3, 2), 4).features == 4
    )
    assert MLP(as_network(nn.LazyLinear(2)), 4).features == 4
    with pytest.raises(UsageError, match="normalize needs an observation space"):
        MLP(nn.Linear(3, 2), normalize=True)


# Normalisation


def test_running_statistics_by_hand():
    layer = Normalize(flat(spaces.Box(-np.inf, np.inf, (1,))))
    rows = torch.tensor([[[1.0]], [[3.0]], [[100.0]]])  # [T = 3, N = 1, 1]
    assert layer.encode(torch.tensor([[2.0]])).item() == 2.0  # nothing seen yet
    layer.update(rows, torch.tensor([[True], [True], [False]]))
    assert (layer.mean.item(), layer.var.item(), layer.count.item()) == (2.0, 1.0, 2.0)
    layer.update(torch.tensor([[[5.0]], [[7.0]]]), torch.ones(2, 1, dtype=torch.bool))
    # 1, 3, 5, 7: mean 4, mean square distance (9 + 1 + 1 + 9) / 4 = 5
    assert (layer.mean.item(), layer.var.item(), layer.count.item()) == (4.0, 5.0, 4.0)
    assert layer.encode(torch.tensor([[9.0]])).item() == pytest.approx(5**0.5)
    assert layer.encode(torch.tensor([[1e6]])).item() == 10.0  # cut
    layer.update(rows, torch.zeros(3, 1, dtype=torch.bool))
    assert layer.count.item() == 4.0


def test_statistics_do_not_depend_on_the_batches():
    torch.manual_seed(0)
    rows, valid = torch.randn(50, 4, 3) * 5 + 100, torch.rand(50, 4) < 0.7
    layer = Normalize(flat(spaces.Box(-1, 1, (3,))))
    for rows_now, valid_now in zip(rows.split(7), valid.split(7), strict=True):
        layer.update(rows_now, valid_now)
    torch.testing.assert_close(layer.mean, rows[valid].mean(0))
    torch.testing.assert_close(layer.var, rows[valid].var(0, correction=0), rtol=1e-4, atol=0)
    assert layer.encode(rows[valid]).std(0, correction=0) == pytest.approx([1, 1, 1], abs=1e-3)


def test_forward_never_changes_statistics_and_they_are_saved():
    network = MLP(spaces.Box(-1, 1, (3,)), 4, normalize=True)
    obs, start = torch.randn(5, 2, 3), torch.zeros(5, 2, dtype=torch.bool)
    network.train()
    network(obs, start)
    assert network.source.count == 0
    network.update(obs, ~start)
    other = MLP(spaces.Box(-1, 1, (3,)), 4, normalize=True)
    other.load_state_dict(network.state_dict())
    assert other.source.count == 10
    assert torch.equal(other(obs, start)[0], network(obs, start)[0])
    with pytest.raises(UsageError, match="expected an encoder with known features"):
        Normalize(nn.Linear(2, 2))


def test_only_numbers_are_normalised():
    space = spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,))))
    network = flat(space, normalize=True)
    obs = (torch.tensor([[0, 1, 1]]), torch.tensor([[[1.0], [2.0], [3.0]]]))
    network.update(obs, torch.ones(1, 3, dtype=torch.bool))
    out = network.encode((torch.tensor([0]), torch.tensor([[2.0]])))
    assert out.tolist() == [[1, 0, 0]]


# Initialisation, activations, imports


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        ("xavier", 2 / 500),
        ("glorot", 2 / 500),
        ("xavier-normal", 2 / 500),
        ("he", 2 / 300),
        ("he-normal", 2 / 300),
        ("lecun", 1 / 300),
        ("uniform:0.3", 0.09 / 3),
        ("normal:0.25", 1 / 16),
        (0.25, 1 / 16),
    ],
)
def test_variance_of_initialisation(init, variance):
    torch.manual_seed(0)
    weight = torch.empty(200, 300)  # 300 inputs, 200 outputs
    initialise(weight, init)
    assert weight.var().item() == pytest.approx(variance, rel=0.02)
    assert abs(weight.mean().item()) < variance**0.5 / 50


@pytest.mark.parametrize(("init", "reach"), [("xavier", 3**0.5), ("he", 3**0.5), ("lecun", 3.0)])
def test_uniform_weights_end_at_the_root_of_three_deviations_and_normal_ones_do_not(init, reach):
    weight = torch.empty(200, 300)
    initialise(weight, init)
    largest = (weight.abs().max() / weight.std()).item()
    assert largest > reach * 0.99 and (largest < reach * 1.01 or init == "lecun")


@pytest.mark.parametrize(
    "init", [-1.0, float("nan"), True, "uniform", "uniform:-1", "normal:x", "he:1", "ortho"]
)
def test_what_is_no_initialisation_is_refused_with_those_there_are(init):
    with pytest.raises(UsageError, match=r"expected xavier, he, orthogonal, .*uniform:BOUND"):
        initialise(torch.empty(2, 2), init)


def test_orthogonal_and_none():
    weight = torch.empty(6, 4)
    initialise(weight, "orthogonal")
    torch.testing.assert_close(weight.t() @ weight, torch.eye(4))
    before = weight.clone()
    initialise(weight, None)
    assert torch.equal(weight, before)


def test_initialisation_reaches_every_layer():
    for network in (MLP(3, init=0.0), CNN(bytes_image(4, 4, 1), "impala", init=0.0)):
        assert not any(weight.any() for weight in network.parameters())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_by_name(name):
    for spelling in (name, name.lower()):
        layer = activation(spelling)
        assert type(layer).__name__ == name
        assert layer(torch.randn(2, 3, 4 * pieces(layer))).shape == (2, 3, 4)


def test_maxout_is_the_largest_of_its_pieces_and_the_gradient_is_that_ones():
    x = torch.tensor([[1.0, 3.0, -2.0, -5.0]], requires_grad=True)
    y = activation("maxout")(x)
    assert y.tolist() == [[3.0, -2.0]]
    (y * torch.tensor([10.0, 20.0])).sum().backward()
    assert x.grad.tolist() == [[0.0, 10.0, 20.0, 0.0]]
    network = MLP(3, (5, 4), activation="Maxout", layer_norm=True)
    assert [layer.out_features for layer in network.layers[::3]] == [10, 8]
    assert network.features == 4
    with pytest.raises(UsageError, match="CNN: activation Maxout"):
        CNN(bytes_image(8, 8, 1), activation="Maxout")


def test_a_step_is_0_or_1_and_its_gradient_passes_straight_through():
    x = torch.tensor([-0.5, 0.0, 1e-9, 1e9], requires_grad=True)
    y = activation("step")(x)
    assert y.tolist() == [0.0, 0.0, 1.0, 1.0]
    (y * torch.arange(4.0)).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_importing_networks_stays_light():
    code = (
        "import sys, torch, gymnasium; before = set(sys.modules); import seqrl.networks;"
        "new = set(sys.modules) - before;"
        "print([m for m in new if not m.startswith(('seqrl', 'torch.nn', 'numpy'))])"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [m for m in ("torchvision", "torch._dynamo", "numba") if m in heavy.stdout]
