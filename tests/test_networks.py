"""What every network must do: memory, episode starts, gradients, names, messages."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.core import UsageError, tree
from seqrl.networks import (
    GRU,
    LSTM,
    MLP,
    RNN,
    Attention,
    FrameStack,
    as_network,
    check_network,
    probe,
)
from seqrl.networks.diagnosis.check import causal_mask, largest_gap, sample_rollout

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
VECTOR = spaces.Box(-1, 1, (3,), np.float32)
CORES = {
    "rnn": RNN,
    "relu": partial(RNN, nonlinearity="relu"),
    "irnn": partial(RNN, nonlinearity="relu", init="irnn"),
    "sigmoid": partial(RNN, nonlinearity="sigmoid"),
    "identity": partial(RNN, nonlinearity="identity", init=0.1),
    "lstm": LSTM,
    "peephole": partial(LSTM, peephole=True),
    "gru": GRU,
    "attention": Attention,
    "short": partial(Attention, window=3),
}
SMALL = {
    f"{name}-{n}": partial(core, 3, 8, layers=n) for name, core in CORES.items() for n in (1, 2, 3)
}
SMALL |= {
    "mlp": partial(MLP, VECTOR, (8, 8)),
    "normalized": partial(MLP, VECTOR, 8, normalize=True, layer_norm=True, dropout=0.5),
    "stack-1": partial(FrameStack, VECTOR, 1),
    "stack-3": partial(FrameStack, VECTOR, 3),
    "stack-20": partial(FrameStack, 3, 20),
    "mlp-stack-gru": lambda: MLP(FrameStack(GRU(3, 8), 2), 8),
    "gru-lstm": lambda: GRU(LSTM(3, 8), 8),
    "plain": lambda: as_network(nn.Linear(3, 4)),
    "shortcut": partial(LSTM, 3, 8, layers=2, shortcut=True),
    "lstm-plain": lambda: LSTM(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), 8, dropout=0.5, layers=2),
    "held": partial(GRU, 3, 8, layers=2, input_dropout=0.3, recurrent_dropout=0.5),
    "lstm-lazy": lambda: LSTM(nn.Sequential(nn.LazyLinear(4), nn.Tanh()), 8),
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def stirred(network):
    """Peepholes and the like begin at 0: give every weight something to do."""
    with torch.no_grad():
        for weight in network.parameters():
            if not isinstance(weight, nn.UninitializedParameter):
                weight += 0.1 * torch.randn_like(weight)
    return network


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SMALL)
def test_conformance(name, device):
    network = stirred(SMALL[name]()).to(device)
    assert check_network(network, VECTOR, steps=12, device=device) == network.features


@pytest.mark.parametrize("name", ["rnn-1", "lstm-2", "gru-3", "attention-2", "stack-3"])
def test_long_rollouts_with_dense_and_with_rare_starts(name):
    network = SMALL[name]().eval()
    for rate in (0.0, 0.02, 0.5, 1.0):
        obs = torch.randn(150, 4, 3)
        start = torch.rand(150, 4) < rate
        with torch.no_grad():
            whole, last = network(obs, start)
            state, outputs = None, []
            for t in range(150):
                out, state = network(obs[t : t + 1], start[t : t + 1], state)
                outputs.append(out)
        assert largest_gap(torch.cat(outputs), whole) <= 1e-5
        assert largest_gap(state, last) <= 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_memory_has_environments_in_front_and_travels_between_calls(name):
    network = SMALL[name]().eval()
    probe(network, VECTOR)
    state = network.initial_state(5)
    assert all(len(leaf) == 5 and not leaf.any() for leaf in tree.leaves(state))
    obs, start, _ = sample_rollout(VECTOR, 9, 5)
    whole, _ = network(obs, start)
    early, state = network(obs[:4], start[:4], state)
    late, _ = network(obs[4:], start[4:], state)
    assert largest_gap(torch.cat([early, late]), whole) <= 1e-5


def test_shapes_of_memory():
    assert LSTM(3, 8, layers=2).initial_state(5)[1].shape == (5, 2, 8)
    assert GRU(3, 8, layers=3).initial_state(5).shape == (5, 3, 8)
    cache, age = Attention(3, 8, layers=2, window=6).initial_state(5)
    assert cache.shape == (5, 2, 5, 16) and age.shape == (5,)
    assert FrameStack(3, 4).initial_state(5).shape == (5, 3, 3)
    assert MLP(3).initial_state(5) is None
    inner, own = GRU(LSTM(3, 8), 4).initial_state(5)
    assert inner[0].shape == (5, 1, 8) and own.shape == (5, 1, 4)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "peephole", "sigmoid"])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_flow_within_an_episode_and_stop_at_its_start(name, layers):
    network = CORES[name](3, 8, layers=layers)
    start = torch.zeros(10, 2, dtype=torch.bool)
    start[4, 0] = start[7, 0] = True  # the other environment has none
    obs = torch.randn(10, 2, 3, requires_grad=True)
    out, _ = network(obs, start)
    for t in range(10):
        for n in range(2):
            (grad,) = torch.autograd.grad(out[t, n].sum(), obs, retain_graph=True)
            felt = grad.abs().sum(-1) > 0
            came = torch.stack([causal_mask(start, i, n)[t] for i in range(10)])
            assert torch.equal(felt, came), (t, n)


@pytest.mark.parametrize(("window", "layers"), [(3, 1), (3, 2), (1, 1)])
def test_attention_and_frame_stack_see_exactly_their_span(window, layers):
    attention = Attention(3, 8, layers=layers, window=window)
    for network, span in ((attention, layers * (window - 1)), (FrameStack(3, window), window - 1)):
        obs = torch.randn(9, 1, 3, requires_grad=True)
        out, _ = network(obs, torch.zeros(9, 1, dtype=torch.bool))
        weights = torch.randn(out.shape[-1])  # LayerNorm's plain sum is constant
        (grad,) = torch.autograd.grad((out[8, 0] * weights).sum(), obs)
        assert (grad.abs().sum((1, 2)) > 0).nonzero().flatten().tolist() == list(range(8 - span, 9))


@pytest.mark.parametrize(
    "name", ["rnn-2", "relu-1", "lstm-2", "peephole-1", "gru-2", "attention-2"]
)
def test_gradient_to_the_entering_memory_stops_at_a_start(name):
    network = SMALL[name]()
    _, state = network(torch.randn(5, 3, 3), torch.zeros(5, 3, dtype=torch.bool))
    state = tree.map(lambda leaf: leaf.detach().clone(), state)
    floats = [leaf.requires_grad_() for leaf in tree.leaves(state) if leaf.is_floating_point()]
    start = torch.zeros(4, 3, dtype=torch.bool)
    start[0, 0] = start[2, 1] = True
    out, _ = network(torch.randn(4, 3, 3), start, state)
    for t, felt in ((1, [False, True, True]), (3, [False, False, True])):
        weights = torch.randn(out.shape[-1])
        grads = torch.autograd.grad((out[t] * weights).sum(), floats, retain_graph=True)
        for grad in grads:
            assert (grad.flatten(1).abs().sum(1) > 0).tolist() == felt


@pytest.mark.parametrize(
    "name", ["rnn-2", "lstm-3", "gru-2", "peephole-1", "attention-2", "stack-3"]
)
def test_padding_changes_nothing(name):
    network = SMALL[name]().eval()
    obs, start, other = sample_rollout(VECTOR, 9, 3)
    whole, _ = network(obs, start)
    for extra in (1, 5):
        more = torch.cat([start, torch.rand(extra, 3) < 0.5])
        longer, _ = network(torch.cat([obs, 100 * other[:extra]]), more)
        assert largest_gap(longer[:9], whole) <= 1e-5


def test_relu_memory_that_explodes_does_not_reach_the_next_episode():
    network = RNN(3, 8, nonlinearity="relu")
    with torch.no_grad():
        network.layers[0].weight_hh.fill_(50.0)
        network.layers[0].weight_ih.abs_()
    obs, start = torch.ones(12, 2, 3), torch.zeros(12, 2, dtype=torch.bool)
    start[8] = True
    out, _ = network(obs, start)
    assert out[7].min() > 1e12
    assert torch.allclose(out[8], network(obs[:1], start[:1])[0][0], rtol=1e-5)


def test_a_shortcut_puts_what_is_seen_beside_what_is_remembered():
    bare, beside = (GRU(nn.Linear(3, 5), 8, shortcut=shortcut) for shortcut in (False, True))
    bare.load_state_dict(beside.state_dict())
    obs, start, _ = sample_rollout(VECTOR, 4, 2)
    (out, state), (whole, same) = bare(obs, start), beside(obs, start)
    assert beside.features == 13 and torch.equal(state, same)
    assert torch.equal(whole[..., :8], out) and torch.equal(
        whole[..., 8:], beside.source.module(obs)
    )


def test_dropout_is_for_training_alone():
    for network in (MLP(3, 32, dropout=0.5), LSTM(3, 32, layers=2, dropout=0.5), SMALL["held"]()):
        obs, start, _ = sample_rollout(VECTOR, 5, 2)
        assert largest_gap(network(obs, start)[0], network(obs, start)[0]) > 0
        network.eval()
        assert largest_gap(network(obs, start)[0], network(obs, start)[0]) == 0


def test_forget_bias_and_irnn():
    layer = LSTM(3, 4, forget_bias=2.0).layers[0]
    bias = layer.bias_ih + layer.bias_hh
    assert torch.equal(bias[4:8], torch.full((4,), 2.0)) and not torch.equal(bias[:4], bias[4:8])
    layer = GRU(3, 4, keep_bias=2.0).layers[0]
    bias = layer.bias_ih + layer.bias_hh
    assert torch.equal(bias[4:8], torch.full((4,), 2.0)) and not torch.equal(bias[:4], bias[4:8])
    layer = RNN(3, 4, nonlinearity="relu", init="irnn").layers[0]
    assert torch.equal(layer.weight_hh, torch.eye(4)) and not layer.bias_ih.any()
    assert layer.weight_ih.abs().max() < 0.01
    layer = RNN(30, 40, init="identity").layers[0]
    assert torch.equal(layer.weight_hh, torch.eye(40)) and not layer.bias_ih.any()
    assert 0.19 < layer.weight_ih.std() < 0.21
    with pytest.raises(UsageError, match="init 'irnn'"):
        GRU(3, 4, init="irnn")
