"""Networks that answer sources token by token: memory, replies, attention, latents, messages."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from seqrl.core import UsageError, tree
from seqrl.core.tokens import BEGIN
from seqrl.networks import HRED, MLP, VHRED, CausalLM, Seq2Seq, build, check_network
from seqrl.networks.diagnosis.activity import activity
from seqrl.networks.diagnosis.check import largest_gap, sample_rollout, slice_time
from seqrl.networks.sequences import seq2seq
from seqrl.networks.sequences.attend import Attend
from seqrl.networks.sequences.vhred import kl
from tests.tiny_models import tiny

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
V, L = 9, 5
SPACE = spaces.Dict(source=spaces.MultiDiscrete([V] * L), previous=spaces.Discrete(V))
OTHER = spaces.Dict(source=spaces.MultiDiscrete([V + 2] * L), previous=spaces.Discrete(V))
KINDS = {
    "seq2seq": Seq2Seq,
    "none": partial(Seq2Seq, attention="none"),
    "general": partial(Seq2Seq, attention="general", core="rnn", layers=2),
    "additive": partial(Seq2Seq, attention="additive", core="lstm", layers=2),
    "one way": partial(Seq2Seq, bidirectional=False),
    "fed": partial(Seq2Seq, input_feeding=True),
    "tied": partial(Seq2Seq, size=16, tied=True),
    "transformer": partial(Seq2Seq, core="attention", layers=2),
    "transformer, fed": partial(Seq2Seq, core="attention", input_feeding=True),
    "hred": HRED,
    "hred, dot": partial(HRED, attention="dot", core="lstm"),
    "vhred": VHRED,
    "vhred, dot": partial(VHRED, attention="dot", latent=3),
    "mlp": lambda space, size: MLP(VHRED(space, size), size),
}
READERS = [*KINDS]
KINDS |= {
    "gpt2": lambda space, size: CausalLM(space, tiny("gpt2", size)),
    "gpt2, window": lambda space, size: CausalLM(space, tiny("gpt2", size), window=13),
    "llama": lambda space, size: CausalLM(space, tiny("llama", size)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def made(kind, space=SPACE):
    return KINDS[kind](space, 16).eval()


def rollout(steps, envs, rate, seed=0, space=SPACE):
    """Observations and starts; the share of steps at which a reply opens is about `rate`."""
    obs, _, _ = sample_rollout(space, steps, envs, seed)
    rng = np.random.default_rng(seed)
    opens, start = (torch.tensor(rng.random((2, steps, envs))) < rate).unbind()
    spoken = obs["previous"].masked_fill(obs["previous"] == BEGIN, 3)
    obs["previous"] = torch.where(opens, BEGIN, spoken)
    start &= opens
    start[0] = True
    return obs, start


def noise_for(network, start):
    return (torch.randn(*start.shape, network.noise),) if network.noise else ()


@torch.no_grad()
def stepped(network, obs, start, *noise):
    state, outputs = None, []
    for t in range(len(start)):
        step = slice(t, t + 1)
        drawn = [x[step] for x in noise]
        out, state = network(slice_time(obs, step), start[step], state, *drawn)
        outputs.append(out)
    return torch.cat(outputs), state


# the contract


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("space", [SPACE, OTHER], ids=["one vocabulary", "two"])
@every_kind
def test_conformance(kind, space, device):
    network = made(kind, space).to(device)
    assert check_network(network, space, device=device) == 16


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
@every_kind
def test_step_by_step_is_one_call_with_noise_too(kind, rate):
    network = made(kind)
    obs, start = rollout(40, 5, rate)
    noise = noise_for(network, start)
    with torch.no_grad():
        whole, last = network(obs, start, None, *noise)
    outputs, state = stepped(network, obs, start, *noise)
    assert largest_gap(outputs, whole) <= 1e-5
    assert largest_gap(state, last) <= 1e-5


@every_kind
def test_a_rollout_may_be_cut_anywhere(kind):
    network = made(kind)
    obs, start = rollout(24, 4, 0.15)
    noise = noise_for(network, start)
    with torch.no_grad():
        whole, last = network(obs, start, None, *noise)
        for cut in (1, 2, 7, 13, 23):
            parts, state = [], None
            for rows in (slice(cut), slice(cut, None)):
                drawn = [x[rows] for x in noise]
                out, state = network(slice_time(obs, rows), start[rows], state, *drawn)
                parts.append(out)
            assert largest_gap(torch.cat(parts), whole) <= 1e-5
            assert largest_gap(state, last) <= 1e-5


@every_kind
def test_padding_to_another_length_changes_nothing(kind):
    network = made(kind)
    obs, start = rollout(20, 4, 0.2)
    longer = {**obs, "source": torch.nn.functional.pad(obs["source"], (0, 7))}
    with torch.no_grad():
        assert largest_gap(network(longer, start)[0], network(obs, start)[0]) <= 1e-6


@every_kind
def test_a_source_is_looked_at_where_a_reply_opens_and_nowhere_else(kind):
    network = made(kind)
    obs, start = rollout(20, 4, 0.2)
    opens = start | (obs["previous"] == BEGIN)
    hidden = torch.where(opens[..., None], obs["source"], 5)
    changed = torch.where(opens[..., None], 5, obs["source"])
    with torch.no_grad():
        out, _ = network(obs, start)
        assert largest_gap(network({**obs, "source": hidden}, start)[0], out) == 0
        assert largest_gap(network({**obs, "source": changed}, start)[0], out) > 1e-3


@every_kind
def test_memory_follows_rows_that_are_reordered(kind):
    """As beams do: hypotheses are dropped, and others go on in several rows."""
    network = made(kind)
    obs, start = rollout(9, 4, 0.2)
    pick = torch.tensor([2, 2, 0, 3, 3])
    with torch.no_grad():
        _, state = network(slice_time(obs, slice(6)), start[:6])
        late = slice(6, None)
        out, last = network(slice_time(obs, late), start[late], state)
        moved = tree.map(lambda leaf: leaf[pick], state)
        seen = tree.map(lambda leaf: leaf[late][:, pick], obs)
        other, others_last = network(seen, start[late][:, pick], moved)
    assert largest_gap(other, out[:, pick]) <= 1e-6
    assert largest_gap(others_last, tree.map(lambda leaf: leaf[pick], last)) <= 1e-6


@every_kind
def test_rows_do_not_depend_on_their_company(kind):
    network = made(kind)
    obs, start = rollout(20, 6, 0.2)
    with torch.no_grad():
        out, _ = network(obs, start)
        for n in range(6):
            alone, _ = network(tree.map(lambda x, n=n: x[:, n : n + 1], obs), start[:, n : n + 1])
            assert largest_gap(alone, out[:, n : n + 1]) <= 1e-6


@every_kind
def test_every_weight_gets_a_gradient(kind):
    network = made(kind).train()
    obs, start = rollout(12, 6, 0.3)
    noise = noise_for(network, start)
    network(obs, start, None, *noise)[0].square().sum().backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert all("posterior" in name for name in without)
    network.zero_grad()
    answer = torch.where(obs["previous"] == BEGIN, 4, obs["previous"])
    out, _, terms = network.study(obs, start, None, answer, start | True)
    (out.square().sum() + sum(terms.values())).backward()
    unused = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert not unused


@pytest.mark.parametrize("kind", [kind for kind in READERS if "fed" not in kind])
def test_a_rollout_is_one_call_over_time(kind):
    network, calls = made(kind), []
    inner = network.source if kind == "mlp" else network
    inner.writer.register_forward_pre_hook(lambda part, args: calls.append(len(args[0])))
    network(*rollout(30, 4, 0.3))
    assert calls == [30]


@pytest.mark.parametrize("kind", READERS)
def test_a_source_is_read_once(kind):
    network, reads = made(kind), []
    inner = network.source if kind == "mlp" else network
    inner.reader.register_forward_pre_hook(lambda part, args: reads.append(args[0].shape[1]))
    obs, start = rollout(20, 4, 0.2)
    stepped(network, obs, start)
    assert sum(reads) == int((start | (obs["previous"] == BEGIN)).sum())


@pytest.mark.parametrize("kind", READERS)
def test_steps_that_read_nothing_check_no_source(kind, monkeypatch):
    """On a GPU a check waits for the device."""
    network, checked = made(kind), []
    monkeypatch.setattr(seq2seq, "check_sources", lambda _, source, *more: checked.append(source))
    obs, start = rollout(20, 2, 0.2)
    stepped(network, obs, start)
    opens = start | (obs["previous"] == BEGIN)
    assert [len(source) for source in checked] == [n for n in opens.sum(1).tolist() if n]


@pytest.mark.parametrize("kind", ["seq2seq", "transformer", "vhred", "mlp", "llama"])
def test_the_activity_of_its_memory_can_be_drawn(kind):
    obs, _ = rollout(9, 1, 0.3)
    found = activity(made(kind), {name: leaf[:, 0].numpy() for name, leaf in obs.items()})
    assert found.layers


# attention, by hand


def looking(score):
    """Attention whose features are tanh of the context alone."""
    part = Attend(2, score)
    with torch.no_grad():
        part.mix.weight[:] = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]])
        part.mix.bias.zero_()
    return part


SEEN = torch.tensor(
    [[[0.0, 0.2], [math.log(3), 0.6], [9.0, 9.0]]]
)  # [S, L, H], the last is padding
Y = torch.tensor([[[1.0, 0.0]]])  # [T, S, H]
LENGTH = torch.tensor([2])


def test_dot():
    part = looking("dot")
    torch.testing.assert_close(part.weights(Y, SEEN, LENGTH), torch.tensor([[[0.25, 0.75, 0.0]]]))
    found = part(Y, SEEN, LENGTH)
    context = torch.tensor([[[0.75 * math.log(3), 0.25 * 0.2 + 0.75 * 0.6]]])
    torch.testing.assert_close(found, torch.tanh(context))


def test_general_has_weights_in_between():
    part = looking("general")
    with torch.no_grad():
        part.ask.weight[:] = torch.tensor([[0.0, 0.0], [5.0, 0.0]])  # asks for (0, 5)
    expected = torch.tensor([1.0, 3.0]).softmax(0)
    torch.testing.assert_close(part.weights(Y, SEEN, LENGTH)[0, 0, :2], expected)


def test_additive():
    part = looking("additive")
    with torch.no_grad():
        part.ask.weight[:] = torch.eye(2)
        part.show.weight[:] = torch.eye(2)
        part.show.bias.zero_()
        part.weigh.weight[:] = torch.tensor([[1.0, 2.0]])
    each = [math.tanh(1 + a) + 2 * math.tanh(b) for a, b in SEEN[0, :2].tolist()]
    expected = torch.tensor(each).softmax(0)
    torch.testing.assert_close(part.weights(Y, SEEN, LENGTH)[0, 0, :2], expected)


def test_a_source_of_padding_alone_gives_numbers():
    """As the zeros do by which a network is tried."""
    weights = looking("dot").weights(Y, SEEN, torch.tensor([0]))
    torch.testing.assert_close(weights, torch.full((1, 1, 3), 1 / 3))


# latents


def test_divergence_is_the_integral():
    p = torch.tensor([0.3]), torch.tensor([-0.5])
    q = torch.tensor([-0.4]), torch.tensor([0.7])
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)[:, None]

    def density(normal):
        mean, log_variance = (part.double() for part in normal)
        return -0.5 * (
            (x - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi)
        )

    log_p, log_q = density(p), density(q)
    integral = torch.trapezoid(log_p.exp() * (log_p - log_q), x, dim=0)
    assert kl(p, q).item() == pytest.approx(integral.item(), abs=1e-6)
    assert kl(p, p).item() == 0


def likelihood(layer, out, answer):
    """The log-likelihood of each column's answers."""
    logs = torch.log_softmax(layer(out), -1).gather(-1, answer[..., None])[..., 0]
    return logs.sum(0)


