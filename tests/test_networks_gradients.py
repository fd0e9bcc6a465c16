"""Recurrent layers against back-propagation through time written by hand, in float64.

Each reference runs forward over t, then backward with the accumulated error d h (and d c); an
episode start cuts both. Loss: sum over t of weight_t . h_t.
"""

import numpy as np
import pytest
import torch

from seqrl.networks import GRU, LSTM, RNN

T, N, F, H = 9, 3, 4, 5
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


FUNCTIONS = {  # name: f and its slope in terms of h = f(v)
    "tanh": (np.tanh, lambda h: 1 - h * h),
    "relu": (lambda v: np.maximum(v, 0), lambda h: (h > 0) * 1.0),
    "sigmoid": (sigmoid, lambda h: h * (1 - h)),
    "identity": (lambda v: v, np.ones_like),
}


def rnn(p, x, start, state, error, nonlinearity):
    """h = f(W x + b + U h' + d).  Returns outputs and gradients."""
    f, slope = FUNCTIONS[nonlinearity]
    (h,) = state
    before, after = [], []
    for t in range(T):
        h = h * ~start[t][:, None]
        before.append(h)
        h = f(x[t] @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"])
        after.append(h)
    grads = {name: np.zeros_like(value) for name, value in p.items()} | {"x": np.zeros_like(x)}
    dh = np.zeros((N, H))
    for t in reversed(range(T)):
        dv = (dh + error[t]) * slope(after[t])
        dh = project_back(p, grads, x, t, before[t], dv, dv) * ~start[t][:, None]
    return np.stack(after), grads, [dh]


def project_back(p, grads, x, t, h, dv, du):
    """Through v = W x + b (error dv) and u = U h + d (error du): the error on h."""
    grads["weight_ih"] += dv.T @ x[t]
    grads["bias_ih"] += dv.sum(0)
    grads["weight_hh"] += du.T @ h
    grads["bias_hh"] += du.sum(0)
    grads["x"][t] = dv @ p["weight_ih"]
    return du @ p["weight_hh"]


def lstm(p, x, start, state, error, peephole):
    """Gates i, f, g, o; with peepholes i and f see the old cell, o the new one."""
    h, c = state
    see = p["peephole"] if peephole else np.zeros((3, H))
    saved = []
    for t in range(T):
        h, c = h * ~start[t][:, None], c * ~start[t][:, None]
        v = x[t] @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"]
        i, f = sigmoid(v[:, :H] + see[0] * c), sigmoid(v[:, H : 2 * H] + see[1] * c)
        g = np.tanh(v[:, 2 * H : 3 * H])
        new = f * c + i * g
        o = sigmoid(v[:, 3 * H :] + see[2] * new)
        saved.append((h, c, i, f, g, o, new))
        h, c = o * np.tanh(new), new
    grads = {name: np.zeros_like(value) for name, value in p.items()} | {"x": np.zeros_like(x)}
    dh, dc = np.zeros((N, H)), np.zeros((N, H))
    for t in reversed(range(T)):
        h, c, i, f, g, o, new = saved[t]
        dh = dh + error[t]
        do = dh * np.tanh(new) * o * (1 - o)
        dc = dc + dh * o * (1 - np.tanh(new) ** 2) + do * see[2]
        di, df, dg = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g)
        if peephole:
            grads["peephole"] += np.stack([(di * c).sum(0), (df * c).sum(0), (do * new).sum(0)])
        dv = np.concatenate([di, df, dg, do], 1)
        dh = project_back(p, grads, x, t, h, dv, dv) * ~start[t][:, None]
        dc = (dc * f + di * see[0] + df * see[1]) * ~start[t][:, None]
    return np.stack([o * np.tanh(new) for *_, o, new in saved]), grads, [dh, dc]


def gru(p, x, start, state, error):
    """torch's convention: r multiplies U h + d after the product, z keeps the old state."""
    (h,) = state
    saved = []
    for t in range(T):
        h = h * ~start[t][:, None]
        v, u = x[t] @ p["weight_ih"].T + p["bias_ih"], h @ p["weight_hh"].T + p["bias_hh"]
        r, z = sigmoid(v[:, :H] + u[:, :H]), sigmoid(v[:, H : 2 * H] + u[:, H : 2 * H])
        n = np.tanh(v[:, 2 * H :] + r * u[:, 2 * H :])
        saved.append((h, r, z, n, u[:, 2 * H :]))
        h = (1 - z) * n + z * h
    grads = {name: np.zeros_like(value) for name, value in p.items()} | {"x": np.zeros_like(x)}
    dh = np.zeros((N, H))
    for t in reversed(range(T)):
        h, r, z, n, u = saved[t]
        dh = dh + error[t]
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (h - n) * z * (1 - z)
        dr = dn * u * r * (1 - r)
        dv, du = np.concatenate([dr, dz, dn], 1), np.concatenate([dr, dz, dn * r], 1)
        dh = (project_back(p, grads, x, t, h, dv, du) + dh * z) * ~start[t][:, None]
    return np.stack([(1 - z) * n + z * h for h, r, z, n, _ in saved]), grads, [dh]


