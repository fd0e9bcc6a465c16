"""Where memory is needed, changing the network alone tells who has it."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/memory.py"))
MEMORYLESS = {"repeat-first": -0.5, "tmaze-10": 0.5, "tmaze-50": 0.5}
# one junction an episode, too far for Elman's gradients and for what attention looks at at first
EXCUSED = [("reinforce", "tmaze-50", "rnn"), ("reinforce", "tmaze-50", "attention")]


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
    if (agent, task, network) not in EXCUSED:
        assert any(is_told(agent, task, network, seed) for seed in (0, 3))
