"""What Numba compiles of the tabular agents: the algorithms, and the functions that they call.

A new algorithm's turns run compiled by one more line in ALGORITHMS. What it calls has to be a
function of its own file or of SHARED, on scalars, arrays and named tuples (see `table`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from seqrl.agents import schedules
from seqrl.agents.tabular import policy, returns, table, td
from seqrl.agents.tabular.monte_carlo import MonteCarlo, monte_carlo, was_greedy
from seqrl.agents.tabular.q_learning import QLearning, q_learning
from seqrl.agents.tabular.sarsa import Sarsa, expected_sarsa, learn_waiting, sarsa

# an agent's class and the functions that may be its `learn_step`
ALGORITHMS: dict[type, tuple[Callable[..., None], ...]] = {
    QLearning: (q_learning,),
    Sarsa: (sarsa, expected_sarsa),
    MonteCarlo: (monte_carlo,),
}
LEARN_STEPS = [learn_step for several in ALGORITHMS.values() for learn_step in several]
LEARN_STEPS += [td.learn_nothing]
SHARED = (schedules, policy, returns, table, td)
# what nearly every step passes through; a call would copy the arrays' descriptions one by one
INLINE = (*LEARN_STEPS, learn_waiting, was_greedy, td.one_step, td.wait, td.forget, policy.explore)


def modules() -> list[ModuleType]:
    """Return the modules whose functions are compiled."""
    own = [sys.modules[learn_step.__module__] for learn_step in LEARN_STEPS]
    return list(dict.fromkeys([*SHARED, *own]))


def functions() -> Iterator[tuple[Callable[..., Any], bool]]:
    """Yield every function of these modules, and whether it is to be inlined."""
    for module in modules():
        for function in vars(module).values():
            own = inspect.isfunction(function) and function.__module__ == module.__name__
            if own and function is not td.spread:  # compiled from a text of its own
                yield function, function in INLINE
