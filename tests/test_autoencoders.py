"""Autoencoders: layers undone, terms by hand, codes to act on, what they are for."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents import PPO, Imitation, Optim, Reinforce
from seqrl.agents.deep.deep_q import DeepQ
from seqrl.agents.deep.regularisation import Regularisation
from seqrl.core.errors import UsageError
from seqrl.envs import make
from seqrl.envs.tasks.samples import Samples
from seqrl.networks import GRU, VAE, AutoEncoder, Normalized, build, normalized_space
from seqrl.networks.base import Encoder
from seqrl.networks.diagnosis.codes import codes
from seqrl.networks.latents import kl
from seqrl.networks.undone import FromMaps
from seqrl.networks.vectors import flat
from seqrl.training import evaluate, train
from seqrl.training.pictures.codes import images
from seqrl.training.pictures.picture_logger import AgentPictures

VECTOR = spaces.Box(np.float32([-2, 0, -np.inf]), np.float32([2, 1, np.inf]))
DIGITS = {part: Samples(set="digits", part=part) for part in ("train", "test")}
ALL = torch.ones(1, 64, dtype=torch.bool)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def image(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


# layers that are undone


@pytest.mark.parametrize("geometry", [(3, 1, 1), (3, 2, 1), (4, 3, 0)])
@pytest.mark.parametrize("size", [(5, 6), (8, 7), (9, 9)])
def test_a_transposed_convolution_is_the_adjoint(geometry, size):
    conv = nn.Conv2d(2, 3, *geometry, bias=False).double()
    back = FromMaps(conv, (2, *size), last=False).double()
    back.weight.data, back.bias.data[:] = conv.weight.data, 0.0
    x, y = torch.randn(1, 2, *size).double(), torch.randn(1, *back.maps).double()
    forth = (conv(x) * y).sum()
    torch.testing.assert_close(forth, (x.flatten() * back(y.flatten(1))[0]).sum())


@pytest.mark.parametrize(
    ("preset", "shape"),
    [("small", (rows, columns, 2)) for rows in (5, 6, 7) for columns in (8, 11)]
    + [("small", (7, 9)), ("small", (3, 8, 9)), ("nature", (37, 43, 1)), (None, (2, 64, 65))],
)
def test_images_of_every_size_are_given_back(preset, shape):
    network = AutoEncoder(image(*shape), 4, preset=preset, hidden=())
    obs = torch.randint(0, 255, (2, *shape), dtype=torch.uint8)
    code = network.encode(obs)
    assert code.shape == (2, 4) and network.decode(code).shape == obs.shape
    assert network.auxiliary(obs[None], ALL[:, :2])["reconstruction"].isfinite()


def test_what_is_given_back_has_the_pixels_places():
    """One image is learned by heart, channels last: every number in its own place."""
    obs = torch.arange(5 * 6 * 2, dtype=torch.uint8).reshape(1, 1, 5, 6, 2) * 4
    network = AutoEncoder(image(5, 6, 2), 4)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        sum(network.auxiliary(obs, ALL[:, :1]).values()).backward()
        optimizer.step()
    with torch.no_grad():
        given_back = network.decode(network.code_of(obs[0]))
    assert (given_back - obs[0].float()).abs().max() < 3


@pytest.mark.parametrize(
    ("name", "space", "args", "message"),
    [
        ("autoencoder", image(20, 20, 1), {"preset": "nature"}, "too large for an image of 20 x"),
        ("autoencoder", image(20, 20, 1), {"preset": "impala"}, "its pooling cannot be undone"),
        ("autoencoder", VECTOR, {"preset": "small"}, "is no image; leave it out"),
        ("autoencoder", VECTOR, {"activation": "Maxout"}, "Maxout cannot be undone"),
        ("autoencoder", VECTOR, {"code": 0}, "code 0: expected a whole number of at least 1"),
        ("autoencoder", VECTOR, {"masking": 1.0}, "masking 1.0: expected a number of at least 0"),
        ("autoencoder", VECTOR, {"gaussian": -1}, "gaussian -1: expected a number of at least 0"),
        ("autoencoder", VECTOR, {"sparsity": 1.0}, "take code_activation=Sigmoid"),
        ("autoencoder", VECTOR, {"sparsity_rate": 1}, r"sparsity_rate 1: expected .* \(0, 1\)"),
        ("autoencoder", VECTOR, {"layer_steps": -1}, "layer_steps -1: expected a whole number"),
        ("autoencoder", VECTOR, {"beta": 1.0}, "unknown argument 'beta'"),
        ("vae", VECTOR, {"beta": -1.0}, "beta -1.0: expected a number of at least 0"),
        ("vae", VECTOR, {"free_bits": None}, "free_bits None: expected a number of at least 0"),
        ("vae", VECTOR, {"kl_anneal": 0.5}, "kl_anneal 0.5: expected a whole number"),
        (
            "vae",
            VECTOR,
            {"sparsity": 1.0, "code_activation": "Sigmoid"},
            "take network autoencoder",
        ),
    ],
)
def test_messages(name, space, args, message):
    with pytest.raises(UsageError, match=message):
        build(name, space, **args)


# terms by hand


def small(cls=AutoEncoder, **args):
    """One on three numbers whose code is the first two, and whose decoder adds 1 to a zero."""
    network = cls(VECTOR, 2, hidden=(), **args)
    with torch.no_grad():
        for layer in (network.encoder[0][0], network.decoder[0]):
            layer.weight[:] = torch.eye(*layer.weight.shape)
            layer.bias[:] = 0.0
        network.decoder[0].bias[2] = 1.0
    return network


def test_the_error_is_in_units_of_the_bounds():
    obs = torch.tensor([[[1.0, 0.5, 3.0], [9.0, 9.0, 9.0]]])
    valid = torch.tensor([[True, False]])
    # from -1 to 1: 1 of 2 is 0.5, 0.5 of [0, 1] is 0; the third has no bound
    by_hand = 0.5 * ((1 - 0.5) ** 2 + (0.5 - 0) ** 2 + (1 - 3) ** 2)
    assert small().auxiliary(obs, valid)["reconstruction"].item() == by_hand
    assert small().auxiliary(obs, valid & False)["reconstruction"].item() == 0
    torch.testing.assert_close(
        small().decode(torch.tensor([[0.5, 0.0]])), torch.tensor([[1.0, 0.5, 1.0]])
    )


def test_sparsity_is_the_divergence_of_mean_activity():
    network = small(sparsity=2.0, sparsity_rate=0.25, code_activation="Sigmoid")
    obs = torch.tensor([[[math.log(3), 0.0, 0.0], [-math.log(3), 0.0, 0.0], [5.0, 5.0, 5.0]]])
    terms = network.auxiliary(obs, torch.tensor([[True, True, False]]))
    # both numbers are on for half of the steps
    one = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert terms["sparsity"].item() == pytest.approx(2 * 2 * one, rel=1e-5)


def test_the_divergence_of_drawn_codes():
    network = small(VAE, beta=2.0, kl_anneal=100)
    with torch.no_grad():
        network.log_variance.weight[:], network.log_variance.bias[:] = 0.0, math.log(4)
    obs, valid = torch.tensor([[[1.0, 0.5, 0.0], [9.0, 9.0, 9.0]]]), torch.tensor([[True, False]])
    each = [0.5 * (4 + mean**2 - 1 - math.log(4)) for mean in (1.0, 0.5)]
    assert network.auxiliary(obs, valid)["kl"].item() == 0
    network.update(obs.expand(25, 2, 3), torch.ones(25, 2, dtype=torch.bool))
    assert network.auxiliary(obs, valid)["kl"].item() == pytest.approx(2 * 0.5 * sum(each))
    network.update(obs.expand(50, 2, 3), torch.ones(50, 2, dtype=torch.bool))
    network.free_bits = 1.0 + each[1]
    free = max(each[0], 1.0 + each[1]) + 1.0 + each[1]
    assert network.auxiliary(obs, valid)["kl"].item() == pytest.approx(2 * free)


def test_an_agent_acts_on_the_mean_and_learning_draws():
    network = VAE(VECTOR, 2)
    obs = torch.randn(1, 64, 3)
    torch.testing.assert_close(network(obs, ALL)[0][0], network.posterior(obs[0])[0])
    first, second = (network.auxiliary(obs, ALL)["reconstruction"] for _ in range(2))
    assert first != second
    with torch.no_grad():
        network.log_variance.weight[:], network.log_variance.bias[:] = 0.0, math.log(4)
        drawn = network._learned_code(torch.zeros(4000, 3), torch.ones(4000))[0]
    assert (drawn - network.code_of(torch.zeros(1, 3))).std().item() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("args", [{"masking": 0.5}, {"gaussian": 0.5}])
def test_noise_is_for_what_is_learned_alone(args):
    network, obs = small(**args), torch.full((1, 64, 3), 2.0)
    torch.testing.assert_close(network(obs, ALL)[0][0], obs[0, :, :2])
    seen = network._corrupted(obs[0])
    if "masking" in args:
        assert set(seen.unique().tolist()) == {0.0, 2.0} and 0.3 < (seen == 0).float().mean() < 0.7
    else:
        assert 0.3 < (seen - obs[0]).std() < 0.7


@pytest.mark.parametrize("args", [{"masking": 0.5}, {"gaussian": 0.5}])
def test_what_is_to_be_given_back_is_without_noise(args):
    """A decoder that gives one observation whatever the code is makes no error."""
    network, obs = small(**args), torch.tensor([2.0, 1.0, 3.0]).expand(1, 64, 3)
    with torch.no_grad():
        network.decoder[0].weight[:] = 0.0
        network.decoder[0].bias[:] = torch.tensor([1.0, 1.0, 3.0])
    assert network.auxiliary(obs, ALL)["reconstruction"].item() == 0


def test_layers_learn_in_their_turn_and_no_other():
    network = AutoEncoder(VECTOR, 2, hidden=(5, 4), layer_steps=64)
    assert network.answering(VECTOR) is network.decoder[0]
    obs, weights = torch.randn(1, 64, 3), dict(network.named_parameters())
    moved = []
    for _ in range(4):
        network.zero_grad()
        features, _, terms = network.study(obs, ALL, None, obs, ALL)
        assert features.shape == (1, 64, 5) == (*ALL.shape, network.features)
        (network.decoder[0](features).square().sum() + sum(terms.values())).backward()
        moved.append({name[:9] for name, w in weights.items() if w.grad is not None})
        network.update(obs, ALL)
    own = [{f"encoder.{i}", f"decoder.{i}", "decoder.0"} for i in range(3)]
    assert moved == [*own, set.union(*own)]


# in agents


def agent_on(cls, network, **numbers):
    """An agent on Catch's observations, and a loop's worth of environments."""
    envs = make("seqrl/Catch-v0", num_envs=4)
    spaces_of = envs.single_action_space, envs.single_observation_space
    return cls(network(spaces_of[1]), *spaces_of, seed=0, **numbers), envs


AGENTS = {
    "ppo": (PPO, {"rollout": 32, "epochs": 2}),
    "reinforce": (Reinforce, {"baseline": "value"}),
    "q-learning": (DeepQ, {}),
}


@pytest.mark.parametrize("name", AGENTS)
def test_exactly_the_frozen_weights_do_not_move(name):
    cls, numbers = AGENTS[name]
    optim = Optim(0.01, 1.0, weight_decay=0.1, freeze="encoder", optimizer="AdamW")
    agent, envs = agent_on(cls, AutoEncoder, optim=optim, **numbers)
    before = {key: part.module.state_dict() for key, part in agent.parts.items()}
    before = {key: {n: w.clone() for n, w in x.items()} for key, x in before.items()}
    train(agent, envs, steps=1200, seed=0)
    assert agent.updates
    for key, weights in before.items():
        after = agent.parts[key].module.state_dict()
        still = {n for n, w in weights.items() if torch.equal(w, after[n])}
        unused = {n for n in weights if ".decoder." in n or n.endswith("studied")}
        assert still - unused == {n for n in weights if ".encoder." in n}


class Normalising(Encoder):
    """One part with running statistics of its observations and of a layer, and another part."""

    features = 4

    def __init__(self, space):
        super().__init__()
        layers = flat(space, normalize=True), nn.Linear(50, 4), nn.BatchNorm1d(4)
        self.below, self.above = nn.ModuleList(layers), nn.BatchNorm1d(4)

    def encode(self, obs):
        normalize, linear, norm = self.below
        return self.above(norm(linear(normalize.encode(obs))))

    def update(self, obs, valid):
        self.below[0].update(obs, valid)


@pytest.mark.parametrize("name", AGENTS)
def test_running_statistics_of_a_frozen_part_do_not_move(name):
    cls, numbers = AGENTS[name]
    optim = Optim(0.01, 1.0, freeze="below")
    agent, envs = agent_on(cls, Normalising, optim=optim, **numbers)
    before = {key: leaf.clone() for key, leaf in agent.network.state_dict().items()}
    train(agent, envs, steps=1200, seed=0)
    after = agent.network.state_dict()
    assert agent.updates
    for key, leaf in before.items():
        assert torch.equal(leaf, after[key]) == key.startswith("below."), key


def test_freezing_names_the_parts_there_are():
    optim = Optim(0.01, 1.0, freeze="encodr")
    with pytest.raises(UsageError, match=r"no part of that name.*Did you mean \"encoder\".*decode"):
        agent_on(PPO, AutoEncoder, optim=optim)
    agent, envs = agent_on(DeepQ, lambda space: build("mlp", space), optim=Optim(0.01, 1.0))
    assert agent.values_part.learns_in_numpy
    frozen = Optim(0.01, 1.0, freeze="layers")
    agent, envs = agent_on(DeepQ, lambda space: build("mlp", space), optim=frozen)
    before = [w.clone() for w in agent.network.parameters()]
    train(agent, envs, steps=1200, seed=0)
    assert agent.updates and all(map(torch.equal, before, agent.network.parameters()))


@pytest.mark.parametrize("name", AGENTS)
def test_beside_any_agents_loss(name):
    cls, numbers = AGENTS[name]
    optim = Optim(0.01, 1.0, regularisation=Regularisation(auxiliary=0.5))
    agent, envs = agent_on(cls, AutoEncoder, optim=optim, **numbers)
    part = next(iter(agent.parts.values()))
    obs = torch.as_tensor(envs.reset(np.random.SeedSequence(0)))[None]
    start = torch.ones(1, 4, dtype=torch.bool)
    valid = torch.tensor([[True, False, True, True]])
    part.learn(obs, start, None, valid)
    (term,) = part.take_terms()
    alone = agent.network.auxiliary(obs, valid)["reconstruction"]
    torch.testing.assert_close(term, 0.5 * alone)
    before = agent.network.auxiliary(obs, start)["reconstruction"].item()
    train(agent, envs, steps=1400, seed=0)
    assert agent.network.auxiliary(obs, start)["reconstruction"].item() < before / 2


def test_a_core_has_the_terms_of_its_source():
    network = GRU(AutoEncoder(VECTOR), 8)
    obs = torch.randn(1, 64, 3)
    assert network.has_auxiliary
    assert network.auxiliary(obs, ALL) == network.source.auxiliary(obs, ALL)


def test_what_learns_nothing_of_its_own_is_refused():
    optim = Optim(0.01, 1.0, regularisation=Regularisation(auxiliary=0.5))
    with pytest.raises(
        UsageError, match=r"auxiliary 0.5: MLP learns nothing .* autoencoder or vae"
    ):
        agent_on(PPO, lambda space: build("mlp", space), optim=optim)


def test_what_is_imitated_is_the_decoders_loss():
    """Answers of the observation's form are decoded; all others are read from the code."""
    task = Samples(set="digits", target="observation")
    agent = Imitation(AutoEncoder(task.observation_space), task.action_space, seed=0)
    assert agent.policy.module.layer is agent.network.decoder[0]
    shown = DIGITS["test"].data[0][:5]
    said = agent.act(shown, np.ones(5, bool), explore=False).action
    with torch.no_grad():
        code = agent.network.code_of(torch.from_numpy(shown))
        np.testing.assert_allclose(agent.network.decode(code), said, atol=1e-6)
    labelled = Imitation(
        AutoEncoder(DIGITS["test"].observation_space), DIGITS["test"].action_space, seed=0
    )
    assert labelled.policy.module.layer.in_features == 8


