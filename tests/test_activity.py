"""Gates, attention and gradients through time against NumPy and numbers worked by hand."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.networks import GRU, LSTM, MLP, RNN, Attention, FrameStack, Network
from seqrl.networks.diagnosis.activity import activity

SPACE = spaces.Box(-1, 1, (3,), np.float32)
T = 9
OBS = np.random.default_rng(0).normal(size=(T, 3)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(layer):
    return [w.detach().numpy().astype(float) for w in layer.weights()]


def test_lstm_gates_and_memory_are_those_of_a_numpy_lstm():
    torch.manual_seed(0)
    core = LSTM(3, 4)
    w, u, b, d = weights(core.layers[0])
    h = c = np.zeros(4)
    rows = []
    for x in OBS:
        i, f, g, o = np.split(w @ x + u @ h + b + d, 4)
        i, f, o = sigmoid(i), sigmoid(f), sigmoid(o)
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        rows.append((i, f, o, c, h))
    (trace,) = activity(core, OBS).layers
    assert trace.name == "LSTM"
    names = ["input gate", "forget gate", "output gate", "cell", "output"]
    assert sorted(trace.parts) == sorted(names)
    for name, expected in zip(names, zip(*rows, strict=True), strict=True):
        np.testing.assert_allclose(trace.parts[name], expected, atol=1e-6)


def test_a_peephole_lstm_shows_gates_that_see_the_cell():
    torch.manual_seed(1)
    core = LSTM(3, 4, peephole=True)
    layer = core.layers[0]
    nn.init.normal_(layer.peephole)
    w, u, b, d = weights(layer)
    see = layer.peephole.detach().numpy()
    (trace,) = activity(core, OBS).layers
    parts = trace.parts
    for t in range(T):
        h = parts["output"][t - 1] if t else np.zeros(4)
        c = parts["cell"][t - 1] if t else np.zeros(4)
        i, f, g, o = np.split(w @ OBS[t] + u @ h + b + d, 4)
        np.testing.assert_allclose(parts["input gate"][t], sigmoid(i + see[0] * c), atol=1e-6)
        np.testing.assert_allclose(parts["forget gate"][t], sigmoid(f + see[1] * c), atol=1e-6)
        c = parts["forget gate"][t] * c + parts["input gate"][t] * np.tanh(g)
        np.testing.assert_allclose(parts["cell"][t], c, atol=1e-6)
        np.testing.assert_allclose(parts["output gate"][t], sigmoid(o + see[2] * c), atol=1e-6)


def test_gru_gates_and_memory_are_those_of_a_numpy_gru_in_both_layers():
    torch.manual_seed(0)
    core = GRU(3, 4, layers=2)
    inputs = OBS.astype(float)
    found = activity(core, OBS).layers
    assert [trace.name for trace in found] == ["GRU layer 1 of 2", "GRU layer 2 of 2"]
    for layer, trace in zip(core.layers, found, strict=True):
        w, u, b, d = weights(layer)
        h, outputs = np.zeros(4), []
        for t, x in enumerate(inputs):
            new, old = np.split(w @ x + b, 3), np.split(u @ h + d, 3)
            r, z = sigmoid(new[0] + old[0]), sigmoid(new[1] + old[1])
            h = (1 - z) * np.tanh(new[2] + r * old[2]) + z * h
            np.testing.assert_allclose(trace.parts["reset gate"][t], r, atol=1e-6)
            np.testing.assert_allclose(trace.parts["update gate"][t], z, atol=1e-6)
            outputs.append(h)
        np.testing.assert_allclose(trace.parts["memory"], outputs, atol=1e-6)
        inputs = np.array(outputs)


def test_elman_shows_its_memory_above_an_encoder():
    torch.manual_seed(0)
    core = RNN(MLP(SPACE, (5,)), 4)
    out, _ = core(torch.tensor(OBS)[:, None], torch.eye(T, 1, dtype=torch.bool))
    (trace,) = activity(core, OBS).layers
    assert list(trace.parts) == ["memory"]
    np.testing.assert_allclose(trace.parts["memory"], out[:, 0].detach(), atol=1e-6)


def test_attention_weights_make_the_output_of_the_layer():
    """Rows sum to 1, look neither ahead nor beyond the window, and give what the network gives."""
    torch.manual_seed(0)
    window, heads = 4, 2
    core = Attention(3, 8, heads=heads, window=window)
    (trace,) = activity(core, OBS).layers
    assert trace.attention and list(trace.parts) == ["head 1", "head 2"]
    lag = np.arange(T)[:, None] - np.arange(T)
    for head in trace.parts.values():
        np.testing.assert_allclose(head.sum(1), 1, atol=1e-6)
        assert (head[(lag < 0) | (lag >= window)] == 0).all()
        assert (head[(lag >= 0) & (lag < window)] > 0).all()
    block = core.blocks[0]
    with torch.no_grad():
        out, _ = core(torch.tensor(OBS)[:, None], torch.eye(T, 1, dtype=torch.bool))
        angles = torch.arange(T)[:, None] * core.frequencies
        x = core.enter(torch.tensor(OBS)) + torch.cat([angles.sin(), angles.cos()], -1)
        values = block.project(block.norm(x))[:, 16:]
        pieces = zip(trace.parts.values(), values.chunk(heads, 1), strict=True)
        seen = torch.cat([torch.tensor(head) @ value for head, value in pieces], 1)
        x = x + block.merge(seen)
        x = x + block.mlp(x)
        np.testing.assert_allclose(core.norm(x), out[:, 0], atol=1e-5)


@pytest.mark.parametrize("a", [0.5, 1.0, 1.25])
def test_the_gradient_of_a_linear_recurrence_is_a_power(a):
    """With W = a I, h_T = a^(T-t) h_t + ..., so the norm is a^(T-t): by hand."""
    core = RNN(3, 4, nonlinearity="identity")
    with torch.no_grad():
        core.layers[0].weight_hh.copy_(a * torch.eye(4))
    expected = a ** np.arange(T - 1, 0, -1.0)
    np.testing.assert_allclose(activity(core, OBS).gradient, expected, rtol=1e-6)


def test_the_gradient_is_the_product_of_the_steps_derivatives():
    """tanh: dh_T/dh_t is the product of diag(1 - h^2) W, worked out in NumPy."""
    torch.manual_seed(3)
    core = RNN(3, 4)
    found = activity(core, OBS)
    _, u, _, _ = weights(core.layers[0])
    jacobian, expected = np.eye(4), []
    for h in found.layers[0].parts["memory"][:0:-1]:
        jacobian = jacobian @ ((1 - h**2)[:, None] * u)
        expected.append(np.linalg.norm(jacobian) / 2)
    np.testing.assert_allclose(found.gradient, expected[::-1], rtol=1e-4)


def test_an_open_forget_gate_carries_the_gradient_on():
    """f = 1, i = 0, o = 1/2, c = 0 by hand: h_T = tanh(c_T) / 2 and dh_T/dc_t = 1/2 for every t."""
    core = LSTM(3, 4)
    layer = core.layers[0]
    with torch.no_grad():
        for weight in layer.weights():
            weight.zero_()
        i, f, _, _ = layer.bias_ih.chunk(4)
        i.fill_(-50), f.fill_(50)
    np.testing.assert_allclose(activity(core, OBS).gradient, np.full(T - 1, 0.5), rtol=1e-6)


def test_rows_worked_out_a_few_at_a_time_give_the_same(monkeypatch):
    torch.manual_seed(0)
    core = GRU(3, 5)
    whole = activity(core, OBS).gradient
    monkeypatch.setattr("seqrl.networks.diagnosis.activity.MAX_HELD", 2 * 5 * T)
    np.testing.assert_allclose(activity(core, OBS).gradient, whole, rtol=1e-6)


class Sum(Network):
    """A memory of one's own: the sum of what was seen, halved each step."""

    features = 3

    def initial_state(self, n):
        return {"sum": torch.zeros(n, 3), "age": torch.zeros(n, dtype=torch.int64)}

    def forward(self, obs, start, state=None):
        state = self.initial_state(obs.shape[1]) if state is None else state
        outputs = []
        for x, begins in zip(obs, start, strict=True):
            state = {"sum": state["sum"] * ~begins[:, None] / 2 + x, "age": state["age"] + 1}
            outputs.append(state["sum"])
        return torch.stack(outputs), state


