"""Where memory is needed, changing the network alone tells who has it."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/memory.py"))
TASK, MEMORYLESS = "tmaze-10", 0.5


def is_told(agent, network, seed):
    """Whether the greedy score after training is that of a network with memory, or without."""
    score = BENCHMARK["cell"](TASK, agent, network, seed).score
    return score == pytest.approx(MEMORYLESS, abs=0.05) if network == "mlp" else score >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("network", BENCHMARK["NETWORKS"])
@pytest.mark.parametrize("agent", BENCHMARK["BUDGET"])
def test_the_network_alone_makes_the_difference(agent, network):
    """One seed in two is enough: chance decides who finds the end of the corridor.

    The other tasks are figures: memory-* and mlp-* in benchmarks/figures.toml.
    """
    assert any(is_told(agent, network, seed) for seed in (0, 3))
