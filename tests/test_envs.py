"""Conformance of every batched environment of ours, and its rules and scores by hand."""

import copy
import itertools
import json
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from seqrl.core import UsageError, tree
from seqrl.core.tokens import END
from seqrl.envs.adapter import adapt
from seqrl.envs.batched import BatchedEnv, SingleEnv
from seqrl.envs.batches import clipper
from seqrl.envs.draws import Draws, TorchDraws
from seqrl.envs.making import horizon, make, may_never_end, time_limit
from seqrl.envs.reference import reference_scores
from seqrl.envs.registry import TASKS, register_all, task

register_all()

CATCH, FIRST, TMAZE = "seqrl/Catch-v0", "seqrl/RepeatFirst-v0", "seqrl/TMaze-v0"
PREVIOUS, NEXT = "seqrl/RepeatPrevious-v0", "seqrl/NextToken-v0"
WAVES, SAMPLES = "seqrl/Waves-v0", "seqrl/Samples-v0"
GAMES = [
    (CATCH, {}),
    (CATCH, {"rows": 4, "columns": 6}),
    (FIRST, {}),
    (FIRST, {"decks": 2}),
    (PREVIOUS, {}),
    (PREVIOUS, {"decks": 2}),
    (TMAZE, {}),
    (TMAZE, {"length": 1}),
    (TMAZE, {"length": 3, "active": True}),
]
SEQUENCES = [
    ("seqrl/Adding-v0", {"length": 6}),
    ("seqrl/BinaryAddition-v0", {"bits": 3}),
    ("seqrl/CopyMemory-v0", {"blanks": 3, "items": 2, "symbols": 3}),
    ("seqrl/Facts-v0", {"people": 2, "things": 2, "places": 3, "more": 2}),
    ("seqrl/Facts-v0", {"asked": "person"}),
    ("seqrl/Gates-v0", {}),
    (NEXT, {"length": 5, "tokens": 3}),
    (NEXT, {"length": 5, "path": __file__}),
    (SAMPLES, {}),
    (SAMPLES, {"set": "line", "noise": 1, "size": 20}),
    (SAMPLES, {"set": "digits", "noise": 0.1, "size": 20, "answer": "observation"}),
    ("seqrl/Trees-v0", {"depth": 2}),
    ("seqrl/Trees-v0", {"grammar": "sentences", "shallowest": 3, "depth": 3, "bag": True}),
    (WAVES, {"watch": 3, "judged": 3}),
    ("seqrl/WordContext-v0", {"window": 2, "negative": 2}),
    ("seqrl/WordContext-v0", {"task": "seqrl/Facts-v0", "task_args": {"people": 2}}),
    ("seqrl/WordContext-v0", {"sg": False, "path": __file__, "least": 3}),
    (WAVES, {"watch": 9, "judged": 2, "regimes": 2, "free": False, "noise": 0.1}),
]
TOKENS = [  # episodes end where END is said
    ("seqrl/Corpus-v0", {}),
    ("seqrl/Corpus-v0", {"form": "dialogues", "reward": "bleu", "part": "all"}),
    ("seqrl/Dialogue-v0", {"slots": 1, "values": 2, "turns": 3, "penalty": 0.5}),
    ("seqrl/Translate-v0", {}),
    ("seqrl/Translate-v0", {"rule": "grammar", "shortest": 1, "reward": "edit"}),
]
CONTROL = [(f"seqrl/{name}-v0", {}) for name in ("Acrobot", "CartPole", "MountainCar", "Pendulum")]
CASES = GAMES + SEQUENCES + TOKENS + CONTROL
EARLY = {env_id for env_id, _ in TOKENS}
NAMES = [
    " ".join([i[6:-3], *(k if k == "path" else f"{k}={v}" for k, v in options.items())])
    for i, options in CASES
]
MODES = [mode.value for mode in AutoresetMode]


def cases_where(holds):
    """The cases whose task is as asked for."""
    chosen = [i for i, (env_id, options) in enumerate(CASES) if holds(task(env_id, **options))]
    return pytest.mark.parametrize(
        ("env_id", "options"), [CASES[i] for i in chosen], ids=[NAMES[i] for i in chosen]
    )


def span(rules):
    """Steps that show an episode: to its end, where the rules bound it."""
    return rules.horizon or 40


case = cases_where(lambda rules: True)
long_case = cases_where(lambda rules: span(rules) > 1)
telling_case = cases_where(lambda rules: hasattr(rules, "answer"))
device = pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])


def batch(env_id, n=3, **kwargs):
    return gym.make_vec(env_id, num_envs=n, **kwargs)


def host(array):
    return array if isinstance(array, np.ndarray | np.generic) else array.cpu().numpy()


def actions_for(envs, steps, seed=0):
    space = copy.deepcopy(envs.action_space)
    space.seed(seed)
    return np.array([space.sample() for _ in range(steps)])


