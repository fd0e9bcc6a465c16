"""Pictures of behaviour: what they show is true, they change nothing, and they can be looked at."""

import io
import json
import logging
import sys
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from seqrl.agents import QLearning, TableIndex
from seqrl.core import Decision, UsageError
from seqrl.envs import Serial, make
from seqrl.envs.blackjack import NUM_OBSERVATIONS, blackjack_model, index
from seqrl.envs.finite import finite_model
from seqrl.envs.grids import grid_of
from seqrl.envs.optimum import optimum
from seqrl.scripts import evaluate, train
from seqrl.training import evaluate as play
from seqrl.training.pictures import behaviour, canvas, film, maps, memory
from seqrl.training.pictures.film import MAX_FRAMES, Frame, FrameRecorder, gif, make_recorded
from seqrl.training.pictures.picture_logger import (
    MAX_DRAWN,
    AgentPictures,
    PictureLogger,
    image_size,
)

LAKE = {"desc": ["SF", "HG"], "is_slippery": False}
SEED = np.random.SeedSequence(0)


def lake(**options):
    return make("FrozenLake-v1", **LAKE, **options)


def table(env, **numbers):
    return QLearning(env.observation_space, env.action_space, **numbers)


def opened(data):
    """The image in a file's bytes."""
    return Image.open(io.BytesIO(data))


# what is shown


def test_a_grid_worlds_policy_worked_by_hand():
    """Right then down is best, worth 0.9 and 1; the agent goes left from the second cell."""
    env = lake().envs[0]
    agent = table(env, gamma=0.9)
    agent.q[0] = [0.1, 0.2, 0.5, 0.3]
    agent.q[1] = [0.7, 0.6, 0.0, 0.0]
    grid, found = behaviour.grid_policy(agent, env)
    assert grid.cells == ["SF", "HG"]
    np.testing.assert_array_equal(found.learned.actions[0], [2, 0])
    np.testing.assert_array_equal(found.learned.values[0], [0.5, 0.7])
    np.testing.assert_array_equal(found.optimal.actions[0], [2, 1])
    np.testing.assert_allclose(found.optimal.values[0], [0.9, 1.0])
    np.testing.assert_array_equal(found.suboptimal, [[False, True], [False, False]])
    np.testing.assert_array_equal(found.reachable, [[True, True], [False, False]])
    assert maps.suboptimal_note(found, "red") == "red: not a best action, 1 of 2 states"


def test_where_the_model_is_not_known_nothing_is_called_best_or_wrong():
    """A wrapper may change anything; a hole is still no place for an action."""
    env = gym.wrappers.TransformReward(lake().envs[0], float)
    _, found = behaviour.grid_policy(table(env), env)
    assert (
        found.optimal is None
        and not found.suboptimal.any()
        and maps.suboptimal_note(found, "") == ""
    )
    np.testing.assert_array_equal(found.reachable, [[True, True], [False, False]])
    assert canvas.png(maps.draw_grid(*behaviour.grid_policy(table(env), env)))


def test_undiscounted_the_best_looks_ahead_to_the_time_limit():
    env = lake(max_episode_steps=1).envs[0]
    _, found = behaviour.grid_policy(table(env, gamma=1.0), env)
    np.testing.assert_array_equal(found.optimal.values[0], [0.0, 1.0])


def test_a_network_is_asked_in_the_same_way():
    pytest.importorskip("torch")
    from seqrl.agents.deep.reinforce import Reinforce
    from seqrl.networks import MLP

    env = lake().envs[0]
    space = env.observation_space
    for baseline in ("value", "none"):
        agent = Reinforce(MLP(space), env.action_space, space, seed=0, baseline=baseline)
        _, found = behaviour.grid_policy(agent, env)
        for s in range(2):
            one, start = np.array([s]), np.ones(1, bool)
            assert found.learned.actions[0, s] == agent.act(one, start, explore=False).action[0]
            if baseline == "value":
                value = agent.values(one, start)[0]
                np.testing.assert_allclose(found.learned.values[0, s], value, rtol=1e-5)
            else:
                assert found.learned.values is None
    assert canvas.png(maps.draw_grid(*behaviour.grid_policy(agent, env)))