@torch.no_grad()
def test_the_bound_is_that_of_numerical_integration():
    """log p = bound + KL from the posterior to p(latent|answer), all three by their integrals."""
    network = VHRED(SPACE, 16, latent=1, free_bits=0.0, word_drop=0.0).eval()
    layer = torch.nn.Linear(16, V)
    for weight in (*network.prior.parameters(), *network.posterior.parameters()):
        weight *= 3
    layer.weight *= 4
    answer = torch.tensor([4, 7, 2])
    source = torch.tensor([3, 5, 8, 0, 0])
    z = torch.linspace(-8, 8, 2001)  # noise of the prior

    def columns(n):
        previous = torch.tensor([BEGIN, 4, 7])[:, None].expand(3, n)
        start = torch.zeros(3, n, dtype=torch.bool)
        start[0] = True
        obs = {"source": source.expand(3, n, 5), "previous": previous}
        return obs, start, answer[:, None].expand(3, n)

    obs, start, told = columns(len(z))
    out, state = network(obs, start, None, z.expand(3, -1)[..., None])
    log_likelihood = likelihood(layer, out, told)
    normal = torch.distributions.Normal(0, 1).log_prob(z)
    log_p = torch.trapezoid((log_likelihood + normal).exp(), z).log().item()

    latents = state["about"][:, -1]  # mean + spread * z
    obs, start, told = columns(40_000)
    posterior = []
    network.posterior.register_forward_hook(lambda part, args, out: posterior.append(out))
    out, _, terms = network.study(obs, start, None, told, start | True)
    each = likelihood(layer, out, told)
    bound = each.mean().item() - 3 * terms["kl"].item()
    mean, log_variance = posterior[0][0].tolist()
    q = torch.distributions.Normal(mean, math.exp(0.5 * log_variance)).log_prob(latents)
    true = log_likelihood + normal - log_p - math.log((latents[-1] - latents[0]) / 16)
    gap = torch.trapezoid(q.exp() * (q - true), latents).item()
    assert terms["kl"] > 0.05 and gap > 0.01
    error = (each.std() / len(each) ** 0.5).item()
    assert error < 0.005 and bound == pytest.approx(log_p - gap, abs=4 * error)