def same(a, b):
    """Equal values, shapes and dtypes, leaf by leaf."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "dtype"):
        return host(a).dtype == host(b).dtype and np.array_equal(host(a), host(b))
    return a == b


def place(envs, **episodes):
    """Put the batch into positions of our choosing."""
    state = envs.get_state()
    state["episodes"].update({name: np.array(rows) for name, rows in episodes.items()})
    envs.set_state(state)
    return envs


def returns(envs, actions):
    """Play fixed actions [T, N] to the end of the episodes: their returns, float64 [N]."""
    total = np.zeros(envs.num_envs)
    for t, action in enumerate(actions):
        _, reward, terminated, truncated, _ = envs.step(action)
        total += host(reward)
        assert not host(truncated).any() and (host(terminated) == (t == len(actions) - 1)).all()
    return total


def sequences(actions, length):
    """All action sequences of a length [length, actions ** length]."""
    return np.array(list(itertools.product(range(actions), repeat=length))).T


# --- the Gymnasium contract


@case
@pytest.mark.filterwarnings("ignore:.*(symmetric and normalized|infinity. This is probably)")
def test_single_passes_check_env(env_id, options):
    check_env(gym.make(env_id, **options).unwrapped)


@case
@device
def test_what_is_seen_is_in_the_spaces_and_in_fresh_memory(env_id, options, device):
    envs = batch(env_id, device=device, **options)
    n = envs.num_envs
    seen = [envs.reset(seed=0)[0]]
    for action in actions_for(envs, 2 * span(envs.task) + 1):
        obs, reward, terminated, truncated, info = envs.step(action)
        assert host(reward).dtype == np.float32 and reward.shape == (n,)
        assert all(host(x).dtype == bool and x.shape == (n,) for x in (terminated, truncated))
        leaves = [reward, *tree.leaves(obs)]
        assert device is None or {leaf.device.type for leaf in leaves} == {device}
        assert host(terminated | truncated).any() == bool(info)
        seen += [obs, *([info["final_obs"]] if info else [])]
    seen = [tree.map(host, obs) for obs in seen]
    assert all(envs.observation_space.contains(obs) for obs in seen)
    pairs = [zip(*map(tree.leaves, pair), strict=True) for pair in itertools.pairwise(seen)]
    assert not any(np.shares_memory(*leaves) for pair in pairs for leaves in pair)
    assert all(envs.single_observation_space.contains(tree.take(seen[0], i)) for i in range(n))


@case
@device
def test_a_seed_fixes_everything(env_id, options, device):
    def run(*seeds):
        envs = batch(env_id, 16, device=device, **options)
        got = [envs.reset(seed=seed)[0] for seed in seeds]
        return got + [envs.step(a) for a in actions_for(envs, span(envs.task) + 2)]

    assert same(run(2**200), run(2**200))
    assert same(run(7, None)[1:], run(7, None)[1:])  # the second reset goes on in the stream
    assert not same(run(7)[1:], run(7, None)[2:])
    assert not same(run(7), run(8))


@device
def test_a_seed_is_a_whole_number(device):
    envs = batch(CATCH, device=device)
    for seed in (-1, 1.5, True, [1, 2, 3]):
        with pytest.raises(UsageError, match="whole number of at least 0"):
            envs.reset(seed=seed)
    assert same(envs.reset(seed=np.int64(3))[0], envs.reset(seed=3)[0])


@case
def test_single_is_a_batch_of_one(env_id, options):
    one, many = gym.make(env_id, **options), batch(env_id, 1, **options)
    assert same(one.reset(seed=5)[0], tree.take(many.reset(seed=5)[0], 0))
    for (action,) in actions_for(many, 3 * span(many.task)):
        obs, reward, terminated, truncated, _ = one.step(action)
        first, *batched, info = many.step(np.array([action]))
        assert [reward, terminated, truncated] == [float(x[0]) for x in batched]
        assert same(obs, tree.take(info["final_obs"] if info else first, 0))
        if terminated:
            assert same(one.reset()[0], tree.take(first, 0))
    assert one.unwrapped.get_state()["rng"] == one.unwrapped.np_random.bit_generator.state


def turns(envs, steps, desync=False, always=False):
    """What truly followed each action, row by row, in any autoreset mode [steps]."""
    mode, n = envs.metadata["autoreset_mode"], envs.num_envs
    actions, k, out, filler = actions_for(envs, steps), 0, [], np.zeros(n, bool)
    if envs.spec.id in EARLY:
        actions = np.maximum(actions, END + 1)  # all go on as long as they may
    obs, _ = envs.reset(seed=5)
    while k < steps:
        if desync and k == 1:
            obs, _ = envs.reset(options={"reset_mask": np.arange(n) == 1})
            filler &= np.arange(n) != 1
        after, reward, terminated, truncated, info = envs.step(actions[k])
        over, valid = host(terminated) | host(truncated), ~filler
        assert not (over | (host(reward) != 0))[filler].any()
        filler, next_obs = np.zeros(n, bool), after
        if mode is AutoresetMode.NEXT_STEP:
            filler = over
        elif mode is AutoresetMode.SAME_STEP and "final_obs" in info:  # as on a device always
            next_obs = info["final_obs"]
            assert same(host(info["_final_obs"]), over)
        elif over.any() or always:
            options = {"reset_mask": over, "other": 1}
            after, _ = envs.reset(options=options)
            assert options.keys() == {"reset_mask", "other"}
        turn = [tree.map(host, x) for x in (obs, next_obs, reward, terminated, truncated)]
        out.append((valid, turn))
        k, obs = k + int(valid.any()), after
    return out


@case
@device
@pytest.mark.parametrize("limit", [None, 2])
def test_all_autoreset_modes_play_the_same(env_id, options, device, limit):
    rules = task(env_id, **options)
    limit = limit if rules.horizon else limit or 7  # which those need that may never end
    options = {**options, "device": device, "max_episode_steps": limit}
    played = [turns(batch(env_id, autoreset_mode=mode, **options), 120) for mode in MODES]
    next_step, same_step, disabled = ([x for v, x in turn if v.all()] for turn in played)
    assert not all(v.all() for v, _ in played[0])  # fillers
    assert same(same_step, disabled)
    in_step = all((x[3] | x[4]).all() == (x[3] | x[4]).any() for x in same_step)
    assert in_step or options.get("form") == "dialogues"  # which are of several lengths
    assert not in_step or same(same_step, next_step)
    ends = rules.horizon is not None and (limit is None or rules.horizon <= limit)
    assert any(x[3].any() for x in same_step) is ends
    assert any(x[4].any() for x in same_step) is (limit is not None and span(rules) >= limit)


@case
def test_a_device_draws_for_all_in_every_turn(env_id, options, monkeypatch):
    monkeypatch.setattr(TorchDraws, "counts", False)
    options = {**options, "device": "cpu", "max_episode_steps": 7}
    played = [batch(env_id, autoreset_mode=mode, **options) for mode in MODES]
    next_step, same_step, disabled = (turns(envs, 40, always=True) for envs in played)
    assert same(same_step, disabled)
    ends = np.array([x[3] | x[4] for _, x in next_step])
    assert same(~np.array([v for v, _ in next_step])[1:], ends[:-1]) and ends.any()


@long_case
@device
def test_rows_out_of_step_stay_apart(env_id, options, device):
    options = {**options, "device": device, "max_episode_steps": 5}
    played = [turns(batch(env_id, autoreset_mode=mode, **options), 40, True) for mode in MODES]
    next_step, same_step, disabled = played
    assert same(same_step, disabled)
    over = np.array([x[3] | x[4] for _, x in same_step])
    first = int(over.any(1).argmax())
    assert over[first].tolist() == [True, False, True]  # row 1 began later
    assert same(next_step[: first + 1], same_step[: first + 1])
    ends = np.array([x[3] | x[4] for _, x in next_step])
    assert same(~np.array([v for v, _ in next_step])[1:], ends[:-1])


@device
def test_a_reset_mask_leaves_the_others_alone(device):
    envs = batch(TMAZE, device=device)
    envs.reset(seed=0)
    obs = [host(envs.step(np.zeros(3, int))[0]) for _ in range(2)][-1]
    mask = np.array([False, True, False])
    mask.flags.writeable = False
    got = host(envs.reset(options={"reset_mask": mask})[0])
    assert same(got[~mask], obs[~mask]) and abs(got[1, 1]) == 1
    assert envs.get_state()["episodes"]["time"].tolist() == [2, 0, 2]
    for wrong in ([True, False], [1, 0, 0]):
        with pytest.raises(UsageError, match=r"reset_mask: expected bool \[3\]"):
            envs.reset(options={"reset_mask": wrong})


@case
@device
@pytest.mark.parametrize("mode", MODES)
def test_state_goes_on_bit_by_bit(env_id, options, device, mode):
    options = {**options, "device": device, "autoreset_mode": mode, "max_episode_steps": 4}

    def go(envs, actions):
        out = []
        for action in actions:
            *turn, info = envs.step(action)
            if mode == "Disabled" and host(turn[2] | turn[3]).any():
                turn += [envs.reset(options={"reset_mask": turn[2] | turn[3]})[0]]
            out.append((*turn, info))
        return out

    envs, other = batch(env_id, **options), batch(env_id, **options)
    envs.reset(seed=1)
    actions = actions_for(envs, 30)
    go(envs, actions[:2])
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    go(envs, actions[2:8])
    state = envs.get_state()
    kept = copy.deepcopy(state)
    rest = go(envs, actions[8:])
    other.set_state(state)
    assert same(go(other, actions[8:]), rest)
    assert same(envs.get_state(), other.get_state()) and same(state, kept)


@telling_case
@device
@pytest.mark.parametrize("mode", MODES)
def test_answering_changes_nothing(env_id, options, device, mode):
    """Answers are actions of the space, known nowhere that an episode is over."""
    options = {**options, "device": device, "autoreset_mode": mode, "max_episode_steps": 7}
    envs = batch(env_id, 5, **options)
    space, over = envs.action_space, np.zeros(5, bool)
    envs.reset(seed=3)
    for action in actions_for(envs, 2 * envs.task.horizon + 3):
        before = envs.get_state()
        answer, known = envs.answer()
        assert same(envs.get_state(), before) and same(envs.answer(), (answer, known))
        assert host(answer).dtype == space.dtype and space.contains(host(answer))
        assert device is None or answer.device.type == known.device.type == device
        assert host(known).dtype == bool and not (host(known) & over).any()
        _, _, terminated, truncated, _ = envs.step(action)
        over = host(terminated | truncated)
        if mode == "Disabled" and over.any():
            envs.reset(options={"reset_mask": over})
        if mode != "NextStep":
            over[:] = False


@telling_case
@device
def test_the_answers_score_the_optimum(env_id, options, device):
    envs = batch(env_id, 256, device=device, **options)
    envs.reset(seed=0)
    total, playing = np.zeros(256), np.ones(256, bool)
    for _ in range(envs.task.horizon):
        _, reward, terminated, _, _ = envs.step(envs.answer()[0])
        total += np.where(playing, host(reward), 0)
        playing &= ~host(terminated)
    assert not playing.any()
    # of what is drawn beforehand the answers know more than any policy
    known = {NEXT: 1.0, WAVES: 0.0, "seqrl/WordContext-v0": 1.0}
    optimum = known.get(env_id) or envs.task.scores().get("optimum", 0.0)
    assert total == pytest.approx(np.full(256, optimum), abs=1e-6)


@telling_case
def test_numpy_and_torch_tell_the_same(env_id, options):
    ours, theirs = batch(env_id, 64, **options), batch(env_id, 64, device="cpu", **options)
    ours.reset(seed=3)
    theirs.reset(seed=3)
    theirs.set_state({**ours.get_state(), "rng": theirs.get_state()["rng"]})
    playing = np.ones(64, bool)  # the episode that both have begun
    for action in actions_for(ours, ours.task.horizon):
        told = [tree.map(lambda x: host(x)[playing], envs.answer()) for envs in (ours, theirs)]  # noqa: B023
        assert same(*told)
        playing &= ~ours.step(action)[2]
        theirs.step(action)


@telling_case
def test_a_single_one_tells_an_action_or_none(env_id, options):
    one, many = gym.make(env_id, **options).unwrapped, batch(env_id, 1, **options)
    one.reset(seed=5)
    many.reset(seed=5)
    for (action,) in actions_for(many, many.task.horizon):
        answer, known = many.answer()
        assert same(one.answer(), answer[0] if known[0] else None)
        many.step(action[None])
        if one.step(action)[2]:
            break
    assert one.answer() is None  # the episode is over


@case
@device
def test_copies_and_pickles_go_on_alike(env_id, options, device):
    envs = batch(env_id, device=device, **options)
    envs.reset(seed=1)
    actions = actions_for(envs, 20)
    for action in actions[:3]:
        envs.step(action)
    made = [copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))]
    rest = [envs.step(action) for action in actions[3:]]
    for other in made:
        assert same([other.step(action) for action in actions[3:]], rest)


@device
def test_state_is_arrays_and_plain_values(device):
    envs = batch(FIRST, device=device)
    envs.reset(seed=0)
    state = envs.get_state()
    assert all(isinstance(leaf, np.ndarray) for leaf in state["episodes"].values())
    if device is None:
        assert json.loads(json.dumps(state["rng"])) == state["rng"]
    else:
        assert state["rng"].dtype == np.uint8
    before, after = batch(FIRST, device=device), batch(FIRST, device=device)
    after.set_state(before.get_state())  # before the first reset
    assert same(before.reset()[0], after.reset()[0])


@case
def test_single_state_goes_on(env_id, options):
    one, other = (gym.make(env_id, **options).unwrapped for _ in range(2))
    one.reset(seed=2)
    first, second = actions_for(batch(env_id, 1, **options), 2)[:, 0]
    if one.step(first)[2]:
        one.reset()
    other.set_state(one.get_state())
    assert one.np_random.bit_generator.state == other.np_random.bit_generator.state
    assert same(one.step(second), other.step(second)) and same(one.reset()[0], other.reset()[0])


def test_state_of_something_else_is_refused():
    envs = batch(TMAZE)
    with pytest.raises(UsageError, match=r"play TMaze\(length=9"):
        envs.set_state(batch(TMAZE, length=9).get_state())
    with pytest.raises(UsageError, match="2 environments were saved, not 3"):
        envs.set_state(batch(TMAZE, 2).get_state())
    for one, two in ((None, "cpu"), ("cpu", None)):
        with pytest.raises(UsageError, match="the saved environments were"):
            batch(TMAZE, device=one).set_state(batch(TMAZE, device=two).get_state())


@case
def test_numpy_and_torch_play_by_the_same_rules(env_id, options):
    ours, theirs = batch(env_id, 64, **options), batch(env_id, 64, device="cpu", **options)
    ours.reset(seed=3)
    theirs.reset(seed=3)
    state = theirs.get_state()
    theirs.set_state({**ours.get_state(), "rng": state["rng"]})
    playing = np.ones(64, bool)  # the episode that both have begun
    for action in actions_for(ours, span(ours.task)):
        turns = []
        for envs in (ours, theirs):
            obs, *turn, info = envs.step(action)
            turn.insert(0, info.get("final_obs", obs))
            turns.append(tree.map(host, tuple(turn)))
        (obs, reward, *ends), (after, their_reward, *their_ends) = turns
        np.testing.assert_allclose(reward[playing], their_reward[playing], rtol=1e-6)
        seen = [tree.map(lambda x: x[playing], leaves) for leaves in (obs, after)]  # noqa: B023
        if ours.task.horizon is None:  # sines, which are alike to rounding
            np.testing.assert_allclose(*seen, rtol=1e-5, atol=1e-6)
        else:
            assert same(*seen)
        assert same(*(x[0][playing] for x in (ends, their_ends)))
        playing &= ~ends[0]


@device
def test_actions_out_of_turn_or_space_are_refused(device):
    envs = batch(CATCH, device=device, autoreset_mode="Disabled", rows=2)
    with pytest.raises(UsageError, match=r"call reset\(\) first"):
        envs.step(np.ones(3, int))
    with pytest.raises(UsageError, match=r"call reset\(\) first"):
        envs.reset(options={"reset_mask": np.ones(3, bool)})
    envs.reset(seed=0)
    state = envs.get_state()
    for wrong in ([1, 1, 3], [1, 1, -1]):
        with pytest.raises(
            UsageError, match=rf"action {wrong[2]} in environment 2: expected 0 to 2"
        ):
            envs.step(wrong)
    for wrong in ([1.0, 1.0, 1.0], [1, 1], [True] * 3, ["a"] * 3, [[1, 1, 1]]):
        with pytest.raises(UsageError, match=r"actions: expected int \[3\]"):
            envs.step(wrong)
    assert same(envs.get_state(), state)
    envs.step(np.array([1, 1, 1], np.uint8))
    with pytest.raises(UsageError, match="an episode is over"):
        envs.step([1, 1, 1])


class Echo:
    """A task of a user's with actions of any space, which are paid by their sum; it tells none."""

    observation_space, horizon = gym.spaces.Discrete(1), 1

    def __init__(self, action_space):
        self.action_space = action_space

    def begin(self, draws, n):
        return {}

    def observe(self, xp, episodes):
        return 0 * episodes["time"]

    def advance(self, xp, episodes, action):
        paid = xp.asarray(action, dtype=xp.float32).reshape(len(action), -1).sum(1)
        return {"action": action}, paid, episodes["time"] == 1


