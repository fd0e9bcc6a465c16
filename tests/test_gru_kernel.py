"""Our GRU kernel against torch's: outputs, gradients, episode starts, and where it serves."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from seqrl.networks import GRU, gru_kernel, layers
from seqrl.networks.resets import reset_layout

SHAPES = [(2, 1, 3), (20, 3, 5), (31, 4, 8), (7, 2, 18)]  # steps, columns, hidden


def case(steps, columns, hidden, starts=0.2):
    torch.manual_seed(steps)
    layer = layers.GRULayer(6, hidden)
    x = torch.randn(steps, columns, 6, requires_grad=True)
    start = torch.rand(steps, columns) < starts
    memory = torch.randn(columns, hidden).masked_fill(start[0][:, None], 0.0).requires_grad_()
    return layer, x, start, memory


def result(layer, x, start, memory):
    y, (last,) = layer.sequence(x, start, reset_layout(start), (memory,))
    weigh = torch.linspace(-1, 2, y.numel()).view_as(y)  # another slope for every number
    loss = (y * weigh).sum() + last.square().sum()
    return [y, last, *torch.autograd.grad(loss, [x, memory, *layer.parameters()])]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("starts", [0.0, 0.2, 1.0])
def test_it_equals_torch(shape, starts, monkeypatch):
    layer, x, start, memory = case(*shape, starts)
    ours = result(layer, x, start, memory)
    monkeypatch.setattr(layers, "FEW", 0)
    theirs = result(layer, x, start, memory)
    theirs[3] = theirs[3].masked_fill(start[0][:, None], 0.0)  # ours knows of a start at t = 0
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=3e-6)


def test_its_gradient_is_that_of_differences():
    layer, x, start, memory = case(6, 2, 3)
    grads = result(layer, x, start, memory)[2:]
    leaves = [x, memory, *layer.parameters()]
    for leaf, grad in zip(leaves, grads, strict=True):
        i = leaf.numel() // 2
        if leaf is memory and start[0, i // 3]:
            continue
        sides = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                leaf.view(-1)[i] += step
                y, (last,) = layer.sequence(x, start, None, (memory,))
                weigh = torch.linspace(-1, 2, y.numel()).view_as(y)
                sides.append(float((y * weigh).sum() + last.square().sum()))
                leaf.view(-1)[i] -= step
        assert float(grad.view(-1)[i]) == pytest.approx(
            (sides[0] - sides[1]) / 2e-2, rel=0.02, abs=2e-3
        )


def test_tanh_is_right_everywhere():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0, 1e-8, -1e-30, 1e30, -1e30]])
    found = np.array([gru_kernel.tanh(np.float32(value)) for value in x])
    np.testing.assert_allclose(found, np.tanh(x.astype(np.float32)), rtol=1e-6, atol=1e-9)


def test_a_second_derivative_is_refused():
    layer, x, start, memory = case(4, 2, 3)
    y, _ = layer.sequence(x, start, None, (memory,))
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_what_is_not_a_number_stays_none():
    layer, x, start, memory = case(5, 2, 8, 0.0)
    with torch.no_grad():
        x[2, 1, 0] = torch.nan
        y, _ = layer.sequence(x, start, None, (memory,))
    assert y[2:, 1].isnan().all() and not y[:, 0].isnan().any() and not y[:2].isnan().any()


@pytest.mark.parametrize("depth", [1, 2])
def test_a_network_steps_as_it_rolls(depth):
    network = GRU(spaces.Box(-1, 1, (3,), np.float32), 8, layers=depth)
    obs, start = torch.randn(9, 2, 3), torch.rand(9, 2) < 0.3
    whole, last = network(obs, start)
    state, out = None, []
    for t in range(9):
        y, state = network(obs[t : t + 1], start[t : t + 1], state)
        out.append(y)
    torch.testing.assert_close(whole, torch.cat(out), rtol=1e-5, atol=3e-6)
    torch.testing.assert_close(last, state, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("why", ["many columns", "float64"])
def test_elsewhere_torch_serves(why, monkeypatch):
    def refused(*args):
        raise AssertionError

    monkeypatch.setattr(gru_kernel, "gru_rollout", refused)
    columns, dtype = (layers.FEW, torch.float32) if why == "many columns" else (2, torch.float64)
    layer = layers.GRULayer(2, 3).to(dtype)
    x, start = torch.randn(4, columns, 2, dtype=dtype), torch.zeros(4, columns, dtype=torch.bool)
    y, _ = layer.sequence(x, start, None, (torch.zeros(columns, 3, dtype=dtype),))
    assert y.shape == (4, columns, 3)
    with pytest.raises(AssertionError):
        layers.GRULayer(2, 3).sequence(
            torch.randn(4, 2, 2), start[:, :2], None, (torch.zeros(2, 3),)
        )


def test_autocast_takes_torchs_kernel():
    layer, start = layers.GRULayer(2, 3), torch.zeros(4, 2, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer.sequence(torch.randn(4, 2, 2), start, None, (torch.zeros(2, 3),))
        y.float().sum().backward()
    assert y.shape == (4, 2, 3) and layer.weight_hh.grad.isfinite().all()
