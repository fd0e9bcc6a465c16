"""Imitation: likelihoods by hand, who is asked and who drives, and what is learned from it."""

import copy
import json
import logging
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

import seqrl
from seqrl.agents import AgentTeacher, EpsilonGreedy, Imitation, Optim, QLearning, Reinforce
from seqrl.agents.deep.heads import make_head
from seqrl.agents.experience.episodes import Episodes
from seqrl.core import RunError, Transition, UsageError
from seqrl.core.types import Batch
from seqrl.envs import make
from seqrl.envs.batched import BatchedEnv
from seqrl.envs.tasks.repeat_first import RepeatFirst
from seqrl.networks import GRU, MLP, Encoder, Normalized, build, normalized_space
from seqrl.scripts import train as script
from seqrl.training import Interaction, evaluate, train
from seqrl.training.engines.executor import code_flags
from seqrl.training.loop.scalars import driver_of
from seqrl.training.runs import checkpoint
from seqrl.training.runs.folder import read_config

# the likelihoods, by hand

LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.25, 0.25, 0.5]]))
MASK = torch.tensor([True, True, False])


def test_one_choice():
    head = make_head(spaces.Discrete(3, start=5))
    found = head.negative_log_likelihood(LOGITS, torch.tensor([6, 7, 5]), MASK)
    assert found == pytest.approx(-math.log(0.3) - math.log(0.8))


def test_several_choices():
    head = make_head(spaces.MultiDiscrete([3, 2]))
    out = torch.cat([LOGITS, torch.log(torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]]))], 1)
    answer = torch.tensor([[1, 1], [2, 0], [0, 0]])
    found = head.negative_log_likelihood(out, answer, MASK)
    assert found == pytest.approx(-math.log(0.3 * 0.1) - math.log(0.8 * 0.5))


def test_yes_or_no():
    head = make_head(spaces.MultiBinary(2))
    out = torch.logit(torch.tensor([[0.9, 0.2], [0.5, 0.7], [0.1, 0.1]]))
    answer = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.int8)
    found = head.negative_log_likelihood(out, answer, MASK)
    assert found == pytest.approx(-math.log(0.9 * 0.8) - math.log(0.5 * 0.7))


def test_real_numbers():
    """Bounded dimensions in units of -1 to 1; what is not known may be no number."""
    head = make_head(spaces.Box(np.float32([-2.0, -np.inf]), np.float32([2.0, np.inf])))
    out = torch.tensor([[0.5, 1.0], [0.0, 0.0], [3.0, 3.0]], requires_grad=True)
    answer = torch.tensor([[0.0, 3.0], [2.0, 0.0], [math.nan, math.inf]])
    squared = head.squared_error(out, answer, MASK)
    assert squared.item() == pytest.approx(0.5 * (0.25 + 4.0) + 0.5 * 1.0)
    squared.backward()
    assert out.grad.tolist() == [[0.5, -2.0], [-1.0, 0.0], [0.0, 0.0]]
    with torch.no_grad():
        head.log_std[:] = torch.tensor([0.0, math.log(2.0)])
    found = head.negative_log_likelihood(out, answer, MASK)
    constant = 2 * (math.log(2.0) + math.log(2 * math.pi))
    assert found.item() == pytest.approx(0.5 * (0.25 + 1.0) + 0.5 * 1.0 + constant)
    found.backward()
    assert bool(out.grad.isfinite().all()) and bool(head.log_std.grad.isfinite().all())


def test_label_smoothing():
    head = make_head(spaces.Discrete(3))
    answer = torch.tensor([1, 2, 0])
    found = head.negative_log_likelihood(LOGITS, answer, MASK, smoothing=0.3)
    one = -(0.1 * math.log(0.5) + 0.8 * math.log(0.3) + 0.1 * math.log(0.2))
    two = -(0.1 * math.log(0.1) + 0.1 * math.log(0.1) + 0.8 * math.log(0.8))
    assert found == pytest.approx(one + two)
    theirs = nn.functional.cross_entropy(
        LOGITS[:2], answer[:2], reduction="sum", label_smoothing=0.3
    )
    assert found == pytest.approx(theirs.item())
    binary = make_head(spaces.MultiBinary(1)).negative_log_likelihood(
        torch.logit(torch.tensor([[0.9]])), torch.ones(1, 1), MASK[:1], smoothing=0.3
    )
    assert binary == pytest.approx(-0.85 * math.log(0.9) - 0.15 * math.log(0.1))