EVERY = [
    (gym.spaces.Discrete(3, start=5), [5, 7], [5, 8], "action 8 in environment 1: expected 5 to 7"),
    (gym.spaces.MultiDiscrete([2, 3]), [[1, 2], [0, 1]], [[1, 2], [2, 0]], r"action \[2, 0\] in"),
    (
        gym.spaces.MultiBinary(2),
        [[True, True], [False, True]],
        [[0, 1], [0, 2]],
        r"\[0, 2\] in env",
    ),
    (gym.spaces.Box(-1, 1, (2,)), [[0.5, 1], [-1, 0]], [[0, 0.5], [0, 2.0]], r"expected Box\(-1"),
    (gym.spaces.Box(-1, 1, (2,)), [[0.5, 1], [-1, 0]], [[0, 0.5], [0, np.nan]], r"\[0.0, nan\] in"),
]


@pytest.mark.parametrize(("space", "good", "bad", "said"), EVERY)
@device
def test_actions_of_every_space(space, good, bad, said, device):
    envs = BatchedEnv(Echo(space), 2, device=device)
    envs.reset(seed=0)
    assert envs.single_action_space == space
    paid = host(envs.step(np.array(good))[1])
    assert paid.tolist() == np.sum(good, axis=tuple(range(1, np.ndim(good)))).tolist()
    with pytest.raises(UsageError, match=said):
        envs.step(np.array(bad))
    with pytest.raises(UsageError, match="actions: expected"):
        envs.step(np.array(["left", "right"]))
    with pytest.raises(UsageError, match="Echo tells no right answers; give the task a method"):
        envs.answer()


