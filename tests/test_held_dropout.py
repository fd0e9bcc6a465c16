"""Dropout held over time in recurrent layers: equations by hand, draws, neutral values."""

import pytest
import torch

from seqrl.core.errors import UsageError
from seqrl.networks.layers import (
    GRULayer,
    IdentityLayer,
    LSTMLayer,
    PeepholeLayer,
    ReluLayer,
    SigmoidLayer,
    TanhLayer,
)
from seqrl.networks.recurrent import GRU, LSTM, RNN
from seqrl.networks.resets import reset_layout

LAYERS = [GRULayer, LSTMLayer, PeepholeLayer, TanhLayer, ReluLayer, SigmoidLayer, IdentityLayer]
CORES = {
    "rnn": lambda **options: RNN(3, 8, **options),
    "lstm": lambda **options: LSTM(3, 8, **options),
    "peephole": lambda **options: LSTM(3, 8, peephole=True, **options),
    "gru": lambda **options: GRU(3, 8, layers=2, shortcut=True, **options),
}


def rollout(steps=6, n=4):
    torch.manual_seed(0)
    start = torch.zeros(steps, n, dtype=torch.bool)
    start[2:3, 1] = start[3:4, 2] = True
    return torch.randn(steps, n, 3), start


def memory_of(cls, n=4, hidden=5):
    count = 2 if cls in (LSTMLayer, PeepholeLayer) else 1
    return tuple(torch.randn(n, hidden) for _ in range(count))


@pytest.mark.parametrize("cls", LAYERS)
def test_with_a_mask_of_ones_it_is_the_plain_call(cls):
    x, start = rollout()
    layer, memory = cls(3, 5), memory_of(cls)
    found, after = layer.masked_sequence(x, start, memory, torch.ones(4, 5))
    expected, last = layer.sequence(x, start, reset_layout(start), memory)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after, tuple(last), atol=1e-5, rtol=1e-5)


def gates_of(layer, x, h, mask):
    own = x @ layer.weight_ih.T + layer.bias_ih
    return own.chunk(layer.gates, -1), ((h * mask) @ layer.weight_hh.T + layer.bias_hh).chunk(
        layer.gates, -1
    )


def test_the_gates_alone_read_what_is_masked():
    """Gal and Ghahramani's equations, where torch's GRU also keeps z h of the whole h."""
    x, _ = rollout(1)
    mask = torch.tensor([[2.0, 0.0, 2.0, 0.0, 2.0]]).expand(4, 5)
    h, c = torch.randn(4, 5), torch.randn(4, 5)
    layer = TanhLayer(3, 5)
    ((a,), (b,)) = gates_of(layer, x[0], h, mask)
    torch.testing.assert_close(layer.masked_step(x[0], (h,), mask)[0], torch.tanh(a + b))
    layer = LSTMLayer(3, 5)
    i, f, g, o = (a + b for a, b in zip(*gates_of(layer, x[0], h, mask), strict=True))
    new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    found = layer.masked_step(x[0], (h, c), mask)
    torch.testing.assert_close(found, (o.sigmoid() * new.tanh(), new))
    layer = GRULayer(3, 5)
    (r, z, n), (ur, uz, un) = gates_of(layer, x[0], h, mask)
    r, z = (r + ur).sigmoid(), (z + uz).sigmoid()
    n = (n + r * un).tanh()
    torch.testing.assert_close(layer.masked_step(x[0], (h,), mask)[0], (1 - z) * n + z * h)


def test_the_same_units_are_dropped_at_every_step():
    """A linear recurrence of identity: units that are kept double, the others stay 0."""
    torch.manual_seed(3)
    core = RNN(3, 8, nonlinearity="identity", init=0.0, recurrent_dropout=0.5).train()
    torch.nn.init.eye_(core.layers[0].weight_hh)
    start = torch.zeros(4, 50, dtype=torch.bool)
    y, _ = core(torch.randn(4, 50, 3), start, torch.ones(50, 1, 8))
    kept = y[0] > 0
    assert 0.4 < kept.float().mean() < 0.6
    for t in range(4):
        torch.testing.assert_close(y[t], kept * 2.0 ** (t + 1))


def test_inputs_are_dropped_alike_at_every_step_and_the_shortcut_shows_all_of_them():
    torch.manual_seed(3)
    core = RNN(8, 8, nonlinearity="identity", init=0.0, input_dropout=0.5, shortcut=True).train()
    torch.nn.init.eye_(core.layers[0].weight_ih)
    x = torch.ones(4, 50, 8)
    y, _ = core(x, torch.zeros(4, 50, dtype=torch.bool))
    dropped, shown = y.chunk(2, -1)
    assert torch.equal(shown, x) and set(dropped.unique().tolist()) == {0.0, 2.0}
    assert all(torch.equal(dropped[0], dropped[t]) for t in range(4))


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("option", ["input_dropout", "recurrent_dropout"])
def test_it_draws_in_training_alone_one_step_included(name, option):
    x, start = rollout()
    torch.manual_seed(1)
    core, plain = CORES[name](**{option: 0.5}), CORES[name]()
    plain.load_state_dict(core.state_dict())
    before = torch.get_rng_state()
    assert torch.equal(core.eval()(x, start)[0], plain.eval()(x, start)[0])
    assert torch.equal(torch.get_rng_state(), before)
    core.train()
    state = core.own_initial_state(4)
    state = tuple(part + 1 for part in state) if isinstance(state, tuple) else state + 1
    for steps in (1, 6):
        opens = torch.zeros(steps, 4, dtype=torch.bool)
        first, second = (core(x[:steps], opens, state)[0] for _ in range(2))
        assert not torch.equal(first, second)
    core = CORES[name](**{option: 0.0}).train()
    plain.load_state_dict(core.state_dict())
    assert torch.equal(core(x, start)[0], plain.train()(x, start)[0])


def test_a_share_of_all_is_refused():
    for option in ("input_dropout", "recurrent_dropout"):
        with pytest.raises(UsageError, match=f"{option} 1.0: expected a number of at least 0"):
            GRU(3, 4, **{option: 1.0})
