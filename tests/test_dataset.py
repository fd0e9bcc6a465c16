"""Recorded episodes: their arrays, the passes through them, and learning from them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces

from seqrl.agents import (
    PPO,
    DeepMonteCarlo,
    DeepQ,
    DeepSarsa,
    Imitation,
    MonteCarlo,
    Optim,
    QLearning,
    Reinforce,
    ReplaySettings,
    Sarsa,
)
from seqrl.agents.experience.dataset import Dataset
from seqrl.agents.experience.recording import Recording, together
from seqrl.core import UsageError
from seqrl.envs.recorded import Recorded
from seqrl.networks import MLP, build
from seqrl.training import Interaction
from seqrl.training.loop.fit import fit, recorded_for
from seqrl.training.runs import checkpoint

BOX, ACTIONS = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)
STATES = spaces.Discrete(50)


def recorded(lengths=(3, 1, 5, 40, 7), space=STATES, about=None):
    """Episodes in which row r shows r (mod 50), pays r, and action r mod 2 is taken."""
    length = np.array(lengths)
    row = np.arange(int((length + 1).sum()))
    rng = np.random.default_rng(0)
    obs = row % 50 if space is STATES else rng.uniform(-1, 1, (len(row), 3)).astype(np.float32)
    ends = np.arange(len(length)) % 2 == 0
    return Recording(obs, row % 2, row * 1.0, length, ends, space, ACTIONS, about or {})


# arrays


def test_returns_by_hand():
    made = recorded((3, 1, 2))
    assert made.first.tolist() == [0, 4, 6] and made.steps == 6
    assert made.closing.tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 1]
    assert made.returns.tolist() == [0 + 1 + 2, 4, 6 + 7]
    assert made.returns_to_go().tolist() == [3, 3, 2, 0, 4, 0, 13, 7, 0]


def test_the_best_share_keeps_the_order():
    made = recorded((3, 1, 2))
    best = made.best(2 / 3)
    assert best.length.tolist() == [1, 2] and best.returns.tolist() == [4, 13]
    assert best.obs.tolist() == [4, 5, 6, 7, 8] and best.terminated.tolist() == [False, True]
    assert made.best(0.01).returns.tolist() == [13] and made.best(1.0).digest == made.digest


def test_recordings_are_put_together():
    one, two = recorded((3, 1)), recorded((2,))
    both = together([one, two], ["a", "b"])
    assert both.length.tolist() == [3, 1, 2] and both.returns.tolist() == [3, 4, 1]
    assert both.digest not in (one.digest, two.digest)
    with pytest.raises(UsageError, match=r"b: its observation_space is Box.*, that of a Discrete"):
        together([one, recorded((2,), BOX)], ["a", "b"])
    with pytest.raises(UsageError, match="b: it is of Y, a of X"):
        pairs = [recorded((2,), about={"env": env}) for env in "XY"]
        together(pairs, ["a", "b"])


@pytest.mark.parametrize(
    "change, said",
    [
        ({"length": np.array([3, 1, 5, 40, 8])}, "lengths differ: 5 episodes are 62 rows"),
        ({"action": np.zeros(60, int)}, r"lengths differ: .* its arrays have \[60, 61\]"),
        ({"length": np.array([4, 0, 5, 40, 7])}, "lengths differ"),
        ({"terminated": np.ones(4, bool)}, "lengths differ"),
        ({"length": np.zeros(0, int)}, "there is no episode in it"),
        ({"reward": np.full(61, np.nan)}, "a reward is not finite"),
    ],
)
def test_arrays_that_are_no_episodes(change, said):
    with pytest.raises(UsageError, match=f"it: .*{said}|it: {said}"):
        recorded()._replace(**change).checked("it")


# passes


def test_a_pass_draws_every_step_once_with_what_followed_it():
    made, rng = recorded(), np.random.default_rng(1)
    data = Dataset(made)
    batch = data.sample(made.steps, rng)
    rows = batch.indices[0]
    assert sorted(rows) == np.flatnonzero(~made.closing).tolist()
    assert batch.reward.shape == (2, made.steps) and batch.reward.dtype == np.float32
    assert (batch.obs[0] == rows % 50).all() and (batch.obs[1] == (rows + 1) % 50).all()
    ends = np.isin(rows, (made.first + made.length - 1)[made.terminated])
    assert (batch.discount[0] == ~ends).all()
    assert batch.final.tolist() == [[False] * made.steps, [True] * made.steps]
    assert batch.answer[0] is batch.action and (batch.answer[1] == batch.valid).all()
    again = data.sample(made.steps, rng).indices[0]
    assert sorted(again) == sorted(rows) and (again != rows).any()


def test_whole_episodes_stand_side_by_side():
    made = recorded((3, 1, 2))
    batch = Dataset(made).sample(3, np.random.default_rng(0), whole=True)
    assert batch.reward.shape == (4, 3)
    for column in range(3):
        first = batch.indices[0, column]
        length = int(batch.valid[:, column].sum())
        assert batch.start[:, column].tolist() == [True] + [False] * 3
        assert batch.obs[: length + 1, column].tolist() == list(range(first, first + length + 1))
        assert batch.valid[:, column].tolist() == [True] * length + [False] * (4 - length)
        ended = made.terminated[made.first.tolist().index(first)]
        assert batch.discount[length - 1, column] == (0.0 if ended else 1.0)


@pytest.mark.parametrize("whole", [False, True])
def test_a_pass_goes_on_where_it_was_left(whole):
    one, two = Dataset(recorded()), Dataset(recorded())
    rng, other = np.random.default_rng(0), np.random.default_rng(9)
    one.sample(3, rng, whole=whole)
    two.load_state_dict(one.state_dict())
    size = 2 if whole else 20
    found = [data.sample(size, r, whole=whole).indices for data, r in ((one, rng), (two, other))]
    assert (found[0] == found[1]).all()


def test_other_data_are_refused():
    state = Dataset(recorded()).state_dict()
    with pytest.raises(UsageError, match="recorded episodes: they are not those that were learned"):
        Dataset(recorded((3, 1))).load_state_dict(state)
    envs, fewer = (Recorded(Dataset(recorded(x)), 2, whole=True) for x in ((3, 1, 5), (3, 1)))
    envs.reset()
    saved = {**envs.state_dict(), "ended": np.array([2, 2])}  # of which the others have none
    with pytest.raises(UsageError, match="recorded episodes: they are not those that were learned"):
        fewer.load_state_dict(saved)


@pytest.mark.parametrize("name, number", [("position", 6), ("seed", -1), ("count", 99)])
def test_a_place_that_is_none_is_refused(name, number):
    """A draw from behind the end of a pass would never come to an end."""
    data = Dataset(recorded())
    data.sample(2, np.random.default_rng(0), whole=True)
    with pytest.raises(UsageError, match=f"data/{name}"):
        Dataset(recorded()).load_state_dict({**data.state_dict(), name: number})


# learning


def agent_of(kind, cls, space=BOX):
    numbers = {"batch_size": 4} if cls is Imitation else {}
    if cls is DeepQ:
        numbers = {"replay": ReplaySettings(2000, learning_starts=50, priority=0.5)}
    if cls is QLearning:
        return QLearning(space, ACTIONS, n_step=2, seed=1)
    args = {"hidden_size": 4} if kind == "gru" else {"hidden": (4,)}
    network = build(kind, space, seed=0, **args)
    return cls(network, ACTIONS, space, seed=1, device="cpu", **numbers)


PAIRS = [("mlp", Imitation), ("gru", Imitation), ("mlp", DeepQ), ("gru", DeepQ), ("", QLearning)]
NAMES = [f"{cls.__name__} {kind}".strip() for kind, cls in PAIRS]


def loop_of(kind, cls):
    space = STATES if cls is QLearning else BOX
    agent = agent_of(kind, cls, space)
    agent.horizon = 400
    loop = Interaction(agent, recorded_for(agent, recorded(space=space)), compile=False)
    loop.reset(np.random.SeedSequence(3))
    return loop


@pytest.mark.parametrize("kind, cls", PAIRS, ids=NAMES)
def test_n_steps_and_m_steps_are_n_plus_m(tmp_path, kind, cls):
    """Also where the end splits a turn, and what was learned, and drawn, comes from a file."""
    whole, first, second = (loop_of(kind, cls) for _ in range(3))
    whole.run(400)
    first.run(133)
    checkpoint.save(tmp_path / "it", first.state_dict())
    second.load_state_dict(checkpoint.load(tmp_path / "it"))
    second.run(267)
    one, two = (
        checkpoint.digest([loop.fingerprint(), [*loop.books.recent]]) for loop in (whole, second)
    )
    assert one == two
    assert whole.steps == whole.agent.steps == 400 and whole.books.episodes > 20


@pytest.mark.parametrize("kind, cls", PAIRS, ids=NAMES)
def test_episodes_are_counted_once_a_pass(kind, cls):
    loop, made = loop_of(kind, cls), recorded()
    heard = []
    loop.recorder = type("Heard", (), {"episode": lambda self, loop, x: heard.append(x)})()
    loop.run(2 * made.steps)
    expected = sorted(zip(made.returns, made.length, ~made.terminated, strict=True))
    if kind != "gru" or cls is not Imitation:  # those learn from four episodes at a time
        found = [(x.total, x.length, x.truncated) for x in heard]
        assert sorted(found) == sorted(2 * expected)
    assert {x.total for x in heard} == set(made.returns)
    assert [x.step for x in heard] == sorted(x.step for x in heard)


def test_single_steps_are_minibatches():
    """Each gradient step is on as many steps as asked for, of anywhere in the recording."""
    agent, sizes = agent_of("mlp", Imitation), []
    loss = agent.loss
    agent.loss = lambda batch: sizes.append(batch.valid.shape) or loss(batch)
    fit(agent, recorded(space=BOX), 4 * 30, seed=0)
    assert sizes == [(1, 4)] * 30 and agent.updates == 30


def test_episodes_are_columns_for_a_memory():
    agent, sizes = agent_of("gru", Imitation), []
    loss = agent.loss
    agent.loss = lambda batch: sizes.append(batch.valid.sum(0).tolist()) or loss(batch)
    fit(agent, recorded(space=BOX), 500, seed=0)
    assert len(sizes) > 5 and all(len(x) == 4 and set(x) <= {3, 1, 5, 40, 7} for x in sizes)


def test_what_was_done_is_imitated():
    made = recorded((9, 9, 9, 9, 9), STATES)
    agent = Imitation(
        MLP(STATES, 16), ACTIONS, STATES, optim=Optim(0.02, 1.0), batch_size=8, seed=0
    )
    fit(agent, made, 3000, seed=0)
    seen = np.flatnonzero(~made.closing)
    action = agent.act(seen % 50, np.ones(len(seen), bool), explore=False).action
    assert (action == seen % 2).all()


def chain(episodes=60):
    """Episodes of random steps left and right on 6 states, paid for reaching the last one."""
    rng, parts = np.random.default_rng(0), []
    for _ in range(episodes):
        state, rows = 2, []
        while len(rows) < 30 and state < 5:
            action = int(rng.integers(2))
            after = min(max(state + 2 * action - 1, 0), 5)
            rows.append((state, action, float(after == 5)))
            state = after
        parts.append(([*rows, (state, 0, 0.0)], len(rows), state == 5))
    columns = zip(*[row for rows, _, _ in parts for row in rows], strict=True)
    obs, action, reward = map(np.array, columns)
    ends = np.array([x[1] for x in parts]), np.array([x[2] for x in parts])
    return Recording(obs, action, reward, *ends, spaces.Discrete(6), ACTIONS)


@pytest.mark.parametrize("kind", ["table", "mlp"])
def test_q_learning_is_better_than_what_it_saw(kind):
    """Walks at random, of which the way that is never walked straight is learned."""
    made, space = chain(), spaces.Discrete(6)
    if kind == "table":
        agent = QLearning(space, ACTIONS, learning_rate=0.2, gamma=0.9, seed=0)
    else:
        agent = DeepQ(MLP(space, 8), ACTIONS, space, gamma=0.9, optim=Optim(0.01, 10.0), seed=0)
    fit(agent, made, 4000, seed=0)
    found = agent.act(np.arange(5), np.ones(5, bool), explore=False).action
    assert found.tolist() == [1] * 5


def test_the_same_seed_is_the_same_run():
    made = [agent_of("mlp", Imitation) for _ in range(3)]
    for agent, seed in zip(made, (0, 0, 1), strict=True):
        fit(agent, recorded(space=BOX), 200, seed=seed)
    digests = [checkpoint.digest(agent.state_dict()) for agent in made]
    assert digests[0] == digests[1] != digests[2]


def test_memory_is_carried_for_the_replay():
    """As where it plays: sequences begin with the memory of then."""
    loop = loop_of("gru", DeepQ)
    loop.run(200)
    states = loop.agent.store.rows.states
    assert states is not None and torch.as_tensor(states).abs().sum() > 0


def test_a_copy_goes_on_by_itself():
    loop = loop_of("mlp", Imitation)
    loop.run(50)
    other = pickle.loads(pickle.dumps(copy.deepcopy(loop.envs)))
    before = loop.envs.state_dict()
    other.step(None)
    assert checkpoint.digest(before) == checkpoint.digest(loop.envs.state_dict())
    assert checkpoint.digest(before) != checkpoint.digest(other.state_dict())


# who may


@pytest.mark.parametrize("cls", [PPO, Reinforce, DeepSarsa, DeepMonteCarlo, Sarsa, MonteCarlo])
def test_who_learns_from_its_own_actions_alone(cls):
    table = cls in (Sarsa, MonteCarlo)
    agent = cls(STATES, ACTIONS) if table else cls(MLP(STATES, 4), ACTIONS, STATES)
    with pytest.raises(UsageError, match=f"{cls.__name__} .* own actions alone .on policy."):
        fit(agent, recorded(), 10)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"teacher": lambda obs: 0}, "teacher: what was recorded is the answer"),
        ({"own_share": "linear:0:0.5"}, "own_share: what was recorded goes on whatever it does"),
    ],
    ids=["teacher", "own share"],
)
def test_nobody_else_is_asked(given, said):
    with pytest.raises(UsageError, match=said):
        fit(Imitation(MLP(STATES, 4), ACTIONS, STATES, **given), recorded(), 10)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"action_space": spaces.Discrete(3)}, r"its action_space is Discrete\(3\), the agent's"),
        ({"action": np.full(61, 9)}, r"recording: row 0: action 9 is not of Discrete\(2\)"),
        ({"obs": np.full(61, 77)}, r"recording: row 0: observation 77 is not of Discrete\(50\)"),
        ({"obs": np.zeros((61, 3))}, r"recording: row 0: observation .* of shape \(3,\) is not of"),
        ({"terminated": np.ones(5)}, "recording: expected whole lengths, ends as bool"),
    ],
    ids=lambda x: next(iter(x), "") if isinstance(x, dict) else "",
)
def test_recordings_that_do_not_fit(change, said):
    with pytest.raises(UsageError, match=said):
        fit(Imitation(MLP(STATES, 4), ACTIONS, STATES), recorded()._replace(**change), 10)


def test_what_is_no_recording():
    with pytest.raises(UsageError, match="data list: expected what"):
        fit(Imitation(MLP(STATES, 4), ACTIONS, STATES), [1, 2], 10)
