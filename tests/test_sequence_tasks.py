"""Rules, bounds and bad input of the sequence tasks, by hand and by trying every policy."""

import itertools
import math
import re
from dataclasses import fields
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from seqrl.core import UsageError
from seqrl.envs import reference_scores
from seqrl.envs.registry import TASKS, register_all, task
from seqrl.scripts.values import literal

register_all()

ADDITION, ADDING, COPY = (f"seqrl/{name}-v0" for name in ("BinaryAddition", "Adding", "CopyMemory"))
WAVES, NEXT, GATES, SAMPLES = (
    f"seqrl/{name}-v0" for name in ("Waves", "NextToken", "Gates", "Samples")
)
device = pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])


def batch(env_id, n, seed=0, **options):
    envs = gym.make_vec(env_id, num_envs=n, **options)
    return envs, envs.reset(seed=seed)[0]


def place(envs, **episodes):
    """Put the batch into positions of our choosing; return what is seen there."""
    state = envs.get_state()
    state["episodes"].update({name: np.array(rows) for name, rows in episodes.items()})
    envs.set_state(state)
    return envs.reset(options={"reset_mask": np.zeros(envs.num_envs, bool)})[0]


def returns(envs, obs, policy):
    """Returns [N] of policy(obs, step)."""
    total = np.zeros(envs.num_envs)
    for t in range(envs.task.horizon):
        obs, reward, *_ = envs.step(policy(obs, t))
        total += np.asarray(reward, np.float64)
    return total


def close(found, expected, errors=4):
    """The mean of returns is the expected one, up to so many standard errors."""
    return abs(found.mean() - expected) < errors * found.std() / len(found) ** 0.5 + 1e-7


def random_returns(env_id, n=20_000, **options):
    envs, obs = batch(env_id, n, **options)
    envs.action_space.seed(1)  # that of the environments would go hand in hand with them
    return returns(envs, obs, lambda obs, t: envs.action_space.sample())


RANDOM = [
    (ADDITION, {"bits": 2}),
    (ADDING, {"length": 3}),
    (COPY, {"blanks": 2, "items": 2, "symbols": 2}),
    (WAVES, {"watch": 2, "judged": 5}),
    (WAVES, {"watch": 8, "judged": 5, "regimes": 2, "free": False, "noise": 0.5}),
    (NEXT, {"length": 4}),
    (GATES, {"gate": "or"}),
    ("seqrl/Trees-v0", {"depth": 2}),
    ("seqrl/Facts-v0", {"places": 3}),
    (SAMPLES, {}),
    (SAMPLES, {"answer": "observation"}),
    (SAMPLES, {"set": "line", "noise": 3.0, "part": "test"}),
]
NAMES = [" ".join([i[6:-3], *(f"{k}={v}" for k, v in options.items())]) for i, options in RANDOM]


@pytest.mark.parametrize(("env_id", "options"), RANDOM, ids=NAMES)
def test_the_random_score_is_that_of_random_actions(env_id, options):
    expected = reference_scores(env_id, **options)["random"]
    assert close(random_returns(env_id, **options), expected)


def test_the_page_of_tasks_has_the_scores():
    page = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert {f"seqrl/{row[0]}-v0" for row in rows} == TASKS.keys()
    for name, told, *scores in rows:
        pairs = [pair.split("=") for pair in re.findall(r"`(.*?)`", told)]
        options = {key: literal(value) for key, value in pairs}
        found = reference_scores(f"seqrl/{name}-v0", **options)
        scores_of = (found.get(key) for key in ("optimum", "memoryless", "random"))
        expected = ["?" if score is None else f"{score:.4g}" for score in scores_of]
        assert scores == expected, name
        if "set" in options:
            continue
        known = {field.name: field.default for field in fields(TASKS[f"seqrl/{name}-v0"])}
        assert options == {"free": False} or options.items() <= known.items()  # the defaults


# --- binary addition