@device
def test_actions_beyond_a_box_are_clipped_on_their_way(device):
    """By the adapter, as those of single environments are: a policy's have no bounds."""
    envs = adapt(BatchedEnv(Echo(gym.spaces.Box(-1, 1, (2,))), 2, device=device))
    envs.reset(np.random.SeedSequence(0))
    action = np.array([[7, 0.5], [-7, -0.5]], np.float32)
    paid = envs.step(action if device is None else torch.from_numpy(action)).reward
    assert host(paid).tolist() == [1.5, -1.5]


@device
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_clipped_actions_are_of_the_boxs_own_type(device, dtype):
    space = gym.spaces.Box(-0.1, 0.1, (2,), dtype)
    action = np.array([[7, 0.05]], np.float32)
    clipped = host(clipper(space)(action if device is None else torch.from_numpy(action)))
    assert clipped.dtype == dtype and space.contains(clipped[0])


def test_single_refuses_to_go_on_after_the_end():
    one = gym.make(CATCH, rows=2).unwrapped
    one.reset(seed=0)
    assert one.step(1)[2] is True
    with pytest.raises(UsageError, match="an episode is over"):
        one.step(1)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        (CATCH, {"rows": 1}, "rows 1: expected a whole number of at least 2"),
        (CATCH, {"columns": 2.5}, "columns 2.5: expected a whole number of at least 2"),
        (TMAZE, {"length": 0}, "length 0: expected a whole number of at least 1"),
        (TMAZE, {"active": 1}, "active 1: expected True or False"),
        (TMAZE, {"lenght": 3}, "has no option 'lenght', it has .* Did you mean \"length\""),
        (FIRST, {"decks": -1}, "decks -1: expected a whole number of at least 1"),
        (PREVIOUS, {"lag": 51}, "lag 51: expected fewer than the 51 cards"),
    ],
)
def test_wrong_options_are_refused(env_id, options, message):
    for made in (gym.make, gym.make_vec):
        with pytest.raises(UsageError, match=message):
            made(env_id, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "num_envs 0: expected a whole number of at least 1"),
        ({"max_episode_steps": 0}, "max_episode_steps 0: expected"),
        ({"autoreset_mode": "NextSteps"}, 'Did you mean "NextStep"'),
        ({"device": "gpu"}, "device 'gpu': expected None for NumPy, or one of cpu"),
        ({"device": "meta"}, "device 'meta': expected None for NumPy, or one of cpu"),
    ],
)
def test_wrong_batches_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        gym.make_vec(CATCH, **options)