def test_what_is_answered_already_is_no_term_beside():
    envs = make("seqrl/Samples-v0", num_envs=2, set="digits", answer="observation")
    network = AutoEncoder(envs.single_observation_space)
    optim = Optim(0.01, 1.0, regularisation=Regularisation(auxiliary=0.5))
    with pytest.raises(UsageError, match=r"auxiliary 0.5: the observation is the answer already"):
        Imitation(network, envs.single_action_space, envs.single_observation_space, optim=optim)


# what they are for


def shown_back(network, test):
    """Mean squared error of what is given back of the clean rows of a test set."""
    shown, wanted = map(torch.from_numpy, test.data)
    with torch.no_grad():
        return (network.decode(network.code_of(shown)) - wanted).square().mean().item()


def learned(cls=AutoEncoder, updates=800, **args):
    """A network that has imitated the digits shown."""
    options = {"set": "digits", "answer": "observation"}
    envs = make("seqrl/Samples-v0", num_envs=64, part="train", **options)
    network = cls(envs.single_observation_space, **args)
    spaces_of = envs.single_action_space, envs.single_observation_space
    train(Imitation(network, *spaces_of, seed=0), envs, steps=64 * updates, seed=0)
    return network


def of_principal_components(count, train_set, test):
    """Mean squared error of what so many principal components give back."""
    (seen, _), (shown, wanted) = train_set.data, test.data
    mean = seen.mean(0)
    _, _, basis = np.linalg.svd(seen - mean, full_matrices=False)
    part = basis[:count]
    return float(np.square((shown - mean) @ part.T @ part + mean - wanted).mean())