def test_label_smoothing_leaves_out_what_may_not_be_done():
    out = torch.tensor([[math.log(0.6), math.log(0.4), -1e30]])
    head = make_head(spaces.Discrete(3))
    found = head.negative_log_likelihood(out, torch.tensor([0]), MASK[:1], smoothing=0.5)
    assert found == pytest.approx(-0.75 * math.log(0.6) - 0.25 * math.log(0.4))


# the gradient, against a problem that is enumerated

LENGTHS = 1, 3, 2
SPACE, ACTIONS = spaces.Discrete(4), spaces.Discrete(3)


def played(network, **options):
    """An agent, and whole episodes of three lengths of which some answers are known."""
    agent = Imitation(network, ACTIONS, SPACE, seed=0, device="cpu", backend="torch", **options)
    rng, store, n = np.random.default_rng(0), Episodes(1.0), len(LENGTHS)
    for t in range(max(LENGTHS)):
        inside = t < np.array(LENGTHS)
        over, none = t == np.array(LENGTHS) - 1, np.zeros(n, bool)
        answer = rng.integers(0, 3, n), rng.random(n) < 0.7
        seen, after = rng.integers(0, 4, (2, n))
        chosen = np.full(n, t == 0), None, None, answer[0], None, np.zeros(n)
        store.add(Transition(seen, *chosen, over, none, after, inside, answer))
    return agent, torch_batch(store.take())


def torch_batch(batch):
    return Batch(*to_tensors(tuple(batch)))


def to_tensors(values):
    if isinstance(values, tuple):
        return tuple(map(to_tensors, values))
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_the_gradient_is_that_of_every_step_by_itself(kind):
    """In float64: one call for all columns against a sum over episodes, step after step."""
    agent, batch = played(build(kind, SPACE, seed=0))
    agent.policy.module.double()
    if kind == "mlp":
        loss = agent.loss(batch.steps())
    else:
        loss = agent.loss(batch.without_closing())
    loss.total.backward()
    found = [weight.grad.clone() for weight in agent.network.parameters()]
    answer, known = batch.answer
    total, count = 0.0, 0
    agent.policy.module.zero_grad()
    for column, length in enumerate(batch.valid.sum(0).tolist()):
        state = None
        for t in range(length):
            seen, start = batch.obs[t : t + 1, [column]], torch.tensor([[t == 0]])
            out, state = agent.policy.module(seen, start, state)
            if known[t, column]:
                chance = torch.softmax(out[0, 0], -1)[answer[t, column]]
                total, count = total - chance.log(), count + 1
    total.backward()
    assert 0 < count < sum(LENGTHS) and loss.count == count
    torch.testing.assert_close(loss.total, total)
    for gradient, weight in zip(found, agent.network.parameters(), strict=True):
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-10, atol=1e-12)


class Sparse(Encoder):
    """One hot, with a term beside the loss that counts the answers it was shown."""

    features = 4

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, obs):
        return self.scale * nn.functional.one_hot(obs.long(), 4).float()

    def study(self, obs, start, state, answer, valid):
        shown = (answer * valid).sum() / valid.sum()
        return *self(obs, start, state), {"shown": self.scale * shown}


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: GRU(x, 4), lambda x: MLP(GRU(x, 4), 4)])
def test_a_networks_own_terms_are_added_to_the_mean(wrap):
    torch.manual_seed(0)
    agent, batch = played(wrap(Sparse()))
    rows = batch.steps() if not agent.memory else batch.without_closing()
    loss = agent.loss(rows)
    answer, known = rows.answer
    known = known & rows.valid
    shown = answer[known].double().mean()
    assert loss.metrics["train/shown"].item() == pytest.approx(shown.item())
    mean = loss.total / loss.count
    assert mean.item() == pytest.approx(
        (loss.metrics["train/imitation_loss"] + shown).item(), rel=1e-5
    )