def test_values_of_the_value_network_draw_nothing():
    torch = pytest.importorskip("torch")
    from seqrl.agents.deep.reinforce import Reinforce
    from seqrl.networks import GRU

    env = lake().envs[0]
    space = env.observation_space
    network = GRU(space, 4, layers=2, dropout=0.9)
    agent = Reinforce(network, env.action_space, space, seed=0)
    agent.critic.module.train()
    drawn = torch.get_rng_state()
    first, second = (agent.values(np.arange(4), np.ones(4, bool)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(drawn, torch.get_rng_state())


def test_the_value_of_tiles_is_their_mean():
    space = spaces.Box(0.0, 1.0, (1,), np.float32)
    agent = QLearning(TableIndex(space, bins=2, tiles=2), spaces.Discrete(2))
    agent.q[:] = np.arange(agent.q.size).reshape(agent.q.shape)
    obs = np.array([[0.1], [0.9]], np.float32)
    rows = agent.index(obs)
    expected = [np.mean([agent.q[r] for r in pair], 0).max() for pair in rows]
    np.testing.assert_array_equal(agent.values(obs, np.ones(2, bool)), expected)


def test_blackjack_shows_the_optimum_where_the_table_holds_it():
    env = gym.make("Blackjack-v1", sab=True)
    agent = table(env, gamma=1.0)
    agent.q[:] = optimum(blackjack_model(True), 1.0, 20).q[:NUM_OBSERVATIONS]
    found = behaviour.blackjack_policy(agent, env)
    assert not found.suboptimal.any() and found.reachable.sum() == 210
    # Sutton & Barto (2018), Figure 5.2: stick on 13 against 2, hit 16 against 10, hit a soft 17
    assert [found.learned.actions[at] for at in ((0, 2, 1), (0, 5, 9), (1, 6, 4))] == [0, 1, 1]
    worth = agent.q[index((13, 0), 2)]
    np.testing.assert_allclose(found.learned.values[0, 2, 1], worth.max())
    worth[:] = -worth
    wrong = behaviour.blackjack_policy(agent, env).suboptimal
    assert np.argwhere(wrong).tolist() == [[0, 2, 1]]


def test_taxi_shows_the_optimum_where_the_table_holds_it():
    env = gym.make("Taxi-v4")
    agent = table(env)
    agent.q[:] = optimum(env, agent.options.gamma).q
    assert not behaviour.taxi_policy(agent, env).suboptimal.any()
    state = env.unwrapped.encode(2, 3, 1, 0)
    agent.q[state] = np.arange(6)  # drop off where nobody is
    assert np.argwhere(behaviour.taxi_policy(agent, env).suboptimal).tolist() == [[2, 3, 1, 0]]


def test_other_environments_have_no_map():
    env = gym.make("CartPole-v1")
    agent = QLearning(TableIndex(env.observation_space, bins=2), env.action_space)
    for look in (behaviour.grid_policy, behaviour.taxi_policy, behaviour.blackjack_policy):
        assert look(agent, env) is None


def test_the_played_episode_is_the_first_of_an_evaluation():
    envs = make("FrozenLake-v1")
    agent = table(envs.envs[0])
    agent.q[:, 2] = 1.0
    found = play(agent, make("FrozenLake-v1"), 3, seed=5)
    played = behaviour.play_episode(agent, envs, np.random.SeedSequence(5), 1000)
    assert len(played.rewards) == len(played.obs) == found.lengths[0]
    assert played.rewards.sum() == found.returns[0] and played.obs[0] == 0 and played.ended
    short = behaviour.play_episode(agent, envs, np.random.SeedSequence(5), 2)
    assert len(short.rewards) == 2 and not short.ended


def test_what_a_step_multiplies_the_gradient_by():
    """From 1/8 to 1 in three steps is one half a step back, by hand."""
    assert memory.factor_text(np.array([0.125, 0.3, 0.4, 1.0])) == ": times 0.5 a step back"
    assert memory.factor_text(np.array([1.0])) == ""


# how they look


def grid_picture():
    env = gym.make("CliffWalking-v1")
    return maps.draw_grid(*behaviour.grid_policy(table(env), env))


def taxi_picture():
    env = gym.make("Taxi-v4")
    return maps.draw_taxi(env.unwrapped.desc, behaviour.taxi_policy(table(env), env))


def blackjack_picture():
    env = gym.make("Blackjack-v1")
    return maps.draw_blackjack(behaviour.blackjack_policy(table(env), env))


def waves(*shape):
    return np.sin(np.arange(np.prod(shape))).reshape(shape)


GATES = {"forget gate": abs(waves(9, 4)), "cell": waves(9, 4), "output": waves(9, 4)}
LOOKS = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
PICTURES = {
    "grid": grid_picture,
    "taxi": taxi_picture,
    "blackjack": blackjack_picture,
    "many returns": lambda: canvas.draw_returns(waves(100), -0.1, 0.1, 3),
    "one return": lambda: canvas.draw_returns(np.full(5, -13.0), -13.0, -13.0, 0),
    "gates": lambda: memory.draw_memory("LSTM", GATES),
    "constant memory": lambda: memory.draw_memory("RNN", {"memory": np.zeros((3, 2))}),
    "one head": lambda: memory.draw_attention("attention", {"head 1": LOOKS}),
    "heads": lambda: memory.draw_attention("attention", {f"head {k}": LOOKS for k in range(6)}),
    "vanished": lambda: memory.draw_gradient(10.0 ** -np.arange(30.0, 0, -1)),
    "exploded": lambda: memory.draw_gradient(np.array([np.inf, 1e30, 10.0])),
}


GATED = [("reset gate", "update gate", "memory"), ("input gate", "forget gate", "output gate")]
PICTURES |= {
    ", ".join(names): lambda names=names: memory.draw_memory(
        "layer 2 of 2", {name: abs(waves(60, 32)) for name in names}
    )
    for names in GATED
}


def texts_of(figure, monkeypatch):
    """The texts that are drawn in a figure, with their boxes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    agg, draw, drawn = FigureCanvasAgg(figure), Text.draw, []
    monkeypatch.setattr(Text, "draw", lambda text, to: (drawn.append(text), draw(text, to)))
    agg.draw()
    shown = [x for x in dict.fromkeys(drawn) if x.get_visible() and x.get_text().strip()]
    return [(text, text.get_window_extent(agg.get_renderer()).padded(-1)) for text in shown]


@pytest.mark.parametrize("name", PICTURES)
def test_the_texts_of_a_picture_are_legible_where_tensorboard_shows_it_and_apart(name, monkeypatch):
    figure = PICTURES[name]()
    texts = texts_of(figure, monkeypatch)
    shown = 350 / figure.get_figwidth() / 72  # pixels a point in a card of IMAGES
    labels = [text for text, _ in texts if text.get_text() not in (*"HCGPD", maps.CROSS)]
    assert min(text.get_fontsize() for text in labels) * shown > 10
    boxes = [(panel, panel.get_window_extent()) for panel in figure.axes]
    for i, (text, box) in enumerate(texts):
        others = [place for _, place in texts[:i]]
        others += [place for panel, place in boxes if text.axes is not panel]
        assert not any(map(box.overlaps, others)), text


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_opaque_fits_its_frame_and_is_the_same_each_time(name):
    data = canvas.png(PICTURES[name]())
    assert data == canvas.png(PICTURES[name]())
    assert not any(word in data for word in (b"tEXt", b"tIME", b"iTXt", b"Software"))
    image = opened(data)
    assert image.width == 600 and image.height <= 700
    assert image_size(data) == image.size
    pixels = np.asarray(image.convert("RGBA"))
    assert (pixels[..., 3] == 255).all()
    assert (pixels[:, [0, -1]] == 255).all() and (pixels[[0, -1]] == 255).all()  # nothing cut off


# films


class Long(gym.Env):
    """Ends after `length` steps; shows the step as the colour of what it renders."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, length=7, render_mode=None):
        self.observation_space, self.action_space = spaces.Discrete(300), spaces.Discrete(2)
        self.length, self.render_mode = length, render_mode

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        return self.t, 0.5, self.t == self.length, False, {}

    def render(self):
        return np.full((40, 60, 3), self.t, np.uint8)


def rolled(envs):
    """The shots of one episode."""
    camera = envs.envs[0]
    camera.start_recording()
    behaviour.play_episode(table(camera), envs, SEED, 1000)
    return camera.frames


def test_a_camera_takes_one_episode_from_its_start_to_its_end():
    envs, reason = make_recorded(lambda **more: Serial([Long(**more)]))
    assert reason == "" and envs.envs[0].fps == 10
    for _ in range(2):
        shots = rolled(envs)
        assert [shot.step for shot in shots] == list(range(8))
        assert [shot.total for shot in shots] == [t / 2 for t in range(8)]
        assert [shot.image[0, 0, 0] for shot in shots] == list(range(8))


@pytest.mark.parametrize("length", [MAX_FRAMES - 1, MAX_FRAMES, MAX_FRAMES + 1, 4 * MAX_FRAMES + 1])
def test_a_long_episode_keeps_every_so_many_frames_and_the_last(length):
    envs, _ = make_recorded(lambda **more: Serial([Long(length, **more)]))
    *before, last = [shot.step for shot in rolled(envs)]
    every = before[1]
    assert len(before) < MAX_FRAMES + 1 and last == length
    assert before == list(range(0, length, every))[: len(before)] and last - before[-1] <= every
    assert len(before) > MAX_FRAMES / 2 - 1


def test_a_map_stands_in_where_the_environment_cannot_draw(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    envs, reason = make_recorded(lambda **more: lake(**more))
    assert reason == ""
    frames = [shot.image for shot in rolled(envs)]  # the first action is left, into the wall
    orange = [np.argwhere((frame == (230, 159, 0)).all(-1)).mean(0) for frame in frames[:1]]
    np.testing.assert_allclose(orange[0], [film.MAX_CELL / 2] * 2, atol=1)
    env = lake().envs[0]
    env.reset(seed=0)
    env.step(2)
    dot = np.argwhere((film.map_frame(grid_of(env), env.unwrapped) == (230, 159, 0)).all(-1))
    np.testing.assert_allclose(dot.mean(0), [film.MAX_CELL / 2, film.MAX_CELL * 1.5], atol=1)


class Still:
    """Leaves the paddle where it is."""

    def act(self, obs, start, state=None, *, explore=True):
        return Decision(np.array([1]), None)


def test_images_that_are_observed_are_the_film():
    envs, reason = make_recorded(lambda **more: make("seqrl/Catch-v0", **more))
    camera = envs.envs[0]
    camera.start_recording()
    played = behaviour.play_episode(Still(), envs, SEED, 1000)
    assert reason == "" and len(camera.frames) == 10
    for obs, shot in zip(played.obs, camera.frames, strict=False):
        np.testing.assert_array_equal(obs, shot.image)


def test_what_cannot_be_shown_says_why():
    envs, reason = make_recorded(lambda **more: make("seqrl/TMaze-v0", **more))
    assert not isinstance(envs.envs[0], FrameRecorder)
    assert reason == "it renders nothing and its observations are no images"


@pytest.mark.parametrize(
    ("shape", "size"),
    [((10, 5, 1), (160, 340)), ((84, 84, 3), (252, 272)), ((400, 600, 3), (320, 233))],
)
def test_a_gif_moves_at_the_right_speed_and_is_the_same_each_time(shape, size):
    shots = [Frame(step, 0.25, np.full(shape, 20 * step, np.uint8)) for step in (0, 2, 4, 5)]
    data = gif(shots, 10)
    assert data == gif(shots, 10)
    image = opened(data)
    assert (
        image.size == size == image_size(data) and image.n_frames == 4 and image.info["loop"] == 0
    )
    durations, colours = [], []
    for k in range(4):
        image.seek(k)
        durations.append(image.info["duration"])
        colours.append(image.convert("RGB").getpixel((3, 100))[0])
    assert durations == [200, 200, 100, film.LAST_FRAME_MS]
    np.testing.assert_allclose(colours, [0, 40, 80, 100], atol=4)


# in a run


def images_of(folder):
    """Pictures under IMAGES by tag: (env step, image)."""
    found = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    data = value.tensor.string_val[2]
                    found.setdefault(value.tag, []).append((event.step, opened(data)))
    return found


def trained(folder, *flags):
    words = [*flags, "--quiet", "--eval-episodes", "3", "--run-dir", str(folder)]
    assert train.main(words) == 0
    return json.loads((folder / "summary.json").read_text())


def test_a_run_shows_pictures_at_each_evaluation_and_is_the_same_without(tmp_path):
    flags = ["--steps", "900", "--eval-every", "400", "--seed", "3"]
    shown = trained(tmp_path / "shown", *flags)
    plain = trained(tmp_path / "plain", *flags, "--no-pictures")
    assert shown["digest"] == plain["digest"]
    assert shown["eval_mean_reward"] == plain["eval_mean_reward"]
    one, two = ((tmp_path / x / "episodes.csv").read_bytes() for x in ("shown", "plain"))
    assert one == two
    assert images_of(tmp_path / "plain") == {}
    found = images_of(tmp_path / "shown")
    assert set(found) == {"behaviour/policy", "behaviour/returns", "behaviour/episode"}
    for tag, shots in found.items():
        assert [step for step, _ in shots] == [400, 800, 900]
        assert all((image.format == "GIF") == (tag == "behaviour/episode") for _, image in shots)


def test_a_network_with_memory_is_shown_and_learns_the_same(tmp_path):
    """Dropout draws from torch's own generator, which pictures leave alone too."""
    torch = pytest.importorskip("torch")
    flags = "--agent reinforce --network lstm --env seqrl/TMaze-v0 --env-arg length=3".split()
    flags += ["--num-envs", "3", "--steps", "400", "--eval-every", "150", "--device", "cpu"]
    flags += ["--network-arg", "dropout=0.3", "--network-arg", "layers=2"]
    torch.manual_seed(0)
    shown = trained(tmp_path / "shown", *flags)
    torch.manual_seed(0)
    assert shown["digest"] == trained(tmp_path / "plain", *flags, "--no-pictures")["digest"]
    found = images_of(tmp_path / "shown")
    layers = {f"memory/LSTM layer {i} of 2" for i in (1, 2)}
    assert set(found) == {"behaviour/returns", "memory/gradient", *layers}


class Wall:
    """Takes what is hung up."""

    def __init__(self):
        self.shown, self.said = [], []

    def image(self, step, tag, data, width, height):
        self.shown.append((step, tag, width, height))

    def text(self, tag, markdown):
        self.said.append(markdown)


def picture_logger(steps=10_000, every=100, watch=None):
    shown = AgentPictures(lambda **more: lake(**more), seed=SEED, activity_of=watch)
    return PictureLogger(shown, Wall(), every=every, steps=steps)


@pytest.mark.parametrize(("every", "drawn"), [(100, 21), (1000, 10), (3000, 4), (10_000, 1)])
def test_at_most_about_twenty_evaluations_are_drawn(every, drawn):
    """Of evaluations every 1,000 steps all ten are, of a hundred the first of each twentieth."""
    show = picture_logger(every=every)
    due = [s for s in [*range(every, 10_000, every), 10_000] if show.due(s)]
    assert len(due) in (drawn, drawn - 1) and due[-1] == 10_000 and len(due) <= MAX_DRAWN + 1
    show._describe()
    assert str(MAX_DRAWN) in show.writer.said[0]


def test_what_goes_wrong_ends_the_drawing_with_one_line_and_not_the_run(caplog):
    def watch(agent, obs):
        raise ValueError("no idea")

    show = picture_logger(watch=watch)
    agent = table(show.agent_pictures.env)
    found = play(agent, lake(), 2, seed=0)
    with caplog.at_level(logging.WARNING, "seqrl"):
        for step in (5000, 10_000):
            show(step, agent, found)
    assert [record.getMessage() for record in caplog.records] == [
        "seqrl: pictures are left out: ValueError: no idea"
    ]
    assert {step for step, *_ in show.writer.shown} == {5000}


@pytest.fixture
def without_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_a_run_says_once_that_there_are_no_pictures(tmp_path, caplog):
    flags = ["--steps", "900", "--eval-every", "400", "--eval-episodes", "3"]
    assert train.main([*flags, "--run-dir", str(tmp_path / "run")]) == 0
    (said,) = [record.getMessage() for record in caplog.records]
    assert "no picture without matplotlib" in said and "pip install -e .[plot]" in said


# by hand


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the usual lake, without canvas."""
    folder = tmp_path_factory.mktemp("runs") / "lake"
    trained(folder, "--steps", "900", "--no-pictures")
    return folder


def test_evaluate_writes_a_picture_and_a_film(run, tmp_path, capsys):
    files = [tmp_path / "a.png", tmp_path / "a.gif"]
    words = [str(run), "--episodes", "4", "--picture", str(files[0]), "--gif", str(files[1])]
    assert evaluate.main(words) == 0
    said = capsys.readouterr().out
    assert all(f"written   {file}" in said for file in files)
    before = [file.read_bytes() for file in files]
    picture, moving = map(opened, before)
    assert picture.format == "PNG" and picture.width == 600 and picture.height > 500  # both
    assert moving.format == "GIF" and moving.n_frames > 1
    assert evaluate.main(words) == 0
    assert [file.read_bytes() for file in files] == before


def test_evaluate_refuses_in_a_line_what_it_cannot_write(run, tmp_path, capsys):
    nowhere = tmp_path / "no" / "a.png"
    assert evaluate.main([str(run), "--episodes", "2", "--picture", str(nowhere)]) == 2
    assert f"{nowhere}: No such file or directory" in capsys.readouterr().err


def test_evaluate_says_why_there_is_no_film(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    trained(tmp_path / "run", "--env", "CartPole-v1", "--bins", "2", "--steps", "50")
    capsys.readouterr()
    words = [str(tmp_path / "run"), "--episodes", "2", "--gif", str(tmp_path / "a.gif")]
    assert evaluate.main(words) == 2
    assert "pygame is not installed" in capsys.readouterr().err


@pytest.mark.usefixtures("without_matplotlib")
def test_evaluate_without_matplotlib_films_but_does_not_draw(run, tmp_path, capsys):
    words = [str(run), "--episodes", "2"]
    assert evaluate.main([*words, "--gif", str(tmp_path / "a.gif")]) == 0
    assert evaluate.main([*words, "--picture", str(tmp_path / "a.png")]) == 2
    assert "no picture without matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_a_film_needs_a_camera():
    with pytest.raises(UsageError, match="it renders nothing"):
        AgentPictures(lambda **more: make("seqrl/TMaze-v0", **more)).film()


def test_the_model_is_known_behind_the_camera():
    shown = AgentPictures(lambda **more: lake(**more))
    assert shown.recorder is not None and finite_model(shown.env) is not None