def test_all_16384_sums_are_answered():
    envs, _ = batch(ADDITION, 128 * 128)
    first, second = np.divmod(np.arange(128 * 128), 128)
    obs = place(envs, first=first, second=second)
    total, said, seen = np.zeros(len(obs)), 0, 0
    for bit in range(8):
        answer, known = envs.answer()
        assert known.all()
        said, seen = said + (answer << bit), seen + (obs.astype(int) << bit)
        obs, reward, *_ = envs.step(answer)
        total += reward
        assert bit == 7 or not reward.any()
    assert (said == first + second).all() and (seen == np.stack([first, second], 1)).all()
    assert (total == 1).all()
    wrong = returns(envs, envs.reset()[0], lambda obs, t: envs.answer()[0] ^ (t == 3))
    assert not wrong.any()  # one bit spoils it


@pytest.mark.parametrize("bits", [2, 4])
def test_addition_without_a_carry_by_trying_every_chance(bits):
    """A chance to say 1 for each pair of bits, in steps of 1/8: stochastic policies too."""
    chances = np.array(list(itertools.product(np.linspace(0, 1, 9), repeat=4)))  # [6561, 4]
    pairs = np.array(list(itertools.product(range(2 ** (bits - 1)), repeat=2)))
    found = 0
    for first, second in pairs:
        right = np.ones(len(chances))
        for bit in range(bits):
            seen = 2 * (first >> bit & 1) + (second >> bit & 1)
            one = (first + second) >> bit & 1
            right *= chances[:, seen] if one else 1 - chances[:, seen]
        found = found + right / len(pairs)
    scores = task(ADDITION, bits=bits).scores()
    assert found.max() == pytest.approx(scores["memoryless"]) == 0.75 ** (bits - 1)
    assert task(ADDITION).scores()["memoryless"] == pytest.approx(0.1335, abs=5e-5)


# --- gates


