"""Acting through NumPy equals acting through torch."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.networks import (
    CNN,
    GRU,
    LSTM,
    MLP,
    RNN,
    Attention,
    FrameStack,
    NumpyForward,
    as_network,
    numpy_forward,
)
from seqrl.networks.diagnosis.check import sample_rollout

VECTOR = spaces.Box(-1, 1, (3,))
NETWORKS = {
    "mlp": lambda: MLP(VECTOR, (8, 8)),
    "relu": lambda: MLP(VECTOR, 8, activation="ReLU"),
    "sigmoid": lambda: MLP(VECTOR, 8, activation="Sigmoid"),
    "identity": lambda: MLP(VECTOR, 8, activation="Identity"),
    "normalised": lambda: MLP(VECTOR, 8, normalize=True),
    "double": lambda: MLP(VECTOR, 8).double(),
    "plain": lambda: as_network(
        nn.Sequential(nn.Flatten(), nn.Linear(3, 8, bias=False), nn.Tanh())
    ),
    "rnn": lambda: RNN(VECTOR, 8),
    "rnn-relu": lambda: RNN(VECTOR, 8, layers=2, nonlinearity="relu"),
    "rnn-sigmoid": lambda: RNN(VECTOR, 8, nonlinearity="sigmoid"),
    "rnn-identity": lambda: RNN(VECTOR, 8, nonlinearity="identity", init=0.1),
    "lstm": lambda: LSTM(VECTOR, 8),
    "lstm-3": lambda: LSTM(3, 8, layers=3),
    "gru": lambda: GRU(VECTOR, 8, layers=2),
    "shortcut": lambda: LSTM(3, 5, shortcut=True),
}
SPACES = [
    spaces.Box(0, 255, (3,), np.uint8),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 3], start=[0, -1]),
    spaces.MultiBinary((2, 2)),
]


def test_every_kind_of_observation():
    torch.manual_seed(0)
    for space in SPACES:
        network = MLP(space, 8)
        obs, start, _ = sample_rollout(space, 2, 3)
        fast = numpy_forward(network)
        assert fast is not None
        expected = network(obs, start)[0][0].detach()
        np.testing.assert_allclose(fast(obs[0].numpy()), expected, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_numpy_equals_torch(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    dtype = next(network.parameters()).dtype
    head = nn.Linear(8, 2).to(dtype)
    steps, n = 6, 3
    rng = np.random.default_rng(1)
    obs = rng.standard_normal((steps, n, 3)).astype(np.float32)
    start = rng.random((steps, n)) < 0.3
    if name == "normalised":
        network.update(torch.from_numpy(obs), torch.from_numpy(start))
    fast = numpy_forward(network, head)
    assert isinstance(fast, NumpyForward)
    with torch.no_grad():
        expected = head(network(torch.from_numpy(obs), torch.from_numpy(start))[0])
    state = None
    for t in range(steps):
        out, state = fast.step(obs[t], start[t], state)
        assert out.dtype == expected[t].numpy().dtype
        np.testing.assert_allclose(out, expected[t], atol=1e-6)
        if state is None:
            assert np.array_equal(fast(obs[t]), out)


def test_memory_has_the_same_shape_and_is_never_changed_in_place():
    network = LSTM(VECTOR, 8, layers=2)
    fast = numpy_forward(network)
    assert fast is not None
    obs, start = np.ones((4, 3), np.float32), np.zeros(4, bool)
    _, state = fast.step(obs, start)
    kept = tuple(part.copy() for part in state)
    assert [part.shape for part in state] == [part.shape for part in network.initial_state(4)]
    fast.step(obs, ~start, state)
    assert all(np.array_equal(a, b) for a, b in zip(kept, state, strict=True))


def test_weights_are_copied_until_refresh():
    network = MLP(VECTOR, 8)
    fast, obs = numpy_forward(network), np.ones((2, 3), np.float32)
    before = fast(obs)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 1.0
    assert np.array_equal(fast(obs), before)
    fast.refresh()
    expected = network(torch.from_numpy(obs)[None], torch.zeros(1, 2, dtype=torch.bool))[0][0]
    np.testing.assert_allclose(fast(obs), expected.detach(), atol=1e-6)


def test_what_is_not_plain_acts_through_torch():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    for network in (
        CNN(spaces.Box(0, 255, (4, 4, 1), np.uint8)),
        MLP(VECTOR, dropout=0.5),
        MLP(VECTOR, activation="GELU"),
        MLP(VECTOR, layer_norm=True),
        MLP(spaces.Dict(a=VECTOR)),
        LSTM(VECTOR, peephole=True),
        LSTM(FrameStack(VECTOR)),
        Attention(VECTOR),
        FrameStack(VECTOR),
        Twice(3, 3),
    ):
        assert numpy_forward(network) is None
    assert numpy_forward() is None
