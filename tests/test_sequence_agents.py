"""Agents on networks that answer sources: noise, tied weights, resume, and what they learn."""

import copy
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from seqrl.agents import PPO, DeepMonteCarlo, DeepQ, DeepSarsa, Imitation, Reinforce
from seqrl.agents.arguments import arguments
from seqrl.agents.deep.value_agent import ValueAgent
from seqrl.core import UsageError, tree
from seqrl.envs import adapt, make
from seqrl.envs.batched import SingleEnv
from seqrl.networks import HRED, MLP, VHRED, CausalLM, Seq2Seq, build
from seqrl.networks.build import SEQUENCES
from seqrl.training import Interaction, evaluate
from seqrl.training.runs import checkpoint
from seqrl.training.runs.migrations import from_5
from tests.tiny_models import tiny
from tests.words import Words, words

NUMBERS = {
    Reinforce: {"batch_episodes": 4},
    PPO: {"rollout": 8, "epochs": 2, "minibatches": 2},
    Imitation: {"batch_size": 4, "own_share": 0.5},
    DeepQ: {"learning_starts": 8, "batch_size": 4, "train_every": 8, "sequence_length": 4},
    DeepSarsa: {"batch_size": 8, "train_every": 16, "updates": 2},
    DeepMonteCarlo: {"batch_size": 8, "train_every": 16, "updates": 2},
}
NETWORKS = {
    "seq2seq": Seq2Seq,
    "fed": lambda space, size: Seq2Seq(space, size, input_feeding=True),
    "transformer": lambda space, size: Seq2Seq(space, size, core="attention", window=6),
    "hred": HRED,
    "vhred": lambda space, size: VHRED(space, size, latent=3, kl_anneal=50),
    "causal-lm": lambda space, size: CausalLM(space, tiny("llama", size), window=9),
}
TASK = Words(turns=3)
SPACE, ACTIONS = TASK.observation_space, TASK.action_space
every_agent = pytest.mark.parametrize("cls", NUMBERS)
every_network = pytest.mark.parametrize("name", NETWORKS)
drawing = pytest.mark.parametrize("cls", [Reinforce, PPO])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def agent_of(cls, network=None, seed=0, space=SPACE, **numbers):
    torch.manual_seed(seed)
    network = VHRED(space, 8, latent=3) if network is None else network
    numbers = arguments(cls, {**NUMBERS[cls], **numbers})
    return cls(network, ACTIONS, space, **numbers, seed=seed, device="cpu")


def envs_of(layout):
    if layout == "native":
        return words(3, turns=3)
    one = lambda: gym.wrappers.TimeLimit(SingleEnv(TASK), 7)  # noqa: E731
    return adapt(SyncVectorEnv([one] * 3, autoreset_mode=AutoresetMode(layout)))


def loop_of(cls, name="vhred", layout="native", seed=0, **numbers):
    torch.manual_seed(seed)
    agent = agent_of(cls, NETWORKS[name](SPACE, 8), seed, **numbers)
    agent.horizon = 500
    loop = Interaction(agent, envs_of(layout))
    loop.reset(np.random.SeedSequence(1))
    return loop


@every_network
@every_agent
def test_every_agent_learns_and_goes_on_bit_for_bit(cls, name, tmp_path):
    layout = "NextStep" if name in ("vhred", "seq2seq") else "native"
    goes_on_bit_for_bit(partial(loop_of, cls, name, layout), tmp_path / "file")


READERS = {  # networks that read all of a task of their own at once
    "tree": ("seqrl/Trees-v0", {"depth": 2}),
    "memory-network": ("seqrl/Facts-v0", {"people": 2, "things": 2}),
    "word2vec": ("seqrl/WordContext-v0", {"negative": 2}),
}


def reading_loop(cls, name, seed=0):
    env_id, options = READERS[name]
    envs = make(env_id, num_envs=3, **options)
    spaces = envs.single_action_space, envs.single_observation_space
    size = {"hidden_size" if name == "tree" else "size": 8}
    numbers = arguments(cls, NUMBERS[cls])
    network = build(name, spaces[1], seed=seed, **size)
    loop = Interaction(cls(network, *spaces, **numbers, seed=seed, device="cpu"), envs)
    loop.agent.horizon = 500
    loop.reset(np.random.SeedSequence(1))
    return loop


@pytest.mark.parametrize("name", READERS)
@every_agent
def test_every_agent_learns_by_what_reads_at_once(cls, name, tmp_path):
    if name == "word2vec" and issubclass(cls, ValueAgent):
        pytest.skip("of values of one choice each, its answers are several")
    goes_on_bit_for_bit(partial(reading_loop, cls, name), tmp_path / "file")


