"""What a run writes, as a real TensorBoard shows it, and the rules of how much is written."""

import io
import json
import re
import subprocess
import sys
import threading
import time
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from seqrl import training
from seqrl.agents import QLearning
from seqrl.core import UsageError
from seqrl.envs import make
from seqrl.scripts import train
from seqrl.training import TensorBoard
from seqrl.training.loop.books import Books, Episode
from seqrl.training.runs import episodes_csv
from seqrl.training.runs import hparams as records
from seqrl.training.runs.config import complete
from seqrl.training.runs.event_file import masked_checksum, read_scalar, record, text_summary
from seqrl.training.runs.telling import telling

SCALARS = {
    "rollout/episode_return",
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/exploration_rate",
    "train/learning_rate",
    "train/td_error",
    "eval/mean_reward",
    "eval/mean_ep_length",
    "eval/optimal_return",
    "eval/regret",
    "eval/value_error",
    "time/fps",
}
Q = "CliffWalking-v1/q-learning/seed-3"
SARSA = "CliffWalking-v1/sarsa/seed-0"
FAILED = "failed"


class Server:
    """A TensorBoard process on a free port of this machine."""

    def __init__(self, logdir):
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
        command += ["--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
        command += ["--samples_per_plugin", "scalars=100000"]  # it would thin them itself
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.guard = threading.Timer(60, self.process.kill)
        self.guard.start()
        self.address = next(
            found[0] for line in self.process.stderr if (found := re.search(r"http://\S+\d", line))
        )

    def get(self, path, body=None, **query):
        """The answer to a question of the web page, as JSON."""
        address = f"{self.address}/data/{path}?{urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(address, data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def wait_for(self, runs):
        """Ask until it has read the runs."""
        while set(self.get("runs")) != runs:
            time.sleep(0.05)

    def stop(self):
        self.guard.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """Two runs by script, and one that went wrong."""
    home = tmp_path_factory.mktemp("runs")
    common = "--env CliffWalking-v1 --max-episode-steps 50 --eval-episodes 3 --quiet".split()
    numbers = "--seed 3 --steps 4000 --eval-every 1500 --gamma 0.9 --double --epsilon .5".split()
    numbers += ["--env-arg", "is_slippery=True", "--run-dir", str(home / Q)]
    assert train.main([*common, *numbers]) == 0
    numbers = ["--agent", "sarsa", "--steps", "1500", "--expected", "--run-dir", str(home / SARSA)]
    assert train.main([*common, *numbers]) == 0
    logger = TensorBoard(home / FAILED)
    logger.describe({"agent": "q-learning", "env": "a|b"})
    logger.scalars(1, {"rollout/ep_rew_mean": 1.0})
    logger.close(success=False)
    return home


@pytest.fixture(scope="module")
def server(logdir):
    started = Server(logdir)
    started.wait_for({Q, SARSA, FAILED})
    yield started
    started.stop()


def episodes_of(folder):
    """episodes.csv as rows of numbers."""
    head, *rows = (folder / "episodes.csv").read_text().splitlines()
    assert head == "step,return,length"
    return [[float(number) for number in row.split(",")] for row in rows]


def test_the_server_finds_every_tag_of_a_tabular_run(server):
    tags = server.get("plugin/scalars/tags")
    assert set(tags[Q]) >= SCALARS and set(tags[SARSA]) >= SCALARS


def test_the_server_draws_over_env_steps(server, logdir):
    episodes = {int(step): total for step, total, _ in episodes_of(logdir / Q)}
    for tag in SCALARS:
        points = server.get("plugin/scalars/scalars", run=Q, tag=tag)
        steps = [step for _, step, _ in points]
        if tag.startswith("eval/"):
            assert steps == [1500, 3000, 4000]
        else:
            assert 50 < len(points) <= 1000
            assert steps == sorted(set(steps)) and set(steps) <= set(episodes)
        if tag == "rollout/episode_return":
            assert [total for *_, total in points] == [episodes[step] for step in steps]


def test_the_numbers_on_the_curves_are_the_run_s(server, logdir):
    def last(run, tag):
        return server.get("plugin/scalars/scalars", run=run, tag=tag)[-1][1:]

    summary = json.loads((logdir / Q / "summary.json").read_text())
    assert last(Q, "eval/mean_reward") == [4000, summary["eval_mean_reward"]]
    rows = episodes_of(logdir / Q)
    step, mean = last(Q, "rollout/ep_rew_mean")
    until = [row for row in rows if row[0] <= step][-100:]
    assert mean == pytest.approx(np.mean([total for _, total, _ in until]))
    assert last(Q, "rollout/ep_len_mean")[1] == pytest.approx(np.mean([n for *_, n in until]))
    assert last(Q, "rollout/exploration_rate")[1] == 0.5
    rate_step, rate = last(SARSA, "train/learning_rate")
    assert rate == pytest.approx(0.1 - 0.09 * rate_step / 1500, rel=1e-3)
    assert last(Q, "train/td_error")[1] > 0
    assert last(Q, "time/fps")[1] > 0


def test_the_server_shows_the_settings_as_text(server):
    (page,) = server.get("plugin/text/text", run=Q, tag="config")
    cells = re.findall(r"<td>(.*?)</td>\s*<td>(.*?)</td>", page["text"])
    expected = {"agent": "q-learning", "gamma": "0.9", "double": "True", "epsilon": "0.5"}
    expected |= {"steps": "4000", "seed": "3", "env_args.is_slippery": "True"}
    assert expected.items() <= dict(cells).items()
    (page,) = server.get("plugin/text/text", run=FAILED, tag="config")
    assert unescape(page["text"]).count("<td>a|b</td>") == 1


def hparams(server):
    """The rows of the HPARAMS page by run, and its columns."""
    columns = server.get("plugin/hparams/experiment", {"experimentName": ""})
    status = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    question = {"experimentName": "", "allowedStatuses": status, "startIndex": 0, "sliceSize": 9}
    question["colParams"] = [{"hparam": "agent"}]
    groups = server.get("plugin/hparams/session_groups", question)["sessionGroups"]
    return {group["sessions"][0]["name"]: group for group in groups}, columns


def test_the_server_has_a_hparams_row_with_metrics_for_every_run(server):
    rows, _ = hparams(server)
    assert set(rows) == {Q, SARSA, FAILED}
    expected = {"agent": "q-learning", "env": "CliffWalking-v1", "seed": 3.0, "gamma": 0.9}
    expected |= {"double": True, "epsilon": 0.5, "learning_rate": "linear:0.1:0.01:1"}
    assert expected.items() <= rows[Q]["hparams"].items()
    assert "steps" not in rows[Q]["hparams"]
    metrics = {value["name"]["tag"]: value for value in rows[Q]["metricValues"]}
    assert set(metrics) >= SCALARS
    (_, step, value) = server.get("plugin/scalars/scalars", run=Q, tag="eval/mean_reward")[-1]
    assert (metrics["eval/mean_reward"]["trainingStep"], step) == (4000, 4000)
    assert metrics["eval/mean_reward"]["value"] == value


def test_the_hparams_row_has_the_few_settings_that_tell_a_run_from_others(server):
    rows, _ = hparams(server)
    always = {"agent", "env", "learning_rate", "seed"}
    assert set(rows[SARSA]["hparams"]) == {*always, "expected", "max_episode_steps"}
    typed = {"gamma", "double", "epsilon", "env_args.is_slippery", "max_episode_steps"}
    assert set(rows[Q]["hparams"]) == {*always, *typed}
    assert set(rows[FAILED]["hparams"]) == {"agent", "env"}  # a logger of one's own tells all
    assert {name: row["name"] for name, row in rows.items()} == {name: name for name in rows}


def test_the_hparams_row_says_how_a_run_ended(server):
    rows, _ = hparams(server)
    found = {name: row["sessions"][0]["status"] for name, row in rows.items()}
    assert found == {Q: "STATUS_SUCCESS", SARSA: "STATUS_SUCCESS", FAILED: "STATUS_FAILURE"}


def test_the_hparams_columns_are_those_of_all_agents(server):
    _, columns = hparams(server)
    names = {column["name"] for column in columns["hparamInfos"]}
    assert {"double", "expected", "gamma", "env_args.is_slippery"} <= names
    assert {metric["name"]["tag"] for metric in columns["metricInfos"]} >= SCALARS


# the bytes are those of TensorBoard's own writers


@pytest.mark.parametrize("text", ["", "a | b", "two\nlines", "\u03b3 = .99 " * 40])
def test_texts_and_their_records_are_those_that_tensorboard_writes(text):
    event = Event(wall_time=2.5, step=7, summary=text_pb("config", text))
    assert text_summary("config", text) == event.summary
    RecordWriter(written := io.BytesIO()).write(event.SerializeToString())
    assert record(event) == written.getvalue()


def test_a_checksum_is_crc32c_turned_by_15_bits_plus_a_constant():
    crc = 0xE3069283  # of the digits, as published for CRC-32C
    turned = (crc >> 15 | crc << 17) + 0xA282EAD8
    assert masked_checksum(b"123456789") == (turned % 2**32).to_bytes(4, "little")


def test_settings_are_recorded_as_tensorboard_s_own_plugin_does():
    started = records.session_start({"gamma": 0.5}).value[0]
    ended = records.session_end(True).value[0]
    tags = metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG
    for value, tag in zip((started, ended), tags, strict=True):
        own = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        assert value.tag == tag and value.tensor == metadata.NULL_TENSOR
        assert value.metadata == metadata.create_summary_metadata(own)


# how much is written, without a server


def fake_loop(**metrics):
    """As much of a loop as a logger looks at."""
    watch = SimpleNamespace(seconds=0.0)
    return SimpleNamespace(
        agent=None, envs=None, steps=0, books=Books(), metrics=metrics, watch=watch
    )


def play(logger, loop, ends, total=1.0):
    """Episodes that end at these env steps."""
    before = 0
    for step in ends:
        loop.books.recent.append((total, step - before))
        loop.watch.seconds += 0.5
        logger.episode(loop, Episode(step, 0, total, step - before, False))
        before = step


def points_of(folder):
    """All scalars in the event files, {tag: [(step, value)]}."""
    found = {}
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    point = event.step, value.tensor.float_val[0]
                    found.setdefault(value.tag, []).append(point)
    return found


@pytest.mark.parametrize("steps", [1, 2, 999, 1000, 1001, 1500, 1999, 2000, 12_345])
@pytest.mark.parametrize("length", [1, 3])
def test_no_tag_gets_more_than_a_thousand_points(tmp_path, steps, length):
    logger, loop = TensorBoard(tmp_path), fake_loop()
    logger.begin(loop, steps)
    play(logger, loop, range(length, steps + 1, length))
    logger.close()
    (taken,) = {len(points) for points in points_of(tmp_path).values()} or {0}
    assert taken <= 1000
    assert taken >= min(steps // length, 1000) / 2
    assert len(episodes_of(tmp_path)) == steps // length


def test_a_point_is_taken_at_the_first_episode_end_after_each_thousandth(tmp_path):
    logger, loop = TensorBoard(tmp_path), fake_loop()
    logger.begin(loop, 10_000)  # thousandths end at 10, 20, 30 ...
    play(logger, loop, [4, 7, 10, 11, 15, 20, 29, 30, 31, 58, 60, 61, 9_990, 9_995, 10_000])
    logger.close()
    steps = [step for step, _ in points_of(tmp_path)["rollout/episode_return"]]
    assert steps == [4, 11, 29, 31, 58, 61, 9_990, 9_995]


def test_a_run_that_goes_on_takes_no_second_point_in_the_same_thousandth(tmp_path):
    logger, loop = TensorBoard(tmp_path), fake_loop()
    loop.steps = 25
    logger.begin(loop, 10_000)
    play(logger, loop, [27, 30, 31])
    logger.close()
    assert [step for step, _ in points_of(tmp_path)["time/fps"]] == [31]


def test_frames_per_second_are_counted_between_points(tmp_path):
    logger, loop = TensorBoard(tmp_path), fake_loop()
    logger.begin(loop, 1_000)
    play(logger, loop, [10, 30])  # half a second each
    logger.close()
    assert points_of(tmp_path)["time/fps"] == [(10, 20.0), (30, 40.0)]


def test_metrics_may_be_numbers_arrays_or_functions_read_only_when_logged(tmp_path):
    read = []
    loop = fake_loop(
        number=2, array=np.float64(0.5), cell=np.array(3.0), lazy=lambda: read.append(1) or 7
    )
    logger = TensorBoard(tmp_path)
    logger.begin(loop, 100_000)
    play(logger, loop, range(1, 101))
    logger.close()
    found = points_of(tmp_path)
    assert [found[tag] for tag in ("number", "array", "cell", "lazy")] == [
        [(1, 2.0)],
        [(1, 0.5)],
        [(1, 3.0)],
        [(1, 7.0)],
    ]
    assert len(read) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(np.nan, np.nan), (np.inf, np.inf), (1e300, np.inf), (-1e300, -np.inf), (0, 0)],
)
def test_a_number_without_a_place_on_the_curve_is_no_problem(tmp_path, value, shown):
    logger = TensorBoard(tmp_path)
    logger.scalars(1, {"x": value})
    logger.close()
    ((_, found),) = points_of(tmp_path)["x"]
    np.testing.assert_equal(found, shown)


