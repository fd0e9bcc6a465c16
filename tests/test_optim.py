"""Devices, optimisers, weights and gradients of agents with a network."""

import copy
import inspect
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from seqrl.agents import PPO, Reinforce
from seqrl.agents.deep.adabound import AdaBound
from seqrl.agents.deep.devices import Draw, pick_device
from seqrl.agents.deep.optim import (
    Optim,
    clip_gradients,
    load_optimizer_state,
    load_weights,
    optimizer_state,
)
from seqrl.core.arrays import to_numpy, to_tensor
from seqrl.core.errors import RunError, UsageError
from seqrl.core.seeding import drawing_from

NAMES = "SGD Momentum Nesterov Adagrad Adadelta RMSprop Adam AdamW RAdam NAdam Adamax ASGD".split()
OWN = {"AdaBound": AdaBound}


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes this computer look as if it had so many GPUs."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_auto_takes_a_gpu_where_there_is_one_and_says_why(gpus):
    gpus(0)
    assert pick_device("auto") == (torch.device("cpu"), "no GPU is there")
    gpus(2)
    assert pick_device("auto") == (torch.device("cuda"), "a GPU is there")
    assert pick_device("cuda:1")[0] == torch.device("cuda:1")
    assert pick_device("cpu")[0] == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused_with_those_that_are(gpus):
    gpus(0)
    with pytest.raises(UsageError, match=r"device .cuda.: expected auto or one of cpu$"):
        pick_device("cuda")
    gpus(2)
    with pytest.raises(UsageError, match=r"'cuda:2': expected auto or one of cpu, cuda:0, cuda:1$"):
        pick_device("cuda:2")


def made(name, weights, learning_rate, weight_decay=0.0):
    optimizer = Optim(0.1, 1.0, name, weight_decay).make(weights)
    optimizer.param_groups[0]["lr"] = learning_rate  # as an agent does before every step
    return optimizer


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_optimisers_by_name_go_downhill_and_resume(name):
    torch.manual_seed(0)
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    obs = torch.randn(8, 3)

    def steps(layer, optimizer, count):
        for _ in range(count):
            loss = (layer(obs) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    one, two = (made(name, m.parameters(), 0.05, 0.01) for m in (first, second))
    begin = steps(first, one, 1)
    assert steps(first, one, 4) < begin
    saved = {k: np.array(v) for k, v in to_numpy(dict(first.state_dict())).items()}
    load_weights(second, saved)
    load_optimizer_state(two, optimizer_state(one))
    steps(first, one, 3), steps(second, two, 3)  # neither writes into the other's numbers
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_momentum_is_that_of_sgd():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = made("Momentum", [weight], 0.1)
    for _ in range(2):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert weight.item() == pytest.approx(-0.1 - 0.1 * 1.9)


def test_what_is_no_optimiser_here_is_refused():
    with pytest.raises(UsageError, match=r"optimizer 'Adm'\. Did you mean \"Adam\"\?"):
        Optim(0.1, 1.0, "Adm")
    for name in ("LBFGS", "SparseAdam", "Optimizer"):  # each wants to be called otherwise
        with pytest.raises(UsageError, match=f"optimizer '{name}'"):
            Optim(0.1, 1.0, name)
    with pytest.raises(UsageError, match="weight_decay -1"):
        Optim(0.1, 1.0, weight_decay=-1.0)
    for eps in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="adam_eps"):
            Optim(0.1, 1.0, adam_eps=eps)


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_optimisers_step_as_torchs_do_to_the_bit_and_so_do_their_copies(name):
    torch.manual_seed(1)
    cls = OWN.get(name) or getattr(torch.optim, name, torch.optim.SGD)
    theirs = nn.Parameter(torch.randn(7))
    mine = nn.Parameter(theirs.detach().clone())
    one, hooked = made(name, [mine], 0.05, 0.01), []
    known = inspect.signature(cls).parameters
    options = {key: value for key, value in one.defaults.items() if key in known}
    two = cls([theirs], **{**options, "lr": 0.05})
    one.register_step_post_hook(lambda *_: hooked.append(1))

    def step(weight, optimizer, k):
        weight.grad = torch.sin(torch.arange(7.0) + k)
        optimizer.step()

    for k in range(4):
        step(mine, one, k)
        step(theirs, two, k)
    assert torch.equal(mine, theirs) and len(hooked) == 4
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert type(copied) is type(one) and issubclass(type(copied), cls)
        (weight,) = copied.param_groups[0]["params"]
        step(weight, copied, 9)
        again = copy.deepcopy(two)
        (expected,) = again.param_groups[0]["params"]
        step(expected, again, 9)
        assert torch.equal(weight, expected) and not torch.equal(weight, mine)