def test_a_memory_of_ones_own_is_shown_as_numbers_with_its_gradient():
    found = activity(Sum(), OBS)
    assert found.layers[0].name == "memory"
    np.testing.assert_allclose(found.layers[0].parts["memory"][1], OBS[0] / 2 + OBS[1], rtol=1e-6)
    np.testing.assert_allclose(found.gradient, 0.5 ** np.arange(T - 1, 0, -1.0), rtol=1e-6)


def test_frames_are_seen_until_they_leave_the_stack():
    """The three frames before are handed on: dh/dm has that many ones, fewer with every step."""
    found = activity(FrameStack(3, k=3), OBS).gradient
    expected = np.zeros(T - 1)
    expected[-1], expected[-2] = np.sqrt(6 / 9), np.sqrt(3 / 9)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_memory_there_is_nothing_and_a_large_one_has_no_gradient():
    assert activity(MLP(SPACE), OBS) is None
    assert activity(Attention(3, 64, window=64), OBS).gradient is None
    assert activity(GRU(3, 4), OBS[:1]).gradient.shape == (0,)


def test_looking_changes_neither_the_network_nor_random_numbers():
    torch.manual_seed(0)
    core = LSTM(MLP(SPACE, (5,)), 4, layers=2, dropout=0.5).train()
    before, drawn = {k: v.clone() for k, v in core.state_dict().items()}, torch.get_rng_state()
    one, two = activity(core, OBS), activity(core, OBS)
    np.testing.assert_array_equal(one.gradient, two.gradient)
    assert torch.equal(drawn, torch.get_rng_state())
    assert core.training and all(w.grad is None for w in core.parameters())
    assert all(torch.equal(before[k], v) for k, v in core.state_dict().items())
    assert not any(part._forward_hooks for part in core.modules())