def test_all_networks_of_sequences_are_here():
    assert {*SEQUENCES} == {*READERS, *NETWORKS} - {"fed", "transformer"}


def goes_on_bit_for_bit(make_loop, path):
    """Steps in two pieces, the second one by a loop of another seed, equal those in one."""
    loop = make_loop()
    loop.run(55)  # with three environments neither the end nor a start is at a turn's end
    checkpoint.save(path, loop.state_dict())
    again = make_loop(seed=2)
    again.load_state_dict(checkpoint.load(path))
    whole = make_loop()
    loop.run(58)
    again.run(58)
    whole.run(113)
    digests = {checkpoint.digest(each.state_dict()) for each in (loop, again, whole)}
    assert len(digests) == 1
    assert loop.agent.updates >= 2
    assert all(np.isfinite(float(x() if callable(x) else x)) for x in loop.metrics.values())


@every_agent
def test_evaluation_draws_nothing(cls):
    loop = loop_of(cls)
    loop.run(60)
    before = checkpoint.digest(loop.state_dict())
    first, second = (evaluate(loop.agent, words(3, turns=3), 4, seed=5) for _ in range(2))
    assert first.returns.tolist() == second.returns.tolist()
    assert checkpoint.digest(loop.state_dict()) == before
    decision = loop.agent.act(loop.obs, loop.start, explore=False)
    assert decision.noise is None


def test_a_copy_of_an_agent_is_independent():
    loop = loop_of(PPO)
    loop.run(40)
    agent = copy.deepcopy(loop.agent)
    before = checkpoint.digest(agent.state_dict())
    loop.run(40)
    assert checkpoint.digest(agent.state_dict()) == before


# noise


@drawing
def test_noise_is_drawn_by_the_agent_and_kept_with_the_step(cls):
    loop, kept = loop_of(cls), []
    learn, update = loop.agent.learn, loop.agent.update
    loop.agent.learn = lambda step: kept.append(step) or learn(step)
    batches = []
    loop.agent.update = lambda batch: batches.append(batch) or update(batch)
    loop.run(60)
    assert all(step.noise.shape == (3, 3) and step.noise.dtype == np.float32 for step in kept)
    drawn = np.concatenate([step.noise for step in kept])
    assert abs(drawn.mean()) < 0.3 and abs(drawn.std() - 1) < 0.2
    known = {row.tobytes() for row in drawn}
    learned = np.concatenate([batch.noise[batch.valid].numpy() for batch in batches])
    assert len(learned) > 20 and all(row.tobytes() in known for row in learned)


def test_a_network_that_draws_nothing_is_handed_nothing():
    loop = loop_of(PPO, "hred")
    assert loop.agent.act(loop.obs, loop.start).noise is None


@pytest.mark.parametrize("share", [False, True])
def test_the_first_ratio_of_ppo_is_one(share):
    """Reward learns from the very latent that acted, wherever the rollout began."""
    loop = loop_of(PPO, share=share, rollout=10, entropy_coef=0.0)
    with torch.no_grad():
        loop.agent.policy.module.layer.weight *= 100
        for weight in loop.agent.network.prior.parameters():
            weight *= 3
    loop.run(200)
    assert loop.agent.updates >= 20
    assert loop.metrics["train/first_ratio"] == pytest.approx(1, abs=1e-4)


def test_without_the_noise_of_the_step_the_ratio_is_another():
    """That the test above can fail."""
    loop = loop_of(PPO, rollout=10)
    with torch.no_grad():
        loop.agent.policy.module.layer.weight *= 100
    learn = loop.agent.learn
    loop.agent.learn = lambda step: learn(step._replace(noise=step.noise * 0))
    loop.run(40)
    assert loop.metrics["train/first_ratio"] > 1.001


@drawing
def test_the_surplus_of_a_split_turn_keeps_its_noise(cls):
    loop = loop_of(cls)
    loop.run(31)
    surplus = loop.stepped.surplus
    assert surplus is not None and surplus.noise.shape == (3, 3)
    again = loop_of(cls, seed=4)
    again.load_state_dict(copy.deepcopy(loop.state_dict()))
    np.testing.assert_array_equal(again.stepped.surplus.noise, surplus.noise)


