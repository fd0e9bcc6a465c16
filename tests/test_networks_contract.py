"""Plain modules, probe and check_network: what they accept, and what they say of the rest."""

import threading

import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.core import UsageError
from seqrl.networks import LSTM, Network, as_network, check_network, probe
from seqrl.networks.base import copied

VECTOR = spaces.Box(-1, 1, (3,))


class Bad(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, obs):
        return self.answer(obs)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda obs: obs[:, 0], r"network Bad: expected output \[B, features\].*got shape \[2\]"),
        (lambda obs: obs[:1], r"B = 2, got shape \[1, 3\]"),
        (lambda obs: (obs, None), "got tuple"),
        (lambda obs: obs * float("nan"), "network Bad: expected finite floats"),
        (lambda obs: obs.long(), "expected finite floats, got .* torch.int64"),
        (lambda obs: obs @ torch.ones(4, 1), "network Bad: failed on a batch of zeros from Box"),
    ],
)
def test_probe_names_what_a_plain_module_gets_wrong(answer, message):
    with pytest.raises(UsageError, match=message):
        probe(as_network(Bad(answer)), VECTOR)


class Own(Network):
    """A user's network: sums observations, or does it wrongly."""

    features = 3

    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def initial_state(self, n):
        return torch.zeros(n, 3)

    def forward(self, obs, start, state=None):
        state = self.initial_state(obs.shape[1]) if state is None else state
        outputs = []
        for t in range(len(obs)):
            if self.fault not in ("no reset", "late reset"):
                state = state * ~start[t][:, None]
            state = state + obs[t]
            outputs.append(state * self.scale)
            if self.fault == "late reset":
                state = state * ~start[t][:, None]
        self.calls += self.fault == "counts"
        out = torch.stack(outputs)
        return FAULTS.get(self.fault, lambda out, state, obs: (out, state))(out, state, obs)


FAULTS = {
    "future": lambda out, state, obs: (out + obs.flip(0), state),
    "mixes": lambda out, state, obs: (out + obs.roll(1, 1), state),
    "state": lambda out, state, obs: (out, state.t()),
    "shape": lambda out, state, obs: (out.transpose(0, 1), state),
    "features": lambda out, state, obs: (out[..., :2], state),
    "detached": lambda out, state, obs: (out.detach(), state),
    "forgets": lambda out, state, obs: (out, state if len(obs) == 1 else 0 * state),
    "gradient": lambda out, state, obs: (out + (obs.roll(1, 0) - obs.roll(1, 0).detach()), state),
}


def test_a_users_network_passes():
    assert check_network(Own(), VECTOR) == 3
    assert check_network(LSTM(Own(), 8), VECTOR) == 8


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no reset", "a start does not clear the memory"),
        ("late reset", "a start does not clear the memory"),
        ("future", "step by step and in one call differ"),
        ("mixes", "an observation changed outputs before it, of another episode or"),
        ("state", "every part of its memory to have N = 2 as axis 0, got shape"),
        ("shape", r"expected output \[T, N, features\] = \[1, 2, 3\], got shape \[2, 1, 3\]"),
        ("features", r"= \[1, 2, 3\], got shape \[1, 2, 2\]; set its attribute"),
        ("detached", "no gradient reaches its weights"),
        ("forgets", "the memories left step by step and in one call differ"),
        ("counts", "forward changed calls"),
        ("gradient", "a gradient reaches an observation that is later, or"),
    ],
)
def test_check_network_names_the_property_that_fails(fault, message):
    with pytest.raises(UsageError, match=f"network Own: .*{message}"):
        check_network(Own(fault), VECTOR)


def test_probe_builds_lazy_layers_and_leaves_training_mode_and_statistics():
    network = LSTM(nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4), nn.Tanh()), 8)
    with pytest.raises(UsageError, match=r"network LSTM: .*call probe\(network"):
        network.initial_state(1)
    assert probe(network, VECTOR) == 8 and network.training
    assert not network.source.module[1].running_mean.any()
    assert network.initial_state(2)[0].shape == (2, 1, 8)
    assert probe(as_network(nn.LazyLinear(5)), VECTOR) == 5


def test_as_network_refuses_what_is_no_module():
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, built"):
        as_network(nn.Linear)
    module = nn.Linear(2, 2)
    module.initial_state = None
    with pytest.raises(UsageError, match=r"derive it from seqrl\.networks\.Network"):
        as_network(module)


class Changed(nn.Module):
    """A user's module that does one thing in another way."""

    def __init__(self, how="", dtype=torch.float32):
        super().__init__()
        self.layer, self.how = nn.Linear(3, 4).to(dtype), how
        if how == "lock":
            self.held = threading.Lock()

    def forward(self, x):
        if self.how == "in place":
            x = x.mul_(0.5)
        if self.how == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                return self.layer(x)
        self.kept = {"out": [self.layer(x.to(self.layer.weight.dtype))]}
        return self.kept["out"][0]


class Hidden(Own):
    """Its initial_state is not that of its forward."""

    def __init__(self, initial):
        super().__init__()
        self.initial = initial

    def forward(self, obs, start, state=None):
        state = torch.zeros(obs.shape[1], 3) if state is None else state
        return super().forward(obs, start, state)

    def initial_state(self, n):
        return self.initial(n)


@pytest.mark.parametrize(
    "initial", [lambda n: None, lambda n: torch.zeros(n, 2), lambda n: (torch.zeros(n, 3),)]
)
def test_memory_is_that_of_initial_state(initial):
    for tried in (probe, check_network):
        with pytest.raises(UsageError, match=r"Hidden: initial_state\(2\) gives .*override"):
            tried(Hidden(initial), VECTOR)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_another_axis_in_front_of_memory_never_passes_by_chance(layers):
    class Layered(Hidden):
        def forward(self, obs, start, state=None):
            out, state = super().forward(obs, start)
            return out, state.expand(layers, *state.shape)

    network = Layered(lambda n: torch.zeros(layers, n, 3))
    with pytest.raises(UsageError, match=r"every part of its memory to have N = \d as axis 0"):
        probe(network, VECTOR)


def test_an_input_that_is_changed_in_place_is_named():
    with pytest.raises(UsageError, match="Changed: forward changes its observations or memory"):
        check_network(Changed("in place"), VECTOR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_the_bits_are_refused_with_the_way_on(dtype):
    for network in (Changed(dtype=dtype), LSTM(VECTOR, 4).to(dtype), nn.LazyLinear(2, dtype=dtype)):
        with pytest.raises(
            UsageError, match=r"expected float32 or float64: call float\(\).*autocas"
        ):
            as_network(network)
    assert check_network(LSTM(Changed("autocast"), 4), VECTOR) == 4


def test_what_is_compiled_is_the_network_it_was():
    network = LSTM(VECTOR, 4, peephole=True)
    wrapped = torch.compile(network, backend="eager")
    assert as_network(wrapped) is network and network._compiled_call_impl is not None
    assert probe(as_network(wrapped), VECTOR) == 4
    plain = nn.Sequential(nn.Linear(3, 4))
    assert as_network(torch.compile(plain, backend="eager")).module is plain


def test_a_copy_keeps_the_numbers_of_kept_outputs_and_says_what_has_none():
    module = Changed()
    out = module(torch.ones(1, 3))
    (kept,) = copied(module).kept["out"]
    assert torch.equal(kept, out) and kept.is_leaf
    with pytest.raises(UsageError, match=r"network Changed: it cannot be copied \(TypeError: can"):
        copied(Changed("lock"))