@torch.no_grad()
def studied(network, **options):
    obs, start = rollout(12, 6, 0.3)
    for name, value in options.items():
        setattr(network, name, value)
    torch.manual_seed(1)
    return network.study(obs, start, None, obs["previous"], start | True)


def test_the_divergence_is_weighted_annealed_and_free_up_to_a_point():
    network = VHRED(SPACE, 16, latent=2, free_bits=0.0).train()
    whole = studied(network)[2]["kl"]
    assert studied(network, kl_weight=0.5)[2]["kl"] == pytest.approx(0.5 * whole.item())
    assert studied(network, kl_weight=1.0, kl_anneal=100)[2]["kl"] == 0
    network.update(None, torch.ones(5, 5, dtype=torch.bool))
    assert studied(network)[2]["kl"] == pytest.approx(0.25 * whole.item())
    network.update(None, torch.ones(500, dtype=torch.bool))
    assert studied(network)[2]["kl"] == pytest.approx(whole.item())
    obs, start = rollout(12, 6, 0.3)
    replies = int((start | (obs["previous"] == BEGIN)).sum())
    free = studied(network, free_bits=9.0)[2]["kl"]
    assert free == pytest.approx(2 * 9.0 * replies / start.numel())
    assert VHRED.update(network, None, start & False) is None
    assert int(network.state_dict()["studied"]) == 525