CASES = {
    **{name: (RNN, {"nonlinearity": name}, rnn) for name in FUNCTIONS},
    "lstm": (LSTM, {"peephole": False}, lstm),
    "peephole": (LSTM, {"peephole": True}, lstm),
    "gru": (GRU, {}, gru),
}


@pytest.mark.parametrize("starts", ["none", "inside"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_hand_written_bptt(name, starts):
    make, options, reference = CASES[name]
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    network = make(F, H, **options).double()
    (layer,) = network.layers
    if name == "peephole":
        torch.nn.init.normal_(layer.peephole, 0.0, 0.5)
    x, error = rng.standard_normal((T, N, F)), rng.standard_normal((T, N, H))
    start = np.zeros((T, N), bool)
    if starts == "inside":  # several in one environment, at t = 0 in another, none in the third
        start[3, 0] = start[4, 0] = start[8, 0] = start[0, 1] = True
    entering = [rng.standard_normal((N, H)) * 0.5 for _ in range(network.memory_tensors)]

    weights = {key: value.detach().numpy() for key, value in layer.named_parameters()}
    expected, grads, d_entering = reference(weights, x, start, entering, error, **options)

    inputs = torch.from_numpy(x).requires_grad_()
    memory = [torch.from_numpy(part)[:, None].requires_grad_() for part in entering]
    state = tuple(memory) if network.memory_tensors > 1 else memory[0]
    out, last = network(inputs, torch.from_numpy(start), state)
    (out * torch.from_numpy(error)).sum().backward()

    np.testing.assert_allclose(out.detach().numpy(), expected, **TIGHT)
    last_h = last[0] if network.memory_tensors > 1 else last
    np.testing.assert_allclose(last_h[:, 0].detach().numpy(), expected[-1], **TIGHT)
    np.testing.assert_allclose(inputs.grad.numpy(), grads["x"], **TIGHT)
    for key, weight in layer.named_parameters():
        np.testing.assert_allclose(weight.grad.numpy(), grads[key], err_msg=key, **TIGHT)
    for part, grad in zip(memory, d_entering, strict=True):
        np.testing.assert_allclose(part.grad[:, 0].numpy(), grad, **TIGHT)


def test_the_last_cell_survives_the_filler_with_its_gradient():
    """Environments with fewer starts than others end early in the longer sequence."""
    torch.manual_seed(2)
    network = LSTM(F, H).double()
    start = torch.zeros(T, N, dtype=torch.bool)
    start[2, 0] = start[5, 0] = True
    x = torch.randn(T, N, F, dtype=torch.float64, requires_grad=True)
    grads = []
    for together in (True, False):
        if together:
            _, (_, c) = network(x, start)
        else:
            state = None
            for t in range(T):
                _, state = network(x[t : t + 1], start[t : t + 1], state)
            c = state[1]
        grads.append((c.detach(), *torch.autograd.grad(c.sum(), [x, *network.parameters()])))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_one_step_by_hand():
    """H = 1, x = 1, h = 0.5, all weights 1, biases 0: the numbers a book would give."""
    x, start = torch.ones(1, 1, 1), torch.zeros(1, 1, dtype=torch.bool)
    half = torch.full((1, 1, 1), 0.5)
    cases = [
        (RNN(1, 1), half, 0.9051483),  # tanh(1.5)
        (LSTM(1, 1, forget_bias=None), (half, half), 0.6682532),
        (GRU(1, 1), half, 0.5706418),
    ]
    for network, state, expected in cases:
        with torch.no_grad():
            for name, weight in network.named_parameters():
                weight.fill_(1.0 if "weight" in name else 0.0)
        # LSTM: s = sigmoid(1.5) = .8175745, c = s / 2 + s tanh(1.5) = 1.1488133, h = s tanh(c)
        # GRU: r = z = s, n = tanh(1 + s / 2) = .8872363, h = (1 - s) n + s / 2
        assert network(x, start, state)[0].item() == pytest.approx(expected, abs=1e-6)