def asking(part, **options):
    return Samples(set="digits", part=part, target="observation", **options)


def test_eight_numbers_say_more_than_eight_principal_components():
    plain = learned()
    error = shown_back(plain, asking("test"))
    assert error <= 0.6 * of_principal_components(8, asking("train"), asking("test"))
    noisy = asking("test", noise=0.2)
    assert shown_back(learned(gaussian=0.2), noisy) < 0.8 * shown_back(plain, noisy)
    drawn = learned(VAE)
    with torch.no_grad():
        mean, spread = drawn.posterior(torch.from_numpy(asking("test").data[0]))
    nothing = torch.zeros_like(mean)
    assert kl((mean, spread), (nothing, nothing)).sum(1).mean() > 3
    assert shown_back(drawn, asking("test")) < 0.6 * 0.0155


def test_layer_by_layer_trains_what_does_not_train():
    """Six layers of sigmoids: labels alone teach them nothing, behind their own codes they do."""
    deep = {"code": 32, "hidden": [32] * 5, "activation": "Sigmoid", "code_activation": "Sigmoid"}
    stacked = learned(updates=1200, layer_steps=64 * 200, **deep)
    assert labels_right(AutoEncoder(DIGITS["train"].observation_space, **deep)) <= 0.3
    fresh = AutoEncoder(DIGITS["train"].observation_space, **deep)
    fresh.load_state_dict(stacked.state_dict())
    assert labels_right(fresh) >= 0.9