def test_only_what_is_beyond_the_free_nats_is_pushed_back():
    network = VHRED(SPACE, 16, latent=2, free_bits=0.25)
    divergence = torch.tensor([[0.1, 0.5], [0.3, 0.3]], requires_grad=True)  # means 0.2 and 0.4
    term = network._term(divergence, torch.tensor(8))
    term.backward()
    assert term.item() == pytest.approx(2 * (0.25 + 0.4) / 8)
    assert divergence.grad.tolist() == [[0, 0.125], [0, 0.125]]


def test_words_are_dropped_in_training_alone():
    network = VHRED(SPACE, 16, word_drop=0.5)
    kept = studied(network.eval())[0]
    assert not torch.equal(studied(network.train())[0], kept)
    assert torch.equal(studied(network, word_drop=0.0)[0], kept)


def test_replies_that_nobody_told_cost_nothing():
    network = VHRED(SPACE, 16)
    obs, start = rollout(12, 6, 0.3)
    *_, terms = network.study(obs, start, None, obs["previous"], start & False)
    assert terms["kl"] == 0


# by name, and what is refused in a line


def test_by_name():
    network = build("vhred", SPACE, seed=0, hidden_size=16, latent=3, core="lstm", attention="dot")
    assert isinstance(network, VHRED) and network.noise == 3 and network.features == 16
    assert network.initial_state(2)["about"].shape == (2, 19)
    assert set(network.initial_state(2)) == {"about", "written", "seen", "length"}
    assert set(build("hred", SPACE).initial_state(2)) == {"about", "written"}