# --- registration


def test_every_task_is_a_case():
    assert {env_id for env_id, _ in CASES} == TASKS.keys()


def test_registered_once_and_with_a_time_limit_where_nothing_else_ends():
    register_all()  # again: no warning that something is overridden
    for env_id in TASKS:
        endless = task(env_id).horizon is None
        assert (gym.spec(env_id).max_episode_steps is not None) is endless
        assert isinstance(gym.make(env_id), gym.wrappers.TimeLimit) is endless
        assert batch(env_id).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        obs, _ = gym.make_vec(env_id, 2, "sync").reset(seed=0)
        assert all(len(leaf) == 2 for leaf in tree.leaves(obs))


@pytest.mark.parametrize("processes", [False, True])
def test_rules_that_end_every_episode_are_a_limit(processes):
    how = "async" if processes else "auto"
    for options, steps in (({}, 9), ({"rows": 4}, 3)):
        for n in (1, 2):
            envs = make(CATCH, n, vectorization=how, **options)
            assert (horizon(envs), time_limit(envs), may_never_end(envs)) == (steps, None, False)
            envs.close()
    assert horizon(make("CartPole-v1")) is None
    own = adapt(SingleEnv(task(TMAZE)))  # of a user's, without an id
    assert horizon(own) == 11 and not may_never_end(own)