def labels_right(network, updates=600):
    """The share of held-out labels that are right once a network has imitated some, by SGD."""
    envs = make("seqrl/Samples-v0", num_envs=64, part="train", set="digits")
    spaces_of = envs.single_action_space, envs.single_observation_space
    optim = Optim("linear:0.1:0", 1.0, optimizer="Momentum")
    agent = Imitation(network, *spaces_of, optim=optim, seed=0)
    train(agent, envs, steps=64 * updates, seed=0)
    shown, label = DIGITS["test"].data
    said = agent.act(shown, np.ones(len(shown), bool), explore=False).action
    return (said == label).mean()


# pictures


@pytest.mark.parametrize(("cls", "names"), [(AutoEncoder, 2), (VAE, 3)])
def test_pictures_of_codes(cls, names):
    envs = make("seqrl/Samples-v0", num_envs=2, set="digits", answer="observation")
    agent = Imitation(
        cls(envs.single_observation_space), envs.single_action_space, envs.single_observation_space
    )
    shown = DIGITS["test"].data[0][:20]
    found = codes(agent.network, shown)
    assert found.given_back.shape == (20, 64) and found.walk.shape == (7, 7, 64)
    with torch.no_grad():
        code = agent.network.code_of(torch.from_numpy(shown))
        middle = torch.zeros(8) if cls is VAE else code.mean(0)
        expected = agent.network.decode(middle[None])[0]
    np.testing.assert_allclose(found.walk[3, 3], expected, atol=1e-5)
    assert set(found.changed) == set(code.std(0).argsort()[-2:].tolist())
    pictures = AgentPictures(
        lambda **more: make("seqrl/Samples-v0", set="digits", answer="observation"),
        codes_of=lambda agent, obs: codes(agent.network, obs),
    )
    played = pictures.play(agent)
    drawn = dict(pictures.draw(agent, evaluate(agent, envs, 4, seed=0), played))
    tags = [tag for tag in drawn if tag.startswith("codes/")]
    assert len(tags) == names and all(drawn[tag].startswith(b"\x89PNG") for tag in tags)
    assert codes(build("mlp", VECTOR), shown) is None