WORDS, WORD = SPACE["source"], SPACE["previous"]


@pytest.mark.parametrize(
    "space, said",
    [
        (spaces.Discrete(4), "network Seq2Seq: no 'source' in Discrete"),
        (spaces.Dict(source=WORDS), "no 'previous' in Dict.*expected a Dict of \"source\""),
        (spaces.Dict(source=WORD, previous=WORD), "source is Discrete.9.; expected a Dict"),
        (
            spaces.Dict(source=spaces.MultiDiscrete([4, 5]), previous=WORD),
            "expected one vocabulary of at least 3 tokens, from 0 on",
        ),
        (spaces.Dict(source=WORDS, previous=WORDS), "previous is MultiDiscrete"),
        (spaces.Dict(source=WORDS, previous=spaces.Discrete(9, start=1)), "from 0 on"),
        (spaces.Dict(source=WORDS, previous=WORD, more=WORD), "more than source and previous"),
    ],
    ids=["no dict", "no previous", "no tokens", "counts", "tokens", "start", "more"],
)
def test_other_spaces_are_refused(space, said):
    with pytest.raises(UsageError, match=said) as refused:
        build("seq2seq", space)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name, args, said",
    [
        ("seq2seq", {"attention": "dott"}, "attention 'dott': unknown. Did you mean \"dot\""),
        ("seq2seq", {"core": "grru"}, "core 'grru': unknown. Did you mean \"gru\""),
        ("seq2seq", {"latent": 3}, "network seq2seq: unknown argument 'latent'"),
        ("seq2seq", {"hidden_size": 15}, "hidden_size 15: expected an even number for two"),
        ("seq2seq", {"core": "attention", "hidden_size": 18}, "an even multiple of heads = 4"),
        ("seq2seq", {"tied": True}, "tied: size 32 has to be hidden_size, 64"),
        ("seq2seq", {"heads": 2}, "heads, window: no effect with core gru"),
        (
            "seq2seq",
            {"core": "attention", "bidirectional": False},
            "bidirectional: no effect with core attention",
        ),
        ("hred", {"input_feeding": True}, "input_feeding: nothing is fed without attention"),
        ("vhred", {"latent": 0}, "latent 0: expected a whole number of at least 1"),
        ("seq2seq", {"tied": "maybe"}, "tied 'maybe': expected True or False"),
        ("hred", {"input_feeding": "no"}, "input_feeding 'no': expected True or False"),
        ("vhred", {"bidirectional": 1}, "bidirectional 1: expected True or False"),
        ("vhred", {"kl_weight": "much"}, "kl_weight 'much': expected a number of at least 0"),
        ("vhred", {"free_bits": None}, "free_bits None: expected a number of at least 0"),
        ("vhred", {"kl_weight": -1.0}, "kl_weight -1.0: expected a number of at least 0"),
        ("vhred", {"word_drop": 1.0}, "word_drop 1.0: expected a number of at least 0 and below"),
        ("vhred", {"latnet": 3}, "unknown argument 'latnet'. Did you mean \"latent\".*window"),
    ],
)
def test_arguments_that_do_not_fit(name, args, said):
    with pytest.raises(UsageError, match=said):
        build(name, SPACE, **args)


@pytest.mark.parametrize(
    "source, said",
    [
        ([0, 0, 3, 4, 5], r"Seq2Seq: padding \(0\) before a token of a source"),
        ([3, 0, 4, 0, 0], r"padding \(0\) before a token of a source; expected it behind the last"),
        ([3, 9, 0, 0, 0], "token 9 in a source: unknown, expected 0 to 8"),
        ([3, -1, 0, 0, 0], "token -1 in a source: unknown"),
        ([0, 0, 0, 0, 0], r"an empty source, nothing but padding \(0\)"),
    ],
    ids=["left", "within", "unknown", "below", "empty"],
)
def test_sources_that_cannot_be_read(source, said):
    network = Seq2Seq(SPACE, 16)
    good = torch.tensor([3, 4, 0, 0, 0])
    obs = {"source": torch.stack([good, torch.tensor(source)])[None]}
    obs["previous"] = torch.full((1, 2), BEGIN)
    with pytest.raises(UsageError, match=said):
        network(obs, torch.ones(1, 2, dtype=torch.bool))