def test_a_limit_cuts_single_and_batch_alike():
    for limit, over, cut in ((3, False, True), (9, True, True), (10, True, False)):
        one, many = gym.make(CATCH, max_episode_steps=limit), batch(CATCH, max_episode_steps=limit)
        one.reset(seed=0)
        many.reset(seed=0)
        for _ in range(min(limit, 9)):
            *_, terminated, truncated, _ = one.step(1)
            *_, terminations, truncations, _ = many.step([1, 1, 1])
        assert (terminated, truncated) == (over, cut)
        assert terminations.tolist() == [over] * 3 and truncations.tolist() == [cut] * 3


def test_importing_needs_no_torch():
    program = (
        "import sys, seqrl.envs.registry as r, gymnasium as g; r.register_all();"
        f"g.make_vec({CATCH!r}, 2).reset(seed=0); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- draws


@device
def test_draws_are_fair(device):
    draws = Draws() if device is None else TorchDraws(device)
    draws.seed(np.random.default_rng(0))
    n = 60_000
    orders = host(draws.permutations(3, n)) @ [9, 3, 1]
    _, counts = np.unique(orders, return_counts=True)
    assert len(counts) == 6 and abs(counts - n / 6).max() < 4 * (n * 5 / 36) ** 0.5
    counts = np.bincount(host(draws.integers(5, n)))
    assert len(counts) == 5 and abs(counts - n / 5).max() < 4 * (n * 4 / 25) ** 0.5


# --- the rules, by hand


def test_catch_frame_by_frame():
    envs = batch(CATCH, 2, rows=4, columns=3, autoreset_mode="Disabled")
    envs.reset(seed=0)
    place(envs, ball=[0, 2])
    seen = [envs.reset(options={"reset_mask": np.zeros(2, bool)})[0]]
    told = []
    for action in ([0, 0], [0, 1], [1, 1]):  # left and into the wall; left and wait
        obs, *turn, _ = envs.step(action)
        seen.append(obs)
        told.append([x.tolist() for x in turn])
    frames = np.array(seen)[..., 0] // 255  # [T, N, rows, columns]
    assert np.array(seen).dtype == np.uint8 and frames.max() == 1
    assert frames[0, 0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert frames[1, 0].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert frames[2, 0].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert frames[3].tolist() == [
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]],  # caught: one pixel
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]],
    ]
    nothing = [[0.0, 0.0], [False, False], [False, False]]
    assert told == [nothing, nothing, [[1.0, -1.0], [True, True], [False, False]]]


RIGHT, UP, LEFT, DOWN = range(4)


def walk(actions, goal, **options):
    """Observations, rewards and ends of one TMaze episode with a given goal."""
    envs = batch(TMAZE, 1, autoreset_mode="Disabled", **options)
    envs.reset(seed=0)
    place(envs, goal=[goal], cue=[goal])
    out = [(envs.reset(options={"reset_mask": [False]})[0][0].tolist(), None, None)]
    for action in actions:
        obs, reward, terminated, _, _ = envs.step([action])
        out.append((obs[0].tolist(), float(reward[0]), bool(terminated[0])))
    return list(zip(*out, strict=True))


def test_tmaze_passive_step_by_step():
    obs, rewards, over = walk([RIGHT, RIGHT, DOWN], -1, length=2)
    assert obs == ([0, -1], [0, 0], [1, 0], [1, -1])
    assert rewards[1:] == (0, 0, 1) and over[1:] == (False, False, True)
    obs, rewards, _ = walk([RIGHT, RIGHT, UP], -1, length=2)
    assert obs[3] == [1, 1] and rewards[1:] == (0, 0, 0)
    # up is a wall and costs 1/2; so does being a step behind; the junction comes too late to turn
    obs, rewards, _ = walk([UP, RIGHT, RIGHT], 1, length=2)
    assert obs == ([0, 1], [0, 0], [0, 0], [1, 0]) and rewards[1:] == (-0.5, -0.5, 0)
    obs, rewards, _ = walk([RIGHT, LEFT, LEFT], 1, length=2)  # the oracle speaks once
    assert obs == ([0, 1], [0, 0], [0, 0], [0, 0]) and rewards[1:] == (0, -0.5, 0)


def test_tmaze_active_step_by_step():
    obs, rewards, over = walk([LEFT, RIGHT, RIGHT, RIGHT, UP], 1, length=2, active=True)
    assert obs == ([0, 0], [0, 1], [0, 0], [0, 0], [1, 0], [1, 1])
    assert rewards[1:] == (0, 0, 0, 0, 1) and over[-2:] == (False, True)
    obs, rewards, _ = walk([RIGHT, RIGHT, DOWN, RIGHT, UP], -1, length=2, active=True)
    assert obs == ([0, 0], [0, 0], [1, 0], [1, -1], [1, -1], [1, 0])
    assert rewards[1:] == (0, 0, 0, 0, 0)  # left the right arm in the last step
    _, rewards, _ = walk([LEFT] * 5, 1, length=2, active=True)
    assert rewards[1:] == (0, -0.5, -0.5, -0.5, 0)