@pytest.mark.parametrize("answering", [False, True])
def test_pictures_of_normalised_observations_are_in_their_own_units(answering):
    """What is given back by heart is near what was shown, wherever that lies."""
    space = spaces.Box(90, 120, (3,), np.float32)
    network = Normalized(AutoEncoder(normalized_space(space), 3, hidden=()), space)
    obs = torch.tensor([100.0, 110.0, 95.0]) + torch.randn(200, 3)
    network.update(obs[None], torch.ones(1, 200, dtype=torch.bool))
    layer = network.answering(space) if answering else None
    inner = network.network
    with torch.no_grad():
        for weights in (inner.encoder[0][0], inner.decoder[0]):
            weights.weight[:], weights.bias[:] = torch.eye(3), 0.0
        if answering:  # the answer's bounds go from -1 to 1
            layer.weight[:] *= network.parts[0].var.sqrt() / 15
            layer.bias[:] = (network.parts[0].mean - 105) / 15
    found = codes(network, obs.numpy())
    np.testing.assert_allclose(found.given_back, obs, rtol=1e-4)
    np.testing.assert_allclose(found.walk[3, 3], obs.mean(0), rtol=1e-4)


def test_images_lose_their_channels():
    obs = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    assert images(obs)[1, 2, 3] == obs[1, 2, 3].mean()
    assert images(obs.transpose(0, 3, 1, 2))[1, 2, 3] == obs[1, 2, 3].mean()
    assert images(np.zeros((5, 64))).shape == (5, 8, 8)
    assert images(np.zeros((5, 6))).shape == (5, 1, 6)