def test_normalised_networks_hand_studies_on():
    class Studies(MLP):
        def study(self, obs, start, state, answer, valid):
            return *self(obs, start, state), {"mean": obs.mean()}

    space = spaces.Box(-1, 1, (2,))
    network = Normalized(Studies(normalized_space(space)), space)
    obs = torch.ones(3, 2, 2)
    *_, terms = network.study(obs, torch.zeros(3, 2, dtype=torch.bool), None, None, None)
    torch.testing.assert_close(terms["mean"], obs.mean(), rtol=1e-4, atol=1e-4)


# who is asked, and who drives


class First:
    """A teacher with a memory: answers what the episode showed first, and counts its questions."""

    def __init__(self):
        self.asked = 0

    def answers(self, obs, start, state=None):
        self.asked += 1
        first = obs if state is None else np.where(start, obs, state)
        return first, np.ones(len(obs), bool), first


def first_loop(n=3, kind="gru", steps=900, **options):
    envs = make("seqrl/RepeatFirst-v0", n)
    space = envs.single_observation_space
    args = {"hidden_size": 16} if kind == "gru" else {}
    given = {"teacher": First(), "batch_size": 2, "seed": 1} | options
    agent = Imitation(build(kind, space, seed=0, **args), envs.single_action_space, space, **given)
    agent.horizon = steps
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(2))
    return loop


def counted(agent):
    """The turns in which the network acts, from now on."""
    acted, act = [], agent.policy.act
    agent.policy.act = lambda *given: (acted.append(1), act(*given))[1]
    return acted


def test_nothing_goes_through_the_network_where_the_teacher_drives():
    loop = first_loop()
    acted = counted(loop.agent)
    loop.run(180)
    assert not acted and loop.agent.teacher.asked == 60
    assert loop.books.ep_rew_mean == pytest.approx(1.0)  # the teacher's


def test_evaluation_asks_nobody():
    agent = first_loop().agent
    before = agent.teacher.asked
    evaluate(agent, make("seqrl/RepeatFirst-v0", 3), 5, seed=0)
    assert agent.teacher.asked == before