def test_a_second_run_in_a_folder_gets_one_beside_it(tmp_path, caplog):
    folders = []
    for _ in range(3):
        logger, loop = TensorBoard(tmp_path / "mine"), fake_loop()
        logger.begin(loop, 1000)
        play(logger, loop, [5, 7])
        logger.close()
        folders.append(logger.folder)
    assert folders == [tmp_path / name for name in ("mine", "mine.1", "mine.2")]
    for folder in folders:
        assert points_of(folder)["rollout/episode_return"] == [(5, 1.0), (7, 1.0)]
        assert len(episodes_of(folder)) == 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "mine holds the log of another run: that of this one is" in said[0]


def test_the_new_folder_is_beside_however_the_first_is_named(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    folders = []
    for name in ("mine", "mine", ".", ".", "../runs"):
        logger = TensorBoard(name)
        logger.close()
        folders.append(str(logger.folder.resolve().relative_to(tmp_path)))
    assert folders == ["runs/mine", "runs/mine.1", "runs", "runs.1", "runs.2"]


class OneByOne:
    """A logger that takes one number at a time."""

    def __init__(self):
        self.told, self.flushes = {}, 0

    def scalar(self, tag, value, step):
        self.told[tag, step] = np.float32(value)

    def flush(self):
        self.flushes += 1


@pytest.mark.parametrize("steps", [2_000, 100_000], ids=["stepped", "compiled"])
def test_a_logger_that_takes_one_number_at_a_time_is_told_the_same(steps, tmp_path):
    loggers = OneByOne(), TensorBoard(tmp_path)
    for logger in loggers:
        envs = make("FrozenLake-v1", num_envs=3)
        agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
        training.train(agent, envs, steps, seed=0, logger=logger)
    loggers[1].close()
    told, found = loggers[0].told, points_of(tmp_path)
    written = {(tag, step): value for tag, curve in found.items() for step, value in curve}
    assert told.keys() == written.keys() and len(told) > 500
    assert all(told[key] == written[key] for key in told if key[0] != "time/fps")
    assert loggers[0].flushes == 1


def test_a_logger_is_of_one_run(tmp_path):
    envs = make("FrozenLake-v1")
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    logger = TensorBoard(tmp_path)
    training.train(agent, envs, 500, seed=0, logger=logger)
    with pytest.raises(UsageError, match="a TensorBoard of its own"):
        training.train(agent, envs, 500, seed=1, logger=logger)
    logger.close()
    assert agent.steps == 500


def test_a_folder_that_cannot_be_made_is_a_line(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/x"):
        with pytest.raises(UsageError, match=r"log folder .*file"):
            TensorBoard(path)


def test_a_point_can_be_seen_at_once(tmp_path):
    logger, loop = TensorBoard(tmp_path), fake_loop()
    logger.begin(loop, 1000)
    play(logger, loop, [5])
    assert points_of(tmp_path)["rollout/episode_return"] == [(5, 1.0)]
    assert episodes_of(tmp_path) == [[5, 1, 5]]
    logger.close()


def test_every_episode_of_a_run_is_in_the_csv_and_its_returns_are_exact(tmp_path):
    logger, loop = TensorBoard(tmp_path), fake_loop()
    logger.begin(loop, 10**6)
    rng = np.random.default_rng(0)
    totals = rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500)
    for i, total in enumerate(totals.tolist(), 1):
        loop.books.recent.append((total, 1))
        logger.episode(loop, Episode(i, 0, total, 1, False))
    logger.episodes(np.array([600]), totals[:1], np.array([100]))
    logger.close()
    expected = [[i, total, 1] for i, total in enumerate(totals.tolist(), 1)]
    assert episodes_of(tmp_path) == [*expected, [600, totals[0], 100]]


def test_the_csv_is_complete_to_a_million_rows_then_every_tenth_and_hundredth():
    million = 10**6
    assert episodes_csv.ROWS == million
    places = [0, 1, million - 1, million, 10 * million - 1, 10 * million, 10**8 - 1, 10**8]
    assert [episodes_csv.thinning(i) for i in places] == [1, 1, 1, 10, 10, 100, 100, 1000]


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_later_episodes_are_thinned_and_the_run_says_so(tmp_path, monkeypatch, together):
    monkeypatch.setattr(episodes_csv, "ROWS", 50)  # the same rule at a smaller number
    logger, loop = TensorBoard(tmp_path), fake_loop()
    logger.begin(loop, 10**9)
    if together:
        steps = np.arange(1, 5101)
        logger.episodes(steps, steps * 1.0, np.ones(5100, int))
    else:
        play(logger, loop, range(1, 5101))
    logger.close()
    kept = [int(step) - 1 for step, *_ in episodes_of(tmp_path)]
    assert kept == [*range(50), *range(50, 500, 10), *range(500, 5000, 100), 5000]
    (path,) = tmp_path.glob("events*")
    texts = [
        value.tensor.string_val[0].decode()
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "episodes.csv"
    ]
    assert len(texts) == 1 and "then every 10th" in texts[0]


def test_a_run_that_is_not_thinned_says_nothing(tmp_path):
    logger, loop = TensorBoard(tmp_path), fake_loop()
    logger.begin(loop, 10)
    play(logger, loop, [1])
    logger.close()
    (path,) = tmp_path.glob("events*")
    assert b"episodes.csv" not in path.read_bytes()


def test_settings_of_the_environment_do_not_hide_the_agent_s():
    config = {"gamma": 1, "agent_args": {"epsilon": 0.1}, "env_args": {"gamma": 2, "seed": [3]}}
    config |= {"seed": 4, "bin_range": {"1": [-3, 3]}, "tiles": None}
    assert dict(records.flatten(config)) == {
        "gamma": 1,
        "epsilon": 0.1,
        "env_args.gamma": 2,
        "env_args.seed": "[3]",
        "seed": 4,
        "bin_range.1": "[-3, 3]",
    }


def test_settings_of_networks_and_aliases_are_held_against_their_own_defaults():
    config = complete({"agent": "a2c", "env": "X", "network": "gru", "num_envs": 4})
    assert set(telling(config)) == {"agent", "env", "network", "num_envs", "learning_rate", "seed"}
    chosen = telling({**config, "agent_args": {**config["agent_args"], "clip": 0.3}})
    assert chosen["clip"] == 0.3 and len(chosen) == 7


def test_a_curve_is_read_back_up_to_a_record_that_is_cut_off(tmp_path):
    logger = TensorBoard(tmp_path)
    for step in (7, 9, 9, 12):
        logger.scalars(step, {"y": 0.5 * step, "x/y": -1.0})
        logger.image(step, "z", b"y", 1, 1)
    logger.close()
    (path,) = tmp_path.glob("events*")
    steps, values = read_scalar(tmp_path, "y")
    assert (steps.tolist(), values.tolist()) == ([7, 9, 12], [3.5, 4.5, 6])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"x/y")])
    assert read_scalar(tmp_path, "y")[0].tolist() == [7, 9]
    path.write_bytes(whole[:12] + b"\xff" * 9 + b"y" + whole[22:])
    with pytest.raises(UsageError, match="not what a run writes"):
        read_scalar(tmp_path, "y")


def test_writing_imports_neither_torch_nor_tensorflow(tmp_path):
    code = f"""
import sys
from seqrl.training import TensorBoard
logger = TensorBoard({str(tmp_path)!r})
logger.describe({{"gamma": 0.9}})
logger.scalars(1, {{"x": 1}})
logger.close()
print(sorted({{"torch", "tensorflow"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