@pytest.mark.parametrize(
    ("gate", "table"), [("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1]), ("xor", [0, 1, 1, 0])]
)
@device
def test_gates_by_their_tables(gate, table, device):
    envs, _ = batch(GATES, 4, gate=gate, device=device, autoreset_mode="Disabled")
    place(envs, bits=np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int8))
    assert envs.answer()[0].tolist() == table
    assert envs.step(envs.answer()[0])[1].tolist() == [1, 1, 1, 1]


# --- adding


def test_adding_number_by_number():
    envs, _ = batch(ADDING, 1, length=4, autoreset_mode="Disabled")
    numbers = np.float32([[0.5, 0.25, 0.75, 0.125]])
    marks = [[False, True, True, False]]
    seen = [place(envs, numbers=numbers, marks=marks, total=np.float32([1.0]))[0].tolist()]
    told = [envs.answer()]
    for t in range(4):
        obs, reward, over, _, _ = envs.step(np.float32([[0.5]]))
        assert reward[0] == (-0.25 if t == 3 else 0) and over[0] == (t == 3)
        seen.append(obs[0].tolist())
        told.append(envs.answer())
    assert seen[:4] == [[0.5, 0], [0.25, 1], [0.75, 1], [0.125, 0]]
    assert [bool(known[0]) for _, known in told] == [False, False, False, True, False]
    assert [answer[0].tolist() for answer, _ in told] == [[0], [0], [0], [1], [0]]


@device
def test_a_number_in_each_half_is_marked(device):
    envs, _ = batch(ADDING, 500, length=5, device=device)
    state = envs.get_state()["episodes"]
    first, second = state["marks"][:, :2], state["marks"][:, 2:]
    assert (first.sum(1) == 1).all() and (second.sum(1) == 1).all()
    assert first.any(0).all() and second.any(0).all()
    marked = np.where(state["marks"], state["numbers"], 0).sum(1)
    np.testing.assert_allclose(state["total"], marked, rtol=1e-6)


@pytest.mark.parametrize("length", [2, 5, 100])
def test_adding_without_memory(length):
    """The own number where it is marked, and the mean of what is not known."""
    envs, obs = batch(ADDING, 20_000, length=length)

    def policy(obs, t):
        return np.where(obs[:, 1:] == 1, obs[:, :1] + 0.5, np.float32(1))

    assert close(returns(envs, obs, policy), envs.task.scores()["memoryless"])
    assert abs(task(ADDING, length=10**6).scores()["memoryless"] + 1 / 6) < 1e-6


# --- copying


def test_copying_symbol_by_symbol():
    envs, _ = batch(COPY, 1, blanks=3, items=2, symbols=4, autoreset_mode="Disabled")
    obs, seen, said, paid = place(envs, word=[[3, 1]]), [], [], []
    for _ in range(7):
        answer, known = envs.answer()
        assert known.all()
        seen, said = [*seen, int(obs[0])], [*said, int(answer[0])]
        obs, reward, *_ = envs.step(answer)
        paid.append(float(reward[0]))
    assert seen == [3, 1, 4, 4, 5, 4, 4]  # blank 4, signal 5
    assert said == [4, 4, 4, 4, 4, 3, 1] and paid == [0, 0, 0, 0, 0, 0.5, 0.5]
    assert task(COPY).horizon == 70


def test_copying_without_memory_by_trying_every_reactive_policy():
    words = np.array(list(itertools.product(range(2), repeat=2)))
    best = 0.0
    envs, _ = batch(COPY, 4, blanks=2, items=2, symbols=2)
    for policy in itertools.product(range(3), repeat=4):
        obs = place(envs, word=words, time=[0] * 4)
        found = returns(envs, obs, lambda obs, t, policy=policy: np.array(policy)[obs])
        best = max(best, found.mean())
    assert best == envs.task.scores()["memoryless"] == 0.5


# --- waves


@device
@pytest.mark.parametrize("free", [True, False])
def test_two_values_fix_a_wave(device, free):
    """x_t+1 = 2 cos(w) x_t - x_t-1, also where it goes on with its own words."""
    envs, obs = batch(WAVES, 64, period=20.0, watch=10, judged=40, free=free, device=device)
    seen = [obs]

    def policy(obs, t):
        seen.append(obs)
        return (2 * math.cos(2 * math.pi / 20) * obs - seen[-2]).clip(-1, 1)

    found = returns(envs, obs, policy)
    assert envs.task.scores()["optimum"] == 0 and abs(found).max() < 1e-6
    assert np.mean([np.square(x).mean() for x in map(np.asarray, seen)]) == pytest.approx(
        0.5, abs=0.01
    )


def test_waves_that_run_free_show_what_was_said():
    envs, obs = batch(WAVES, 2, watch=2, judged=3, period=8.0, autoreset_mode="Disabled")
    wave = envs.get_state()["episodes"]["wave"]
    seen, paid = [obs[:, 0]], []
    for t in range(5):
        obs, reward, *_ = envs.step(np.full((2, 1), t / 10, np.float32))
        seen.append(obs[:, 0])
        paid.append(reward)
    np.testing.assert_array_equal(np.stack(seen[:3], 1), wave[:, :3])
    np.testing.assert_allclose(np.stack(seen[3:]), np.full((3, 2), [[0.2], [0.3], [0.4]]))
    assert not np.any(paid[:2])
    expected = -((np.arange(2, 5) / 10 - wave[:, 3:]) ** 2) / 3
    np.testing.assert_allclose(np.stack(paid[2:], 1), expected, rtol=1e-5)


def test_a_change_of_the_period_is_in_the_middle_of_what_is_watched():
    envs, _ = batch(WAVES, 400, watch=20, judged=20, period=40.0, regimes=2)
    wave = envs.get_state()["episodes"]["wave"].astype(np.float64)
    cosine = (wave[:, 2:] + wave[:, :-2]) / (2 * wave[:, 1:-1])
    steps = [2 * math.pi / 40, 8 * math.pi / 40]
    short = abs(cosine - math.cos(steps[1])) < 1e-3  # [N, t - 1] between steps t - 1 and t + 1
    long = abs(cosine - math.cos(steps[0])) < 1e-3
    clear = abs(wave[:, 1:-1]) > 0.1
    for part in (slice(0, 4), slice(16, None)):  # no change before 5 nor behind 15
        one = (short | ~clear)[:, part].all(1), (long | ~clear)[:, part].all(1)
        assert (one[0] ^ one[1]).all() and 0.4 < one[0].mean() < 0.6
    first, last = (short | ~clear)[:, :4].all(1), (short | ~clear)[:, 16:].all(1)
    assert (first != last).all()


@pytest.mark.parametrize("options", [{}, {"noise": 0.5}, {"regimes": 2, "noise": 0.3}])
def test_waves_without_memory(options):
    """No function of the value that is seen does better than the mean in narrow bins of it."""
    envs, obs = batch(WAVES, 20_000, watch=8, judged=1, period=16.0, free=False, **options)
    for _ in range(8):
        obs, *_ = envs.step(np.zeros((20_000, 1), np.float32))
    value, target = obs[:, 0], envs.answer()[0][:, 0].astype(np.float64)
    order = np.argsort(value)
    bins = target[order].reshape(200, 100)
    error = bins.var(1, ddof=1).mean()  # within a bin
    assert error == pytest.approx(-envs.task.scores()["memoryless"], rel=0.04)


def test_the_optimum_under_noise_is_that_of_the_posterior():
    options = {"watch": 40, "judged": 40, "period": 20.0, "noise": 0.3}
    envs, _ = batch(WAVES, 1_000, **options)
    state = envs.get_state()["episodes"]
    phases = 2 * np.pi * np.arange(2048)[:, None] / 2048
    waves = np.sin(2 * np.pi * np.arange(81) / 20 + phases)
    for free in (True, False):
        errors = []
        for t in (40, 60, 79):
            last = 40 if free else t
            seen = state["seen"][:, : last + 1].astype(np.float64)
            likely = seen @ waves[:, : last + 1].T - (waves[:, : last + 1] ** 2).sum(1) / 2
            weight = np.exp((likely - likely.max(1, keepdims=True)) / 0.3**2)
            expected = weight @ waves[:, t + 1] / weight.sum(1)
            errors.append(((expected - state["wave"][:, t + 1]) ** 2).mean())
        optimum = task(WAVES, free=free, **options).scores()["optimum"]
        assert np.mean(errors) == pytest.approx(-optimum, rel=0.15)


# --- next token


def test_the_chain_is_the_reports():
    entropies = task(NEXT).entropies()
    assert entropies["rate"] == pytest.approx(1.2465, abs=5e-5)
    assert entropies["memoryless"] == pytest.approx(1.938, abs=5e-4)
    assert entropies["random"] == pytest.approx(math.log(8))
    longer = task(NEXT, length=640).entropies()
    assert entropies["rate"] < longer["optimum"] < entropies["optimum"] < 1.01 * 1.2465


@device
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_chain_is_drawn_by_its_probabilities(device, order):
    """Scores and entropies are those of the tokens drawn; the first ones are stationary."""
    envs, _ = batch(NEXT, 6_000, tokens=3, order=order, length=8, device=device)
    tokens = envs.get_state()["episodes"]["tokens"]
    joint = envs.task.joint
    for at in (0, 4, 8 - order):
        counts = np.zeros_like(joint)
        np.add.at(counts, tuple(tokens[:, at : at + order + 1].T), 1 / len(tokens))
        assert abs(counts - joint).max() < 4 * (joint.max() / len(tokens)) ** 0.5
    known = joint / joint.sum(-1, keepdims=True)
    picked = known[tuple(tokens[:, i : 9 - order + i] for i in range(order + 1))]
    assert close(-np.log(picked).mean(1), envs.task.entropies()["rate"])

    def best(obs, t):
        seen = min(t + 1, order)
        chances = joint.sum(tuple(range(order - seen)))
        return chances[tuple(tokens[:, t - seen + 1 + i] for i in range(seen))].argmax(-1)

    found = returns(envs, None, best)
    assert close(found, envs.task.scores()["optimum"])


def test_tokens_without_memory_by_trying_every_reactive_policy():
    rules = task(NEXT, tokens=3, length=4)
    pairs = rules.joint.sum(0)
    best = max(
        sum(pairs[i, a] for i, a in enumerate(p)) for p in itertools.product(range(3), repeat=3)
    )
    assert rules.scores()["memoryless"] == pytest.approx(best)


TEXT = "to be or not to be, that is the question: to be, to be\n"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "hamlet.txt"
    path.write_text(TEXT)
    return str(path)


@device
@pytest.mark.parametrize("unit", ["char", "word"])
def test_a_text_is_read_by_its_units(text, unit, device):
    envs, obs = batch(NEXT, 2_000, path=text, unit=unit, length=5, device=device)
    units = list(TEXT) if unit == "char" else TEXT.split()
    rules = envs.task
    assert rules.vocabulary == sorted(set(units))
    shown, told = [np.asarray(obs)], []
    for _ in range(5):
        told.append(np.asarray(envs.answer()[0]))
        obs, _, _, _, info = envs.step(envs.answer()[0])
        shown.append(np.asarray(info["final_obs"] if info else obs))
    shown = np.stack(shown, 1)
    assert (shown[:, 1:] == np.stack(told, 1)).all()
    written = {tuple(rules.vocabulary[i] for i in row) for row in shown}
    assert written == {tuple(units[i : i + 6]) for i in range(len(units) - 5)}  # every place


def test_a_text_without_memory_by_trying_every_policy_in_every_place(text):
    rules = task(NEXT, path=text, unit="word", length=5)
    windows = np.lib.stride_tricks.sliding_window_view(rules.text, 6)
    pairs = [(a, b) for row in windows for a, b in itertools.pairwise(row.tolist())]
    best = 0
    for a in {a for a, _ in pairs}:
        followers = [b for x, b in pairs if x == a]
        best += max(map(followers.count, followers))
    assert rules.scores() == {
        "memoryless": pytest.approx(best / len(pairs)),
        "random": 1 / len(rules.vocabulary),
    }
    assert 0 < rules.entropies()["memoryless"] < rules.entropies()["random"]


# --- samples


def test_the_irises_are_fishers():
    rows = task(SAMPLES).rows
    assert rows.labels == ["setosa", "versicolor", "virginica"]
    assert np.bincount(rows.value).tolist() == [50, 50, 50] and rows.shown.shape == (150, 4)
    # means as printed by Fisher; row 35 and 38 as he has them
    means = [
        [5.006, 3.428, 1.462, 0.246],
        [5.936, 2.770, 4.260, 1.326],
        [6.588, 2.974, 5.552, 2.026],
    ]
    for label, expected in enumerate(means):
        np.testing.assert_allclose(rows.shown[rows.value == label].mean(0), expected, atol=5e-4)
    np.testing.assert_array_equal(rows.shown[34], np.float32([4.9, 3.1, 1.5, 0.2]))
    np.testing.assert_array_equal(rows.shown[37], np.float32([4.9, 3.6, 1.4, 0.1]))


@device
def test_parts_are_disjoint_and_all_their_rows_are_drawn(device):
    whole = {tuple(row) for row in task(SAMPLES).data[0].tolist()}
    found = {}
    for part in ("train", "test"):
        envs, obs = batch(SAMPLES, 3_000, part=part, device=device)
        shown, value = envs.task.data
        answer, known = envs.answer()
        assert bool(known.all())
        rows = {(*row, label) for row, label in zip(obs.tolist(), answer.tolist(), strict=True)}
        assert rows == {
            (*row, label) for row, label in zip(shown.tolist(), value.tolist(), strict=True)
        }
        found[part] = len(shown), {row[:4] for row in rows}
    assert (found["train"][0], found["test"][0]) == (100, 50)
    assert found["train"][1] | found["test"][1] == whole
    other = task(SAMPLES, part="test", data_seed=1).data[0]
    assert not np.array_equal(other, task(SAMPLES, part="test").data[0])


@pytest.mark.parametrize(("name", "weights"), [("line", [2, 3]), ("curve", [0.2, 0.5, 30])])
def test_points_lie_on_their_curves(name, weights):
    """Closed-form least squares finds the weights, the better the less noise."""
    for noise in (0, 1):
        x, y = task(SAMPLES, set=name, noise=noise, size=3_000).data
        design = x.astype(np.float64) ** np.arange(len(weights))
        found, residual, _, _ = np.linalg.lstsq(design, y[:, 0].astype(np.float64), rcond=None)
        np.testing.assert_allclose(found, weights, atol=0.2 if noise else 1e-4)
        assert (residual[0] / 3_000) ** 0.5 == pytest.approx(noise, abs=0.05)


def test_digits_can_be_told_apart():
    """By the nearest of the rows to train on, all that are known: nearly always."""
    shown, label = task(SAMPLES, set="digits", part="train").data
    other, truth = task(SAMPLES, set="digits", part="test").data
    apart = (other**2).sum(1)[:, None] - 2 * other @ shown.T + (shown**2).sum(1)
    assert (label[apart.argmin(1)] == truth).mean() > 0.9
    assert shown.min() == 0 and shown.max() <= 1 and set(label) == set(range(10))


def test_the_row_itself_is_without_noise():
    rules = task(SAMPLES, set="digits", noise=0.2, answer="observation", size=100)
    clean = task(SAMPLES, set="digits", answer="observation", size=100).data[0]
    shown, value = rules.data
    np.testing.assert_array_equal(value, clean)
    assert 0.05 < abs(shown - clean).mean() < 0.2
    envs, _ = batch(SAMPLES, 8, set="digits", noise=0.2, answer="observation", size=100)
    assert envs.single_action_space.shape == (64,) and envs.answer()[0].shape == (8, 64)


def test_rows_that_look_alike_bound_the_optimum(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x,species\n1,a\n1,a\n1,b\n2,b\n")
    assert reference_scores(SAMPLES, path=str(path)) == {
        "optimum": 0.75,
        "memoryless": 0.75,
        "random": 0.5,
    }
    path.write_text("x,y\n1,0\n1,4\n2,1\n")
    # the mean 2 of the rows that look alike is off by 4 each; uniform numbers from [0, 4]
    scores = reference_scores(SAMPLES, path=str(path))
    assert scores["optimum"] == pytest.approx(-8 / 3)
    assert scores["random"] == pytest.approx(-(4 / 3 + (4 + 4 + 1) / 3))
    assert task(SAMPLES, path=str(path), answer="label").rows.labels == ["0", "1", "4"]
    assert task(SAMPLES, path=str(path), answer="observation").data[1].shape == (3, 2)


def test_arrays_of_a_user(tmp_path):
    path = tmp_path / "rows.npz"
    x = np.random.default_rng(0).integers(0, 255, (6, 3, 3, 1)).astype(np.uint8)
    np.savez(path, x=x, y=np.array([2, 5, 2, 5, 2, 2]))
    pictures = task(SAMPLES, path=str(path))
    assert pictures.observation_space.dtype == np.uint8
    assert pictures.rows.labels == ["2", "5"] and pictures.data[1].tolist() == [0, 1, 0, 1, 0, 0]
    again = task(SAMPLES, path=str(path), answer="observation")
    assert again.action_space.shape == (3, 3, 1) and again.data[1].dtype == np.float32
    np.savez(path, x=x.astype(float), y=np.zeros((6, 2)) + np.arange(2))
    assert task(SAMPLES, path=str(path)).action_space.shape == (2,)


def test_a_run_goes_on_with_the_same_file_only(text, tmp_path):
    envs, _ = batch(NEXT, 2, path=text, length=5)
    state = envs.get_state()
    (tmp_path / "hamlet.txt").write_text(TEXT.upper())
    with pytest.raises(UsageError, match="the saved environments play"):
        batch(NEXT, 2, path=text, length=5)[0].set_state(state)
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n1,0\n1,4\n2,1\n")
    state = batch(SAMPLES, 2, path=str(path))[0].get_state()
    path.write_text("x,y\n1,0\n1,4\n2,2\n")
    with pytest.raises(UsageError, match="the saved environments play"):
        batch(SAMPLES, 2, path=str(path))[0].set_state(state)


# --- bad input


@pytest.mark.parametrize(
    ("env_id", "options", "said"),
    [
        (ADDITION, {"bits": 1}, "bits 1: expected a whole number of at least 2"),
        (ADDITION, {"bits": 63}, "bits 63: expected at most 62"),
        (ADDING, {"length": 1}, "length 1: expected a whole number of at least 2"),
        (COPY, {"blanks": 0}, "blanks 0: expected a whole number of at least 1"),
        (COPY, {"symbols": 1}, "symbols 1: expected a whole number of at least 2"),
        (GATES, {"gate": "nand"}, "gate 'nand': expected one of and, or, xor"),
        (WAVES, {"period": 2}, "period 2: expected a number of at least 3"),
        (WAVES, {"period": "long"}, "period 'long': expected a number"),
        (WAVES, {"period": 8, "regimes": 2}, "period 8: expected a number of at least 12"),
        (WAVES, {"regimes": 3}, "regimes '3': expected one of 1, 2"),
        (WAVES, {"watch": 4, "regimes": 2}, "watch 4: expected a whole number of at least 8"),
        (WAVES, {"noise": -1}, "noise -1: expected a number of at least 0"),
        (WAVES, {"noise": math.nan}, "noise nan: expected a number"),
        (WAVES, {"free": 1}, "free 1: expected True or False"),
        (NEXT, {"tokens": 1}, "tokens 1: expected a whole number of at least 2"),
        (NEXT, {"tokens": 40}, "40 tokens in an order of 2: expected at most 1,024 contexts"),
        (NEXT, {"unit": "line"}, "unit 'line': expected one of char, word"),
        (NEXT, {"unit": "word"}, "unit 'word': a chain has no text; give a file"),
        (NEXT, {"path": "none.txt"}, "path 'none.txt': there is no such file"),
        (NEXT, {"path": 5}, "path 5: it cannot be read"),
        (NEXT, {"path": __file__, "order": 3}, "order is of a chain, a text has none"),
        (NEXT, {"path": __file__, "length": 10**6}, r"chars, \d+ kinds; expected more than 1,000"),
        (SAMPLES, {"set": "mnist"}, "set 'mnist': expected one of iris, digits, line, curve"),
        (SAMPLES, {"answer": "numbers"}, "answer 'numbers': these rows have labels"),
        (SAMPLES, {"set": "line", "answer": "label"}, "answer 'label': the set line has numbers"),
        (SAMPLES, {"answer": "all"}, "answer 'all': expected one of label, numbers, observation"),
        (SAMPLES, {"noise": 1}, "noise 1: set=iris has rows of its own; leave one out"),
        (SAMPLES, {"size": 1, "set": "line"}, "size 1: expected a whole number of at least 2"),
        (SAMPLES, {"part": "half"}, "part 'half': expected one of all, train, test"),
        (SAMPLES, {"held_out": 1}, "held_out 1: expected a share between 0 and 1"),
        (SAMPLES, {"path": "x.csv", "set": "line"}, "set 'line': path has rows of its own"),
        (SAMPLES, {"path": "none.csv"}, "path 'none.csv': there is no such file"),
        (SAMPLES, {"target": "label"}, "has no option 'target', it has set, path, answer"),
    ],
)
def test_wrong_options_are_told_in_one_line(env_id, options, said, refused):
    refused(said, env_id, **options)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", {}, "0 lines; expected a header and two rows or more"),
        ("x,y\n1,2\n", {}, "2 lines; expected a header"),
        ("x,y\n1,2\n1\n", {}, "row 2 has 1 cell, the header 2"),
        ("x,y\n1,2\none,2\n", {}, "row 2, column 'x': 'one', expected a finite number"),
        ("x,y\n1,2\nnan,2\n", {}, "row 2, column 'x': 'nan', expected a finite number"),
        ("x,y\n1,a\n2,\n", {"answer": "numbers"}, "row 1, column 'y': 'a', expected a finite"),
        ("x\n1\n2\n", {}, "one column; expected what is shown, and behind it the answer"),
        ("x,y\n1,a\n2,a\n", {}, "one label alone; expected two or more"),
        ("1.5,2,a\n3,4,b\n5,6,a\n", {}, "its first line has numbers; expected a header"),
        ("x,y\n1,a\n2, \n3,b\n", {}, "row 2, column 'y': nothing, expected a label"),
        ("x,y\n1,2\n2,\n3,4\n", {}, "row 2, column 'y': '', expected a finite number, as others"),
        ("x,y\n1,nan\n2,5\n", {}, "row 1, column 'y': 'nan', expected a finite number, as others"),
    ],
)
def test_a_csv_that_cannot_be_read_is_told_in_one_line(content, options, said, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=rf"path '.*rows.csv': {said}") as no:
        task(SAMPLES, path=str(path), **options)
    assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        ({"y": np.zeros(3)}, {}, "arrays y; expected x and y"),
        ({"x": np.zeros((3, 1))}, {}, "arrays x; expected x and y"),
        (
            {"x": np.zeros(3), "y": np.zeros(3)},
            {},
            r"x \[3\]; expected two rows or more, \[M, ...\]",
        ),
        ({"x": np.zeros((3, 1)), "y": np.zeros(2)}, {}, r"x \[3, 1\], y \[2\]; expected equal"),
        ({"x": np.full((3, 1), np.inf), "y": np.zeros(3)}, {}, "x has numbers that are not finite"),
        ({"x": np.array([["a"]] * 3), "y": np.zeros(3)}, {}, "x of <U1; expected numbers"),
        ({"x": np.zeros((3, 1)), "y": np.ones((3, 2), int)}, {}, r"y \[3, 2\]; expected a label"),
        ({"x": np.zeros((3, 1)), "y": np.ones((3, 0))}, {}, r"y \[3, 0\]; expected at least one"),
        (
            {"x": np.zeros((3, 1)), "y": np.array([1, 2, np.nan])},
            {"answer": "label"},
            "y has numbers that are not finite",
        ),
    ],
    ids="no x,no y,flat,length,infinite,text,labels,nothing,no label".split(","),
)
def test_arrays_that_do_not_fit_are_told_in_one_line(arrays, options, said, tmp_path):
    path = tmp_path / "rows.npz"
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match=rf"path '.*rows.npz': {said}") as no:
        task(SAMPLES, path=str(path), **options)
    assert "\n" not in str(no.value)


def test_columns_may_be_named_by_their_numbers(tmp_path):
    (tmp_path / "rows.csv").write_text("0,1,2\n3,4,a\n5,6,b\n")
    assert len(task(SAMPLES, path=str(tmp_path / "rows.csv")).rows.shown) == 2


def test_files_of_another_kind(tmp_path):
    (tmp_path / "rows.npz").write_text("no archive")
    with pytest.raises(UsageError, match="no npz of arrays"):
        task(SAMPLES, path=str(tmp_path / "rows.npz"))
    (tmp_path / "rows.csv").write_bytes(b"x,y\n\xff,1\n1,2\n")
    with pytest.raises(UsageError, match="expected text in UTF-8"):
        task(SAMPLES, path=str(tmp_path / "rows.csv"))
    with pytest.raises(UsageError, match="it cannot be read: IsADirectoryError"):
        task(NEXT, path=str(tmp_path))