def test_repeat_first_card_by_card():
    envs = batch(FIRST, 2)
    envs.reset(seed=0)
    decks = envs.get_state()["episodes"]["deck"]
    assert (np.sort(decks, 1) == np.arange(52) // 13).all()
    decks = np.stack([np.arange(52) % 4, np.arange(52) // 13])
    place(envs, deck=decks.astype(np.uint8))
    for t in range(51):
        obs, reward, terminated, _, info = envs.step([0, t % 4])
        assert reward.tolist() == [np.float32(1 / 51), np.float32((1 if t % 4 == 0 else -1) / 51)]
        seen = info["final_obs"] if t == 50 else obs
        assert seen.tolist() == [(t + 1) % 4, (t + 1) // 13] and terminated.all() == (t == 50)


def test_repeat_previous_card_by_card():
    envs = batch(PREVIOUS, 2, lag=2)
    envs.reset(seed=0)
    decks = np.stack([np.arange(52) % 4, np.arange(52) // 13])
    place(envs, deck=decks.astype(np.uint8))
    for t in range(51):
        obs, reward, terminated, _, info = envs.step([(t + 2) % 4, 0])  # t - 2 in the first
        right = np.array([1, 1 if t - 2 < 13 else -1])
        expected = right * (t >= 2) / np.float32(49)
        np.testing.assert_allclose(reward, expected, rtol=1e-6)
        seen = info["final_obs"] if t == 50 else obs
        assert seen.tolist() == [(t + 1) % 4, (t + 1) // 13] and terminated.all() == (t == 50)


# --- scores


def catch_policy(obs, memory):
    ball, paddle = obs[:, :-1, :, 0].any(1).argmax(1), obs[:, -1, :, 0].argmax(1)
    return 1 + np.sign(ball - paddle), memory


def first_policy(obs, memory):
    memory = obs if memory is None else memory
    return memory, memory


def test_tmaze_tells_the_way_from_anywhere():
    # length 2, active: oracle 0, start 1, junction 3; the goal is up
    envs = batch(TMAZE, 6, length=2, active=True, autoreset_mode="Disabled")
    envs.reset(seed=0)
    x, y, cue, time = (
        [1, 0, 1, 1, 3, 3],
        [0, 0, 0, 0, -1, 0],
        [1, 1, 1, 0, 0, 1],
        [0, 1, 2, 2, 4, 4],
    )
    place(envs, goal=[1] * 6, x=x, y=y, cue=cue, time=time)
    answer, known = envs.answer()
    # to the oracle; there; too late for it; told; in the wrong arm; untold at the junction
    assert answer[:5].tolist() == [LEFT, RIGHT, RIGHT, RIGHT, UP]
    assert known.tolist() == [True] * 5 + [False]


def test_repeat_previous_tells_from_the_first_card_that_is_asked_for():
    envs = batch(PREVIOUS, 1)
    seen, told = [envs.reset(seed=0)[0][0]], [envs.answer()]
    for _ in range(50):
        seen.append(envs.step([0])[0][0])
        told.append(envs.answer())
    assert [bool(known[0]) for _, known in told] == [False] * 3 + [True] * 48
    assert [int(answer[0]) for answer, _ in told[3:]] == seen[:-3]


def tmaze_policy(obs, memory):
    junction, cue = obs.T
    memory = cue if memory is None else np.where(memory == 0, cue, memory)
    along = np.where(memory == 0, LEFT, RIGHT)
    return np.where(junction == 1, np.where(memory > 0, UP, DOWN), along), memory


def previous_policy(obs, memory):
    memory = (*(memory or ()), obs)
    return memory[-4 if len(memory) > 3 else 0], memory


OPTIMAL = {
    CATCH: catch_policy,
    FIRST: first_policy,
    TMAZE: tmaze_policy,
    PREVIOUS: previous_policy,
}


@pytest.mark.parametrize(
    ("env_id", "options"), [*GAMES, (TMAZE, {"length": 50}), (CATCH, {"columns": 19})]
)
@device
def test_the_optimum_is_reached(env_id, options, device):
    envs = batch(env_id, 256, device=device, **options)
    obs, memory, total = envs.reset(seed=0)[0], None, 0.0
    for _ in range(envs.task.horizon):
        action, memory = OPTIMAL[env_id](host(obs), memory)
        obs, reward, terminated, _, _ = envs.step(action)
        total = total + host(reward).astype(np.float64)
    assert host(terminated).all()
    assert total == pytest.approx(np.full(256, envs.task.scores()["optimum"]), abs=1e-6)


def test_the_optimum_of_catch_counts_columns_out_of_reach():
    # Three steps from column 3 of 8 columns 0-7: starts at 4, reaches 1-7, loses 0.
    assert task(CATCH, rows=4, columns=8).scores()["optimum"] == pytest.approx(7 / 8 - 1 / 8)
    envs = batch(CATCH, 8, rows=4, columns=8)
    envs.reset(seed=0)
    place(envs, ball=np.arange(8))
    best = np.sign(np.arange(8) - 4) + 1
    total, paddle = np.zeros(8), np.full(8, 4)
    for _ in range(3):
        action = np.where(paddle == np.arange(8), 1, best)
        paddle = paddle + action - 1
        total += envs.step(action)[1]
    assert total.tolist() == [-1, 1, 1, 1, 1, 1, 1, 1]


def test_catch_random_by_enumeration():
    plays = sequences(3, 3)  # [3, 27]
    envs = batch(CATCH, 5 * 27, rows=4)
    envs.reset(seed=0)
    place(envs, ball=np.repeat(np.arange(5), 27))
    mean = returns(envs, np.tile(plays, 5)).mean()
    assert mean == pytest.approx(task(CATCH, rows=4).scores()["random"])
    assert task(CATCH).scores() == {"optimum": 1, "memoryless": 1, "random": pytest.approx(-0.6)}


@pytest.mark.parametrize(
    ("length", "active"), [(1, False), (2, False), (4, False), (1, True), (2, True)]
)
def test_tmaze_random_by_enumeration(length, active):
    rules = task(TMAZE, length=length, active=active)
    plays = sequences(4, rules.horizon)
    envs = batch(TMAZE, 2 * plays.shape[1], length=length, active=active)
    envs.reset(seed=0)
    goal = np.repeat([1, -1], plays.shape[1])
    place(envs, goal=goal, cue=goal)
    mean = returns(envs, np.tile(plays, 2)).mean()
    assert rules.scores()["random"] == pytest.approx(mean, abs=1e-7)


def test_tmaze_random_in_closed_form():
    # Passive: in time after t steps with chance 4^-t, else 1/L is due; then one action in four.
    for length in (1, 10, 50):
        expected = -1 + (1 - 4.0**-length) / (3 * length) + 4.0 ** -(length + 1)
        assert task(TMAZE, length=length).scores()["random"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("active", [False, True])
def test_tmaze_memoryless_by_trying_every_reactive_policy(active):
    policies = sequences(4, 6)  # an action for each thing that can be seen [6, 4096]
    count = policies.shape[1]
    envs = batch(TMAZE, 2 * count, length=2, active=active)
    envs.reset(seed=0)
    goal, rows = np.repeat([1, -1], count), np.arange(2 * count) % count
    place(envs, goal=goal, cue=goal)
    obs, _ = envs.reset(options={"reset_mask": np.zeros(2 * count, bool)})
    total = 0.0
    for _ in range(envs.task.horizon):
        seen = (3 * obs[:, 0] + obs[:, 1] + 1).astype(int)
        obs, reward, _, _, _ = envs.step(policies[seen, rows])
        total = total + reward
    assert total.reshape(2, count).mean(0).max() == envs.task.scores()["memoryless"] == 0.5


@pytest.mark.parametrize("decks", [1, 2])
def test_repeat_first_memoryless_by_trying_every_reactive_policy(decks):
    cards, suit = 52 * decks, 13 * decks
    # P(first = a, later = b): 1/4 * (cards of suit b left) / (cards - 1)
    joint = (np.full((4, 4), suit) - np.eye(4)) / 4 / (cards - 1)
    best = -1.0
    for policy in itertools.product(range(4), repeat=4):
        right = sum(policy[s] == s for s in range(4)) / 4
        right += (cards - 2) * sum(joint[policy[s], s] for s in range(4))
        best = max(best, 2 * right / (cards - 1) - 1)
    assert task(FIRST, decks=decks).scores()["memoryless"] == pytest.approx(best, abs=1e-12)
    assert decks > 1 or best == pytest.approx(-0.4994, abs=5e-5)


def test_repeat_previous_without_memory():
    """Any suit but the one just seen; naming that one is worse."""
    n = 4_000
    found = []
    for shift in (1, 0):
        envs = batch(PREVIOUS, n)
        obs, total = envs.reset(seed=0)[0], np.zeros(n)
        for _ in range(51):
            obs, reward, _, _, _ = envs.step((obs + shift) % 4)
            total += reward
        found.append((total.mean(), total.std() / n**0.5))
    (best, error), (echo, _) = found
    assert error < 0.003 and abs(best - envs.task.scores()["memoryless"]) < 4 * error
    assert echo < best


@device
def test_repeat_first_echo_and_random(device):
    n = 4_000
    envs = batch(FIRST, n, device=device)
    obs, total = envs.reset(seed=0)[0], np.zeros(n)
    for _ in range(51):
        obs, reward, _, _, _ = envs.step(obs)
        total += host(reward)
    error = total.std() / n**0.5
    assert error < 0.003 and abs(total.mean() - envs.task.scores()["memoryless"]) < 4 * error
    # Of the four constant policies one is right at every step: 1/4 - 3/4.
    place(envs, deck=envs.get_state()["episodes"]["deck"].repeat(4, 0)[:n])
    assert returns(envs, np.tile(np.arange(4), (51, n // 4))).mean() == pytest.approx(
        -0.5, abs=1e-6
    )


def test_reference_scores_know_options_and_limits():
    assert reference_scores(CATCH)["random"] == pytest.approx(-0.6)
    assert reference_scores(CATCH, columns=2, num_envs=7)["random"] == 0
    made = gym.make_vec(TMAZE, num_envs=2, length=4, device="cpu").unwrapped.spec
    assert reference_scores(made) == task(TMAZE, length=4).scores()
    assert reference_scores(TMAZE, max_episode_steps=10) is None
    assert reference_scores(TMAZE, max_episode_steps=11)["optimum"] == 1
    assert reference_scores(gym.make(CATCH, max_episode_steps=8).spec) is None
    assert reference_scores("CartPole-v1")["optimum"] == 500
    assert reference_scores("CartPole-v1", max_episode_steps=100) is None
    assert reference_scores("CartPole-v1", sutton_barto_reward=True) is None
    assert reference_scores("FrozenLake-v1") is None
    with pytest.raises(UsageError, match="has no option 'rwos'"):
        reference_scores(CATCH, rwos=3)


def test_reference_score_of_random_cartpole():
    envs = gym.make_vec("CartPole-v1", num_envs=1000)
    envs.reset(seed=0)
    rng, alive, total = np.random.default_rng(0), np.ones(1000, bool), np.zeros(1000)
    while alive.any():
        _, reward, terminated, truncated, _ = envs.step(rng.integers(2, size=1000))
        total += reward * alive
        alive &= ~(terminated | truncated)
    assert abs(total.mean() - reference_scores("CartPole-v1")["random"]) < 4 * 12 / 1000**0.5
