"""Reading sequences from both ends: against torch's, padding, and that nothing acts by it."""

import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents.deep.reinforce import Reinforce
from seqrl.core.errors import UsageError
from seqrl.networks.bidirectional import Bidirectional
from seqrl.networks.build import build
from seqrl.networks.diagnosis.check import check_network
from seqrl.networks.recurrent import GRU, LSTM, RNN
from seqrl.networks.tokens import Tokens

TORCHS = {"rnn": (RNN, nn.RNN), "lstm": (LSTM, nn.LSTM), "gru": (GRU, nn.GRU)}
WORDS = spaces.MultiDiscrete([5] * 6)


@pytest.mark.parametrize("kind", TORCHS)
def test_it_is_torchs_with_lengths(kind):
    torch.manual_seed(0)
    core, cls = TORCHS[kind]
    mine, theirs = Bidirectional(3, 4, core=core), cls(3, 4, bidirectional=True)
    for way, suffix in ((mine.ahead, ""), (mine.back, "_reverse")):
        for name, weight in way.layers[0].named_parameters():
            weight.data.copy_(getattr(theirs, f"{name}_l0{suffix}"))
    x, length = torch.randn(6, 4, 3), torch.tensor([6, 4, 2, 1])
    packed = nn.utils.rnn.pack_padded_sequence(x, length)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0])
    found = mine.read(x, length)
    for column, size in enumerate(length):
        torch.testing.assert_close(found[:size, column], expected[:size, column])
    ends = torch.stack([expected[size - 1, i, :4] for i, size in enumerate(length)])
    summary = mine.summary(x, length)
    torch.testing.assert_close(summary, torch.cat([ends, expected[0, :, 4:]], -1))
    torch.testing.assert_close(mine.read(x), theirs(x)[0])
    assert mine.features == 8


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_at_the_end_changes_nothing(bidirectional):
    torch.manual_seed(0)
    network = Tokens(WORDS, 4, 5, bidirectional=bidirectional, pad=0)
    short = Tokens(spaces.MultiDiscrete([5] * 4), 4, 5, bidirectional=bidirectional, pad=0)
    short.load_state_dict(network.state_dict(), strict=False)
    words = torch.tensor([[1, 2, 3, 4], [4, 3, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    padded = nn.functional.pad(words, (0, 2))
    torch.testing.assert_close(network.encode(padded), short.encode(words))
    read = Tokens(WORDS, 4, 5, bidirectional=bidirectional)  # without a pad it is a token
    read.load_state_dict(network.state_dict())
    assert not torch.allclose(read.encode(padded)[1:], network.encode(padded)[1:])


def test_it_serves_an_acting_core_as_its_encoder():
    torch.manual_seed(0)
    network = build("gru", WORDS, tokens="lstm", bidirectional=True, size=4, hidden_size=8)
    check_network(network, WORDS, steps=4)
    assert isinstance(network.source.core, Bidirectional) and network.source.features == 128
    shifted = Tokens(spaces.MultiDiscrete([5] * 6, start=[2] * 6), 4, 5, bidirectional=True, pad=2)
    assert shifted.encode(torch.full((2, 6), 3)).shape == (2, 10)


def test_nothing_acts_by_it():
    reason = "it reads what is yet to come, so that nothing can act by it"
    with pytest.raises(UsageError, match=f"network Bidirectional: {reason}"):
        Reinforce(Bidirectional(3, 4), spaces.Discrete(2), spaces.Box(-1, 1, (3,)))
    for name in ("rnn", "lstm", "gru", "attention"):
        with pytest.raises(UsageError, match=f"network {name}: bidirectional: {reason}"):
            build(name, WORDS, bidirectional=True)