def without_noise(entries):
    """A state without its entries of noise."""
    if isinstance(entries, dict):
        return {name: without_noise(x) for name, x in entries.items() if name != "noise"}
    return [without_noise(x) for x in entries] if isinstance(entries, list) else entries


def in_order(entries):
    """A state with its entries in alphabetical order."""
    if isinstance(entries, dict):
        return {name: in_order(entries[name]) for name in sorted(entries)}
    return [in_order(x) for x in entries] if isinstance(entries, list) else entries


@pytest.mark.parametrize("cls", [Reinforce, PPO, Imitation])
def test_a_checkpoint_of_before_there_was_noise_goes_on(cls):
    loop = loop_of(cls, "hred")
    loop.run(61)
    old = without_noise(loop.state_dict())
    again = loop_of(cls, "hred", seed=4)
    with pytest.raises(UsageError, match="noise: missing"):
        again.load_state_dict(copy.deepcopy(old))
    again.load_state_dict(from_5({"schema": 5, "loop": copy.deepcopy(old)})["loop"])
    for each in (loop, again):
        each.run(30)
    digests = {checkpoint.digest(in_order(each.state_dict())) for each in (loop, again)}
    assert len(digests) == 1


# tied weights


def test_the_output_layer_shares_the_embedding():
    agent = agent_of(PPO, Seq2Seq(SPACE, 8, size=8, tied=True))
    assert agent.policy.module.layer.weight is agent.network.table.weight
    before = agent.network.table.weight.clone()
    loop = Interaction(agent, words(3, turns=3))
    loop.run(60)
    assert agent.policy.module.layer.weight is agent.network.table.weight
    assert not torch.equal(agent.network.table.weight, before)
    again = agent_of(PPO, Seq2Seq(SPACE, 8, size=8, tied=True), seed=3)
    again.load_state_dict(copy.deepcopy(agent.state_dict()))
    assert again.policy.module.layer.weight is again.network.table.weight
    assert torch.equal(again.network.table.weight, agent.network.table.weight)
    copied = copy.deepcopy(agent)
    assert copied.policy.module.layer.weight is copied.network.table.weight


@pytest.mark.parametrize(
    "cls, numbers, network, said",
    [
        (DeepQ, {}, None, "tied weights: no effect, as DeepQ has no layer of its own"),
        (PPO, {"share": True}, None, "tied weights: no effect, as PPO has no layer of its own"),
        (Reinforce, {}, lambda net: MLP(net, 8), "on top of the network itself"),
    ],
    ids=["values", "shared", "not the top"],
)
def test_where_nothing_can_share_it_is_said(cls, numbers, network, said):
    tied = Seq2Seq(SPACE, 8, size=8, tied=True)
    with pytest.raises(UsageError, match=said):
        agent_of(cls, network(tied) if network else tied, **numbers)


def test_another_number_of_actions_is_said():
    with pytest.raises(UsageError, match=r"weights for 7 numbers, Discrete\(5\) has 5; do not tie"):
        Reinforce(Seq2Seq(SPACE, 8, size=8, tied=True), gym.spaces.Discrete(5), SPACE)


# learning


def imitated(network, steps, **options):
    """The share of the best return after so many steps."""
    task = Words(**options)
    agent = agent_of(
        Imitation, network(task.observation_space), 0, task.observation_space,
        own_share=0.0, batch_size=32, learning_rate=0.01,
    )  # fmt: skip
    agent.horizon = steps
    loop = Interaction(agent, words(128, **options))
    loop.reset(np.random.SeedSequence(0))
    loop.run(steps)
    length = np.arange(1, task.longest + 1).mean() + 1
    return evaluate(agent, words(64, **options), 192, seed=3).mean / (task.turns * length)


def test_words_are_said_backwards():
    assert imitated(lambda space: Seq2Seq(space, 32), 16_000) > 0.9


def test_the_first_word_is_remembered_by_a_context_alone():
    """Who sees the newest word alone can but guess at a third of the tokens, of three letters."""
    options = {"turns": 3, "first": True, "longest": 1, "letters": 3}
    assert imitated(lambda space: HRED(space, 32), 30_000, **options) > 0.99
    assert imitated(lambda space: Seq2Seq(space, 32), 12_000, **options) < 0.85


def test_tree_of_memory_is_open():
    agent = agent_of(PPO, Seq2Seq(SPACE, 8))
    obs, _ = words(2).reset(seed=0)
    state = agent.act(obs, np.ones(2, bool)).state[0]
    assert set(state) == {"about", "written", "seen", "length"}
    assert all(len(leaf) == 2 for leaf in tree.leaves(state))