@pytest.mark.parametrize("share, low, high", [(0.5, 0.4, 0.6), (1.0, 1.0, 1.0)])
def test_a_share_of_the_actions_is_its_own(share, low, high):
    """The answers are those of the teacher all the same."""
    envs = make("CartPole-v1", 4)
    agent = Imitation(
        MLP(envs.single_observation_space), envs.single_action_space,
        envs.single_observation_space, teacher=lambda obs: 1, own_share=share, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        agent.policy.module.layer.bias[:] = torch.tensor([50.0, -50.0])  # its own is always 0
    agent.meet(envs)
    obs, start, own = envs.reset(np.random.SeedSequence(0)), np.ones(4, bool), []
    for _ in range(250):
        decision = agent.act(obs, start)
        own += (decision.action == 0).tolist()
        assert decision.answer[0].tolist() == [1] * 4 and decision.answer[1].all()
    assert low <= np.mean(own) <= high
    assert driver_of(SimpleNamespace(agent=agent, envs=envs)) == (
        "rollout" if share == 1 else "teacher"
    )


def test_memory_is_kept_up_before_a_schedule_lets_it_act():
    loop = first_loop(own_share="linear:0:0.5", kind="gru")
    acted = counted(loop.agent)
    loop.run(3)
    assert acted and loop.state[0].shape == (3,) and loop.state[1] is not None
    assert first_loop(own_share=0.0).agent.act(loop.obs, loop.start).state[1] is None


def test_its_own_policy_explores_where_nobody_can_be_asked():
    agent = first_loop(kind="mlp").agent
    alone = pickle.loads(pickle.dumps(agent))
    assert alone.asked is None
    found = {alone.act(np.zeros(1, int), np.ones(1, bool)).action.item() for _ in range(100)}
    assert len(found) == 4


# the task as the teacher


class Late(RepeatFirst):
    """RepeatFirst that tells its answer at the last step alone."""

    def answer(self, xp, episodes):
        return episodes["deck"][:, 0], episodes["time"] == self.horizon - 1


def test_only_what_is_known_is_learned():
    envs = BatchedEnv(Late(), 4)
    space = envs.single_observation_space
    agent = Imitation(GRU(space, 16), envs.single_action_space, space, batch_size=4, seed=0)
    loop, losses = Interaction(agent, envs), []
    loss = agent.loss
    agent.loss = lambda batch: losses.append(loss(batch)) or losses[-1]
    loop.run(3 * 4 * 51)
    assert [x.count for x in losses] == [4, 4, 4]
    del agent.loss
    copied = copy.deepcopy(agent)
    assert copied.asked is None and agent.asked is not None and copied.updates == agent.updates
    copied.meet(BatchedEnv(Late(), 4))
    assert copied.asked.envs is not agent.asked.envs


# runs


def state_of(loop):
    return checkpoint.digest([loop.fingerprint(), loop.state])


@pytest.mark.parametrize("kind", ["gru", "mlp"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_split_turn_meets_a_checkpoint(tmp_path, kind, share):
    """The teacher's memory, the answers of surplus rows and of episodes under way go along."""
    whole, first, second = (first_loop(kind=kind, own_share=share) for _ in range(3))
    whole.run(900)
    first.run(400)
    assert first.stepped.surplus is not None and first.stepped.surplus.answer is not None
    checkpoint.save(tmp_path / "it", first.state_dict())
    second.load_state_dict(checkpoint.load(tmp_path / "it"))
    second.run(500)
    assert state_of(second) == state_of(whole) and whole.agent.updates > 4


@pytest.mark.parametrize("env", ["seqrl/BinaryAddition-v0", "seqrl/Adding-v0"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_environments_of_tensors_teach_as_well(env, share):
    def loop():
        envs = make(env, 8, device="cpu")
        space, actions = envs.single_observation_space, envs.single_action_space
        given = {"own_share": share, "batch_size": 4, "seed": 0}
        agent = Imitation(build("gru", space, seed=0, hidden_size=8), actions, space, **given)
        agent.horizon = 1501
        made = Interaction(agent, envs)
        made.reset(np.random.SeedSequence(0))
        return made

    whole, first, second = loop(), loop(), loop()
    whole.run(1501)
    first.run(1003)
    assert isinstance(first.stepped.surplus.answer[1], torch.Tensor)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run(498)
    assert state_of(second) == state_of(whole) and whole.agent.updates


def test_columns_keep_their_kinds_when_they_grow():
    store, no, yes = Episodes(1.0), np.array([False]), np.array([True])
    for t in range(200):
        answer = np.array([t % 100], np.int8), no if t % 2 else yes
        start, over = np.array([t == 0]), np.array([t == 199])
        turn = yes, start, None, None, np.array([1]), None, np.ones(1), over, no, no, yes
        store.add(Transition(*turn, answer))
    batch = store.take()
    assert batch.obs.dtype == bool and batch.answer[1].dtype == bool
    assert batch.answer[0].dtype == np.int8 and batch.answer[0][:-1, 0].tolist()[:3] == [0, 1, 2]
    assert batch.answer[1].sum() == 100


def test_passes_and_minibatches_step_over_everything_evenly():
    agent, sizes = first_loop(32, batch_size=5, epochs=3).agent, []
    loop = first_loop(32, batch_size=5, epochs=3)
    agent = loop.agent
    loss = agent.loss
    agent.loss = lambda batch: sizes.append(batch.valid.shape[1]) or loss(batch)
    while not agent.updates:
        loop.run(32)
    assert sizes == [6, 6, 5, 5, 5, 5] * 3 and agent.updates == 18


@pytest.mark.parametrize(
    "kind, given, columns", [("mlp", None, 64), ("gru", None, 8), ("gru", 3, 3)]
)
def test_fewer_columns_a_gradient_step_where_they_are_whole_episodes(kind, given, columns):
    agent = Imitation(build(kind, SPACE, seed=0), ACTIONS, SPACE, batch_size=given)
    assert agent.batch_size == columns


@pytest.mark.slow
def test_a_teacher_with_memory_is_learned_by_a_network_with_memory():
    loop = first_loop(64, steps=200_000, batch_size=16, optim=Optim("linear:0.01:0", 1.0))
    loop.run(200_000)
    assert evaluate(loop.agent, make("seqrl/RepeatFirst-v0", 8), 64, seed=3).mean > 0.99


def test_a_table_is_distilled_into_a_network():
    envs = make("CliffWalking-v1", 4, max_episode_steps=60)
    space, actions = envs.single_observation_space, envs.single_action_space
    table = QLearning(space, actions, learning_rate=0.5, exploration=EpsilonGreedy(0.1), seed=0)
    train(table, envs, 20_000, seed=0)
    assert evaluate(table, envs, 1, seed=0).mean == -13
    pupil = Imitation(
        MLP(space, 16), actions, space, teacher=table, own_share=0.2, seed=0,
        optim=Optim(0.02, 1.0),
    )  # fmt: skip
    assert isinstance(pupil.teacher, AgentTeacher)
    train(pupil, envs, 4_000, seed=0)
    assert evaluate(pupil, envs, 1, seed=0).mean == -13


@pytest.mark.parametrize("lazy", [False, True])
def test_dropout_is_there_before_the_network_has_ever_acted(lazy):
    """To try a network sets it to evaluation; where a teacher drives, it acts at the end alone."""
    found = []
    for dropout in (0.0, 0.5):
        envs = make("seqrl/BinaryAddition-v0", num_envs=64)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = GRU(2, 8, input_dropout=dropout)
        space = None if lazy else envs.single_observation_space
        agent = Imitation(network, envs.single_action_space, space, seed=0)
        train(agent, envs, steps=1024, seed=0)
        found.append(agent.policy.module.layer.weight.detach().clone())
    assert not torch.equal(*found)


@pytest.mark.parametrize("spread", [False, True])
def test_real_answers_are_learned(spread):
    envs = make("Pendulum-v1", 8, max_episode_steps=20)
    space, actions = envs.single_observation_space, envs.single_action_space
    pupil = Imitation(
        MLP(space, 32), actions, space, seed=0, optim=Optim("linear:0.01:0", 1.0),
        teacher=lambda obs: np.float32([obs[0] - obs[1]]), learn_spread=spread,
    )  # fmt: skip
    train(pupil, envs, 8_000, seed=0)
    obs = np.float32([[0.6, 0.8, 0.0], [-0.8, 0.6, 1.0]])
    found = pupil.act(obs, np.ones(2, bool), explore=False).action
    np.testing.assert_allclose(found, [[-0.2], [-1.4]], atol=0.1)
    log_std = float(pupil.head.log_std.detach())
    assert log_std < -1 if spread else log_std == -0.5
    pupil.asked = None
    drawn = pupil.act(obs, np.ones(2, bool)).action
    assert (drawn == found).all() != spread  # no spread was learned to draw by


# what is refused, in a line


@pytest.mark.parametrize(
    "given, said",
    [
        ({"own_share": 1.5}, "own_share 1.5: expected a number from 0 to 1"),
        ({"label_smoothing": 1.0}, r"label_smoothing 1.0: expected a number of \[0, 1\)"),
        ({"learn_spread": True}, r"learn_spread: Discrete\(3\) has no spread to learn"),
        ({"batch_size": 0}, "batch_size 0: expected a whole number of at least 1"),
        ({"teacher": 3}, "teacher: expected task, observation, a run's folder or module:function"),
        (
            {"teacher": First},
            "teacher: expected task, observation, a run's folder or module:function",
        ),
        ({"teacher": ""}, "teacher: expected task, observation, a run's folder or module:function"),
    ],
)
def test_numbers_that_do_not_fit(given, said):
    with pytest.raises(UsageError, match=said):
        Imitation(MLP(SPACE), ACTIONS, SPACE, **given)


def test_smoothing_of_real_numbers():
    with pytest.raises(UsageError, match="label_smoothing: actions are real numbers, no choices"):
        Imitation(MLP(SPACE), spaces.Box(0, 1, (1,)), SPACE, label_smoothing=0.1)


def wrong(obs):
    return 7


@pytest.mark.parametrize(
    "teacher, said",
    [
        (
            "nowhere",
            "--teacher nowhere: expected task, observation, a run's folder or .*; no such",
        ),
        ("nowhere:it", "--teacher nowhere:it: ModuleNotFoundError"),
        ("math:pi", "--teacher math:pi: expected a function, got float"),
        (QLearning(spaces.Discrete(2), ACTIONS), None),
        (wrong, r"teacher wrong: it answers 7; expected a member of Discrete\(2\)"),
    ],
    ids=["no folder", "no module", "no function", "an agent", "another action"],
)
def test_a_teacher_that_does_not_fit(teacher, said):
    envs = make("CartPole-v1", 2)
    space = envs.single_observation_space
    agent = Imitation(MLP(space), envs.single_action_space, space, teacher=teacher)
    if said is None:
        agent.teacher = AgentTeacher(teacher, spaces.Discrete(2), ACTIONS)
        said = r"its observation_space is Discrete\(2\), here it is Box"
    with pytest.raises(UsageError, match=said):
        train(agent, envs, 10)


def test_a_turn_without_an_answer():
    agent, no = Imitation(MLP(SPACE), ACTIONS, SPACE), np.array([False])
    zero = np.zeros(1, int)
    step = Transition(zero, ~no, None, None, zero, None, zero * 0.0, no, no, zero, ~no)
    with pytest.raises(UsageError, match="Imitation was told no answers"):
        agent.learn(step)


MASKED = spaces.Dict({"seen": SPACE, "action_mask": spaces.MultiBinary(5)})


@pytest.mark.parametrize("answer, fits", [([0, 2], True), ([1, 2], False), ([0, 1], False)])
def test_an_answer_that_a_mask_forbids_is_refused(answer, fits):
    """It has no chance, and the gradient of its likelihood none of mending that."""
    agent = Imitation(MLP(SPACE), spaces.MultiDiscrete([2, 3]), MASKED, batch_size=1, seed=0)
    mask = np.array([[1, 0, 1, 0, 1]], np.int8)
    obs, no = {"seen": np.zeros(1, int), "action_mask": mask}, np.zeros(1, bool)
    done = np.array([answer])
    step = Transition(obs, ~no, None, None, done, None, no * 0.0, ~no, no, obs, ~no, (done, ~no))
    if fits:
        assert 0 < agent.learn(step)["train/loss"] < 9
        return
    with pytest.raises(RunError, match="may not be given: the action_mask observed forbids it"):
        agent.learn(step)
    assert agent.learn(step._replace(answer=(done, no)))["train/loss"] == 0  # it is not known


def broken(obs):
    raise ValueError("no idea")


def test_a_function_that_fails_is_named():
    envs = make("CartPole-v1", 2)
    space = envs.single_observation_space
    agent = Imitation(MLP(space), envs.single_action_space, space, teacher=broken)
    with pytest.raises(RunError, match="teacher broken: ValueError: no idea"):
        train(agent, envs, 10)


def test_an_agent_of_other_actions_is_no_teacher():
    envs = make("CartPole-v1", 2)
    space = envs.single_observation_space
    other = Reinforce(MLP(space), spaces.Discrete(5), space)
    agent = Imitation(MLP(space), envs.single_action_space, space, teacher=other)
    with pytest.raises(UsageError, match=r"its action_space is Discrete\(5\), here it is"):
        train(agent, envs, 10)


# runs in folders

SHORT = "--quiet --preset none --no-pictures --eval-episodes 4".split()


def typed(text, folder):
    return script.main([*text.split(), *SHORT, "--run-dir", str(folder)])


def test_a_run_is_the_teacher_of_another(tmp_path, capsys):
    """With memory, on a schedule, stopped half-way and resumed: the same run."""
    teacher = "--agent reinforce --env seqrl/RepeatFirst-v0 --network gru --network-arg"
    assert typed(f"{teacher} hidden_size=8 --num-envs 4 --steps 300", tmp_path / "teacher") == 0
    words = "--agent imitate --env seqrl/RepeatFirst-v0 --network lstm --network-arg hidden_size=8"
    words += f" --teacher {tmp_path / 'teacher'} --own-share linear:0:0.5 --batch-size 4"
    words += " --num-envs 4 --steps 1201 --checkpoint-every 500"
    assert typed(words, tmp_path / "whole") == typed(words, tmp_path / "halved") == 0
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    (halved / "summary.json").unlink()
    max(halved.glob("checkpoint/step-*")).unlink()
    assert script.main(["--resume", str(halved), "--quiet"]) == 0
    summaries = [json.loads((run / "summary.json").read_text()) for run in (whole, halved)]
    assert summaries[0]["digest"] == summaries[1]["digest"]
    policy = seqrl.load(whole)  # which needs no teacher
    assert policy.agent.asked is None and policy.predict(2) in range(4)
    assert policy.predict(2, explore=True) in range(4)
    again = policy.agent.teacher
    assert again == str(tmp_path / "teacher")
    other = "--agent imitate --env seqrl/TMaze-v0 --teacher"
    assert typed(f"{other} {tmp_path / 'teacher'}", tmp_path / "no") == 2
    assert "its observation_space is Discrete(4), here it is" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_teacher_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert typed("--agent q-learning --env FrozenLake-v1 --steps 20", "teacher") == 0
    words = "--agent imitate --env FrozenLake-v1 --teacher teacher --steps 80 --checkpoint-every 50"
    assert typed(words, tmp_path / "run") == 0
    (tmp_path / "run" / "summary.json").unlink()
    max((tmp_path / "run").glob("checkpoint/step-*")).unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert script.main(["--resume", str(tmp_path / "run"), "--quiet"]) == 0


def test_a_teacher_of_other_wrappers_is_told(tmp_path, caplog):
    wrapped = " --wrapper gymnasium.wrappers:ClipReward --wrapper-arg min_reward=0"
    teacher = f"--agent q-learning --env FrozenLake-v1 --steps 20 --no-compile{wrapped}"
    assert typed(teacher, tmp_path / "teacher") == 0
    config = {"agent": "imitate", "env": "FrozenLake-v1", "steps": 20, "pictures": False}
    config |= {"agent_args": {"teacher": str(tmp_path / "teacher")}, "eval_episodes": 0}
    caplog.set_level(logging.WARNING, "seqrl")
    same = {"name": "gymnasium.wrappers:ClipReward", "args": {"min_reward": 0}}
    seqrl.run({**config, "wrappers": [same]}, tmp_path / "same")
    assert not caplog.records
    seqrl.run(config, tmp_path / "other")
    (told,) = (record.getMessage() for record in caplog.records)
    learned = "it learned in wrappers gymnasium.wrappers:ClipReward(min_reward=0)"
    assert f"teacher: {learned}, here are no wrappers; what it is shown may mean" in told


def test_returns_of_training_are_the_teachers(tmp_path):
    words = "--agent imitate --env seqrl/TMaze-v0 --num-envs 4 --steps 400"
    assert typed(words, tmp_path / "run") == 0
    loader = EventFileLoader(str(next((tmp_path / "run").glob("events*"))))
    tags = {value.tag for event in loader.Load() for value in event.summary.value}
    assert {"teacher/ep_rew_mean", "teacher/episode_return", "eval/mean_reward"} <= tags
    assert not any(tag.startswith("rollout/") for tag in tags)


def test_a_teachers_code_is_typed_again_to_resume(tmp_path, monkeypatch, capsys):
    (tmp_path / "pushes.py").write_text("def left(obs):\n    return 0\n")
    monkeypatch.chdir(tmp_path)
    words = "--agent imitate --env CartPole-v1 --teacher pushes:left --steps 100"
    assert typed(words, tmp_path / "run") == 0
    (tmp_path / "run" / "summary.json").unlink()
    remedy = "--agent imitate --teacher pushes:left"
    assert script.main(["--resume", str(tmp_path / "run")]) == 2
    assert f"to allow it, add {remedy}" in capsys.readouterr().err
    with pytest.raises(UsageError, match="its teacher imports code"):
        seqrl.run({"agent": "imitate"}, tmp_path / "run", resume=True)
    flags = code_flags(read_config(tmp_path / "run"))  # as a comparison types them for its runs
    assert flags == ["--agent=imitate", "--teacher=pushes:left"]
    assert script.main(["--resume", str(tmp_path / "run"), "--quiet", *flags]) == 0


def test_an_environment_without_answers_is_refused_before_there_is_a_folder(tmp_path, capsys):
    assert typed("--agent imitate --env CartPole-v1", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "CartPole-v1 tells no right answers" in said and "name another --teacher" in said
    assert not (tmp_path / "run").exists()
