"""The benchmark of devices, in its small form: every row is measured, or says why not."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from seqrl.envs.registry import task

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/device.py"))


def test_a_table_and_a_file_of_every_row(tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = "--device cpu --task CartPole --network mlp --environments 8 --seconds 16 --json"
    BENCHMARK["main"]([*words.split(), str(path)])
    rows = json.loads(path.read_text())["rows"]
    assert [row["agent"] for row in rows] == ["bare", "reinforce", "ppo"]
    assert all(row["rate"] > 0 and row["looks"] is None and not row["note"] for row in rows)
    assert all(0 < row["busy"] < 1.05 for row in rows)
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3 + 3 and " | 1.00 | " in table[3] and " | ppo | " in table[5]


@pytest.mark.parametrize("name", BENCHMARK["TASKS"])
@pytest.mark.parametrize("network", BENCHMARK["NETWORKS"])
def test_the_bare_loop_plays_the_task_and_learns(name, network):
    env_id = BENCHMARK["TASKS"][name]
    bare = BENCHMARK["Bare"](env_id, network, 4, "cpu")
    before = [weight.clone() for weight in bare.network.parameters()]
    bare(64)
    after = bare.network.parameters()
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    rules, steps = task(env_id), bare.episodes["time"]
    if rules.horizon:
        assert steps.tolist() == 4 * [64 % rules.horizon]
    assert (steps <= (rules.horizon or rules.time_limit)).all()


def test_a_row_ends_with_its_time_and_with_its_error():
    place, row = BENCHMARK["Place"]("cpu"), BENCHMARK["Row"]("CartPole", "mlp", 8, "ppo")
    found = BENCHMARK["measure"](row, place, 0.0)
    assert found.rate is None and found.note == "stopped: it takes longer"
    large = BENCHMARK["measure"](row._replace(environments=10**14, agent="bare"), place, 60.0)
    assert large.rate is None and "alloc" in large.note
