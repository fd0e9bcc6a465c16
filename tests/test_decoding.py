"""Decoding: beams beside exhaustive search, greedy acting and rollouts; chances by hand."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from seqrl.agents import PPO, DeepQ, Imitation, Reinforce
from seqrl.agents.decoding.beam import Beam, Hypotheses, extended, highest
from seqrl.agents.decoding.decoder import decoder
from seqrl.agents.decoding.distribution import tempered, top_k, top_p
from seqrl.agents.decoding.sampling import Sampling
from seqrl.agents.deep.heads import log_softmax
from seqrl.core import UsageError, tree
from seqrl.core.tokens import BEGIN, END
from seqrl.networks import GRU, HRED, VHRED, Seq2Seq
from seqrl.training import evaluate
from tests.words import Words, words

TASK = Words(turns=3)
SPACE, ACTIONS = TASK.observation_space, TASK.action_space
V = ACTIONS.n
NETWORKS = {
    "seq2seq": Seq2Seq,
    "fed": lambda space, size: Seq2Seq(space, size, core="lstm", input_feeding=True),
    "transformer": lambda space, size: Seq2Seq(space, size, core="attention", window=6),
    "hred": HRED,
    "vhred": lambda space, size: VHRED(space, size, latent=3),
    "gru": GRU,
}
every_network = pytest.mark.parametrize("name", NETWORKS)
NOT_END = [token for token in range(V) if token != END]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def agent_of(name="seq2seq", cls=Imitation, seed=0, end=1.0):
    """An agent with chances far from even, which depend on what was said."""
    torch.manual_seed(seed)
    agent = cls(NETWORKS[name](SPACE, 8), ACTIONS, SPACE, seed=seed, device="cpu")
    with torch.no_grad():
        layer = next(iter(agent.parts.values())).module.layer
        layer.weight.normal_(0, 1.5)
        layer.bias[END] = end
        for part in agent.network.modules():
            if isinstance(part, torch.nn.Embedding):
                part.weight.mul_(3)
    return agent


def opening(n, seed=0):
    obs, _ = words(n, turns=3).reset(seed=seed)
    return obs, np.ones(n, bool)


def opened(agent, n=3, seed=0, noise=None):
    """What a search begins with: observations, first logits, memory."""
    obs, start = opening(n, seed)
    return obs, *agent.logits(obs, start, None, noise)


def log_prob_of(agent, obs, said, noise=None):
    """Log-probabilities [N] of replies [N, T] up to their END, in one rollout."""
    n, steps = said.shape
    previous = np.concatenate([np.full((n, 1), BEGIN), said[:, :-1]], 1)
    previous[:, 1:][previous[:, 1:] == BEGIN] = 0
    seen = {"source": np.repeat(obs["source"][None], steps, 0), "previous": previous.T}
    start = np.zeros((steps, n), bool)
    start[0] = True
    leaves = [torch.as_tensor(x) for x in (seen["source"], seen["previous"], start)]
    if noise is not None:
        noise = torch.as_tensor(np.repeat(noise[None], steps, 0))
    with torch.no_grad():
        out = agent.policy.module.eval()(
            {"source": leaves[0], "previous": leaves[1]}, leaves[2], None, noise
        )[0]
    logs = torch.log_softmax(out, -1).gather(-1, torch.as_tensor(said.T)[..., None])[..., 0].T
    ended = np.cumsum(said == END, 1) - (said == END) > 0
    return np.where(ended, 0.0, logs.numpy()).sum(1)


def played(agent, turns=16, n=4, seed=1, explore=False):
    """The tokens [T, N] that an agent says in environments of several replies."""
    envs = words(n, turns=3)
    (obs, _), start, state, said = envs.reset(seed=seed), np.ones(n, bool), None, []
    for _ in range(turns):
        decision = agent.act(obs, start, state, explore=explore)
        said.append(decision.action)
        obs, _, terminated, _, _ = envs.step(decision.action)
        start, state = terminated, decision.state
    return np.stack(said)


# a beam


@every_network
@pytest.mark.parametrize("longest", [2, 4, 64])
def test_a_beam_of_one_is_greedy(name, longest):
    agent = agent_of(name)
    np.testing.assert_array_equal(played(Beam(agent, 1, longest=longest)), played(agent))


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("name", ["seq2seq", "hred"])
def test_a_wide_beam_finds_what_exhaustive_search_does(name, alpha):
    agent, longest = agent_of(name, end=-1.0), 3
    beam = Beam(agent, V**longest, length_penalty=alpha, longest=longest)
    obs, *first = opened(agent, 4)
    best, scores = beam.search(obs, *first)
    replies = [
        (*begun, last)
        for length in range(longest)
        for begun in itertools.product(NOT_END, repeat=length)
        for last in ([END] if length < longest - 1 else range(V))
    ]
    assert len(set(replies)) == 1 + 6 + 36 * 7
    padded = np.array([[*reply, *[END] * (longest - len(reply))] for reply in replies])
    for row in range(4):
        one = {key: np.repeat(x[row : row + 1], len(replies), 0) for key, x in obs.items()}
        lengths = np.array([len(reply) for reply in replies])
        found = log_prob_of(agent, one, padded) / ((5 + lengths) / 6) ** alpha
        assert scores[row] == pytest.approx(found.max(), abs=1e-5)
        np.testing.assert_array_equal(best[row], padded[found.argmax()])


@every_network
def test_memory_follows_its_hypothesis(name):
    """What the search thinks of a reply is what one rollout of it gives."""
    agent = agent_of(name, end=-2.0)
    obs, *first = opened(agent, 5)
    best, scores = Beam(agent, 4, longest=6).search(obs, *first)
    assert (best[:, :3] != END).any(1).all()
    np.testing.assert_allclose(scores, log_prob_of(agent, obs, best), atol=1e-5)
    assert (scores >= Beam(agent, 1, longest=6).search(obs, *first)[1] - 1e-6).all()


@every_network
@pytest.mark.parametrize("explore", [False, True])
def test_memory_goes_on_from_what_was_said(name, explore):
    """Over turns: the agent, given the same tokens, comes to the same memory."""
    agent, envs = agent_of(name), words(3, turns=3)
    beam = Beam(agent, 3, seed=0)
    (obs, _), start, state, memory = envs.reset(seed=2), np.ones(3, bool), None, None
    for _ in range(12):
        decision = beam.act(obs, start, state, explore=explore)
        noise = decision.state["noise"]
        assert (noise is not None) == (explore and name == "vhred")
        _, memory = agent.logits(obs, start, memory, noise)
        for one, other in zip(
            tree.leaves(memory), tree.leaves(decision.state["agent"]), strict=True
        ):
            np.testing.assert_array_equal(one, other)
        obs, _, start, _, _ = envs.step(decision.action)
        state = decision.state


def test_a_latent_is_drawn_once_a_reply_and_kept():
    agent = agent_of("vhred", end=-2.0)
    beam, (obs, start) = Beam(agent, 3, seed=0, longest=6), opening(4)
    first = beam.act(obs, start)
    noise = first.state["noise"]
    plan, place = first.state["plan"], first.state["place"]
    obs_, *opened_ = opened(agent, 4, noise=noise)
    best, scores = beam.search(obs_, *opened_, noise)
    np.testing.assert_array_equal(plan, best)
    np.testing.assert_allclose(scores, log_prob_of(agent, obs, best, noise), atol=1e-5)
    later = {**obs, "previous": np.where(first.action == BEGIN, 0, first.action)}
    second = beam.act(later, ~start, first.state)
    goes_on = (place == 1) & (first.action != END)
    assert goes_on.any()
    np.testing.assert_array_equal(second.state["noise"][goes_on], noise[goes_on])
    assert not np.allclose(beam.act(obs, start).state["noise"], noise)


def test_rows_are_searched_apart():
    agent = agent_of()
    obs, *first = opened(agent, 6)
    beam = Beam(agent, 3, longest=5)
    best, scores = beam.search(obs, *first)
    assert len({int((row != END).sum()) for row in best}) > 1  # they end at different times
    for i in range(6):
        row = tree.map(lambda leaf, i=i: leaf[i : i + 1], (obs, *first))
        alone, score = beam.search(*row)
        np.testing.assert_array_equal(alone[0], best[i])
        np.testing.assert_allclose(score[0], scores[i], atol=1e-5)


class Table:
    """A policy of hand-worked chances: by the reply so far, of END and the tokens 3 and 4."""

    action_space, gamma, device = spaces.Discrete(5), 1.0, "cpu"
    network = SimpleNamespace(noise=0)

    def __init__(self, chances):
        self.chances = chances

    def logits(self, obs, start, state=None, noise=None):
        before = np.zeros((len(start), 3), np.int64) if state is None else state
        said = np.where(
            start[:, None], 0, np.concatenate([before[:, 1:], obs["previous"][:, None]], 1)
        )
        logs = np.full((len(start), 5), -1e30)
        for row, reply in enumerate(said.tolist()):
            logs[row, 2:] = np.log(self.chances[tuple(x for x in reply if x > 2)])
        return logs, said


# after 3 the reply goes anywhere, after 4 it surely ends: greedy is misled
GARDEN = Table({
    (): (1e-9, 0.6, 0.4), (3,): (0.3, 0.35, 0.35), (4,): (0.9, 0.05, 0.05),
    (3, 3): (0.9, 0.05, 0.05), (3, 4): (0.5, 0.25, 0.25),
    (4, 3): (1, 1e-9, 1e-9), (4, 4): (1, 1e-9, 1e-9),
})  # fmt: skip


def search(table, width, **options):
    obs = {"previous": np.array([BEGIN])}
    beam = Beam(table, width, longest=3, **options)
    best, score = beam.search(obs, *table.logits(obs, np.ones(1, bool)))
    return best[0].tolist(), score[0]


def test_a_beam_by_hand():
    assert search(GARDEN, 1) == ([3, 3, END], pytest.approx(np.log(0.6 * 0.35 * 0.9)))
    assert search(GARDEN, 2) == ([4, END, END], pytest.approx(np.log(0.4 * 0.9)))


def test_the_length_penalty_by_hand():
    """log .36 over (7/6)^a against log .189 over (8/6)^a: the longer wins from a = 3.662 on."""
    alpha = np.log(np.log(0.189) / np.log(0.36)) / np.log(8 / 7)
    assert alpha == pytest.approx(3.6621, abs=1e-4)
    said, score = search(GARDEN, 3, length_penalty=alpha - 0.05)
    assert said == [4, END, END]
    assert score == pytest.approx(np.log(0.36) / (7 / 6) ** (alpha - 0.05))
    said, score = search(GARDEN, 3, length_penalty=alpha + 0.05)
    assert said == [3, 3, END]
    assert score == pytest.approx(np.log(0.189) / (8 / 6) ** (alpha + 0.05))


def test_a_complete_hypothesis_is_kept():
    """It is complete early and behind; what was ahead of it falls behind later."""
    chances = {key: (0.02, 0.49, 0.49) for key in [(3, 3), (3, 4), (4,), (4, 3), (4, 4)]}
    table = Table({(): (0.3, 0.69, 0.01), (3,): (0.02, 0.49, 0.49), **chances})
    assert search(table, 2) == ([END, END, END], pytest.approx(np.log(0.3)))


def test_the_first_of_equals_is_before():
    values = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    places, numbers = highest(values, 3)
    assert places.tolist() == [[1, 2, 0], [0, 1, 2]]
    assert numbers.tolist() == [[3.0, 3.0, 1.0], [2.0, 2.0, 2.0]]
    assert highest(values, 9)[0].shape == (2, 4)


def test_a_row_of_few_hypotheses_is_extended_once_by_each_token():
    """However many a row beside it has: three tokens after one hypothesis, six after two."""
    live = Hypotheses(np.array([0, 0, 1]), np.array([-1.0, -2.0, -1.0]), np.zeros((3, 0), int))
    logs = np.log([[0.2, 0.3, 0.5]] * 3)
    parent, found = extended(live, logs, np.array([9, 9]))
    assert (
        parent.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and found.row.tolist() == [0] * 6 + [1] * 3
    )
    assert found.said[6:, 0].tolist() == [2, 1, 0]


# what a beam assumes


def test_an_observation_without_previous_is_refused():
    space = spaces.Box(-1, 1, (3,))
    beam = Beam(Reinforce(GRU(space, 4), ACTIONS, space, device="cpu"), 2)
    with pytest.raises(UsageError, match="beam on an observation without `previous`: expected"):
        beam.act(np.zeros((2, 3), np.float32), np.ones(2, bool))


def test_what_a_plan_did_not_foresee_is_refused():
    beam, (obs, start) = Beam(agent_of(end=-2.0), 2), opening(4)
    first = beam.act(obs, start)
    assert (first.action > END).any()
    later = {**obs, "previous": first.action}
    with pytest.raises(UsageError, match=r"`previous` is (3|4) behind"):
        wrong = np.where(first.action == 3, 4, 3)
        beam.act({**obs, "previous": wrong}, ~start, first.state)
    with pytest.raises(UsageError, match="'source' changed within a reply; expected nothing but"):
        beam.act({**later, "source": obs["source"][::-1]}, ~start, first.state)
    beam.act({**obs, "source": obs["source"][::-1]}, ~start, first.state)  # a new turn


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Beam(agent_of(), 0), "beam 0: expected a whole number of at least 1"),
        (lambda: Beam(agent_of(), 1, length_penalty=1.0), "no effect with beam 1"),
        (lambda: Beam(agent_of(), 2, length_penalty=-1.0), "length_penalty -1.0: expected"),
        (lambda: Beam(agent_of("gru", DeepQ), 2), "beam: DeepQ has no logits; expected a policy"),
        (lambda: Sampling(agent_of(), -1), "temperature -1: expected"),
        (lambda: Sampling(agent_of(), top_k=0), "top_k 0: expected"),
        (lambda: Sampling(agent_of(), top_p=0.0), "top_p 0: expected above 0"),
        (lambda: Sampling(agent_of(), top_p=1.5), "top_p 1.5: expected"),
        (lambda: decoder(agent_of(), length_penalty=1.0), "length_penalty: no effect without beam"),
        (lambda: decoder(agent_of(), beam=2, top_k=3), "top_k: a beam draws no tokens"),
    ],
    ids=range(10),
)
def test_what_makes_no_sense_is_said(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_who_decodes_learns_nothing():
    with pytest.raises(UsageError, match="Beam learns nothing"):
        Beam(agent_of(), 2).learn(None)


# drawing


LOGS = np.log([[0.5, 0.25, 0.15, 0.1]])


def test_top_k_by_hand():
    np.testing.assert_allclose(np.exp(top_k(LOGS, 2)), [[2 / 3, 1 / 3, 0, 0]])
    np.testing.assert_allclose(np.exp(top_k(LOGS, 9)), np.exp(LOGS))
    np.testing.assert_allclose(np.exp(top_k(np.log([[0.4, 0.4, 0.2]]), 1)), [[1, 0, 0]])


@pytest.mark.parametrize(
    "p, expected",
    [
        (0.4, [1, 0, 0, 0]),
        (0.5, [1, 0, 0, 0]),
        (0.6, [2 / 3, 1 / 3, 0, 0]),
        (0.8, [5 / 9, 5 / 18, 1 / 6, 0]),
        (1.0, [0.5, 0.25, 0.15, 0.1]),
    ],
)
def test_the_nucleus_by_hand(p, expected):
    np.testing.assert_allclose(np.exp(top_p(LOGS, p)), [expected], atol=1e-12)
    order = [2, 0, 3, 1]
    shuffled = np.exp(top_p(LOGS[:, order], p))
    np.testing.assert_allclose(shuffled, [np.array(expected)[order]], atol=1e-12)


def test_the_temperature_by_hand():
    """At 1/2 chances are squared: .25, .0625, .0225, .01 of .345."""
    expected = np.array([[0.25, 0.0625, 0.0225, 0.01]]) / 0.345
    np.testing.assert_allclose(np.exp(tempered(LOGS, 0.5)), expected)
    np.testing.assert_allclose(np.exp(tempered(LOGS, 1e-300)), [[1, 0, 0, 0]])
    np.testing.assert_allclose(np.exp(tempered(LOGS, 0)), [[1, 0, 0, 0]])


def test_all_three_go_one_after_the_other():
    """Squared and cut to two, .8 and .2 are left: a nucleus of .7 has the first alone."""
    sampling = Sampling(agent_of(), 0.5, top_k=2)
    np.testing.assert_allclose(np.exp(sampling.distribution(LOGS)), [[0.8, 0.2, 0, 0]])
    sampling = Sampling(agent_of(), 0.5, top_k=2, top_p=0.7)
    np.testing.assert_allclose(np.exp(sampling.distribution(LOGS)), [[1, 0, 0, 0]])


def test_tokens_are_drawn_as_their_chances_say():
    table, n = Table({(): (0.5, 0.3, 0.2)}), 20_000
    sampling = Sampling(table, top_k=2, seed=0)
    drawn = sampling.act({"previous": np.full(n, BEGIN)}, np.ones(n, bool)).action
    share = np.bincount(drawn, minlength=5) / n
    np.testing.assert_allclose(share, [0, 0, 0.625, 0.375, 0], atol=0.01)


@every_network
@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}], ids=str)
def test_the_coldest_is_greedy(name, options):
    agent = agent_of(name)
    sampling = Sampling(agent, **options, seed=0)
    sampling.noise = lambda n: None  # a latent is drawn whatever the temperature is
    np.testing.assert_array_equal(played(sampling), played(agent))


def test_samples_are_drawn_from_a_stream_of_their_own():
    agent = agent_of("vhred", PPO)
    before = agent.rng.bit_generator.state
    one, two, other = (played(Sampling(agent, seed=seed)) for seed in (0, 0, 1))
    assert agent.rng.bit_generator.state == before
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("cls", [Imitation, Reinforce, PPO])
@pytest.mark.parametrize("wrap", [lambda agent: Beam(agent, 3), Sampling], ids=["beam", "sampling"])
def test_decoders_stand_in_an_agents_place(cls, wrap):
    agent = agent_of("hred", cls)
    wrapped = wrap(agent)
    found = evaluate(wrapped, words(4, turns=3), 6, seed=0)
    assert len(found.returns) == 6
    again = wrap(agent_of("hred", cls, seed=5))
    again.load_state_dict(wrapped.state_dict())
    np.testing.assert_array_equal(played(again), played(wrapped))
    assert (wrapped.values(*opening(2)) is None) == (agent.values(*opening(2)) is None)


def test_logits_are_what_an_agent_acts_by():
    agent = agent_of("vhred", PPO)
    obs, start = opening(4)
    decision = agent.act(obs, start)
    out, state = agent.logits(obs, start, None, decision.noise)
    chosen = log_softmax(out)[np.arange(4), decision.action]
    np.testing.assert_allclose(chosen, decision.log_prob, rtol=1e-5)
    for one, other in zip(tree.leaves(state), tree.leaves(decision.state), strict=True):
        np.testing.assert_array_equal(one, other)