@pytest.mark.parametrize("agent_class", [Reinforce, PPO])
def test_a_gradient_after_a_long_rest_is_no_leap_of_a_policy(agent_class):
    """A thousand of next to nothing, then one a thousandth of the whole clipped norm."""
    weight = nn.Parameter(torch.zeros(1))
    optim = inspect.signature(agent_class).parameters["optim"].default
    leaps = []
    for eps in (1e-8, optim.adam_eps):
        optimizer = replace(optim, adam_eps=eps).make([weight])
        for group in optimizer.param_groups:
            group["lr"] = 1.0
        for gradient in [1e-8] * 1000 + [1e-5]:
            before = weight.item()
            weight.grad = torch.tensor([gradient])
            optimizer.step()
        leaps.append(abs(weight.item() - before))
    assert leaps[0] > 2.4 and leaps[1] < 0.2


def test_weights_that_do_not_fit_are_named():
    layer = nn.Linear(2, 1)
    state = to_numpy(dict(layer.state_dict()))
    with pytest.raises(UsageError, match="entry weights/bias: missing"):
        load_weights(layer, {"weight": state["weight"]})
    with pytest.raises(UsageError, match=r"weight: float32 \[1, 3\], expected float32 \[1, 2\]"):
        load_weights(layer, {**state, "weight": np.zeros((1, 3), np.float32)})
    with pytest.raises(UsageError, match=r"weight: float64 \[1, 2\], expected float32 \[1, 2\]"):
        load_weights(layer, {**state, "weight": np.zeros((1, 2))})


def test_loaded_weights_are_a_copy():
    layer = nn.Linear(2, 1)
    saved = {"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)}
    load_weights(layer, saved)
    with torch.no_grad():
        layer.weight.add_(1)
    assert saved["weight"].tolist() == [[1, 1]]


def test_gradients_are_scaled_down_to_the_norm():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    norm, checks = clip_gradients(layer, layer.parameters(), 0.5)
    assert norm.item() == 5.0 and not checks
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.3, 0.4]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_named(value):
    layers = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for weight in layers.parameters():
        weight.grad = torch.zeros_like(weight)
    layers[1].bias.grad.fill_(value)
    with pytest.raises(RunError, match=r"gradient of 1\.bias is not finite"):
        clip_gradients(layers, layers.parameters(), 0.5)


def test_gradients_whose_squares_overflow_are_refused():
    layer = nn.Linear(2, 1)
    for weight in layer.parameters():
        weight.grad = torch.full_like(weight, 1e30)
    with pytest.raises(RunError, match="gradient of all weights together is not finite"):
        clip_gradients(layer, layer.parameters(), 0.5)


def test_arrays_are_copied_to_aligned_memory_and_tensors_left_where_they_are():
    array, cpu = np.arange(9.0)[1:], torch.device("cpu")
    array.flags.writeable = False  # and no warning
    found = to_tensor({"a": (array,)}, cpu)["a"][0]
    assert found.data_ptr() % 64 == 0 and found.tolist() == array.tolist()
    assert to_tensor(found, cpu) is found
    assert to_tensor(None, cpu) is None


def test_draws_have_their_distribution():
    drawn = {
        "numpy": Draw(np.random.default_rng(1)),
        "torch": Draw(torch.Generator().manual_seed(1)),
    }
    for draw in drawn.values():
        assert draw.exponential((20_000,)).mean() == pytest.approx(1, abs=0.03)
        assert draw.normal((20_000,)).std() == pytest.approx(1, abs=0.02)
        assert draw.uniform((20_000,)).mean() == pytest.approx(0.5, abs=0.01)
        assert draw.uniform((2, 3)).shape == (2, 3)


def test_dropout_draws_from_the_generator_that_is_given():
    x = torch.ones(50)
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        rng = torch.Generator()
        rng.manual_seed(7)
        with drawing_from(rng):
            first = torch.nn.functional.dropout(x)
        with drawing_from(rng):
            second = torch.nn.functional.dropout(x)
        assert torch.equal(torch.get_rng_state(), before)
        found.append((first, second))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(*found[0])
