"""Text for the terminal: evaluation results, policies and tables."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np

from seqrl.agents.protocol import Agent
from seqrl.agents.tabular.tabular_agent import TabularAgent
from seqrl.core.errors import UsageError
from seqrl.envs.adapter import Environments, Serial
from seqrl.envs.finite import counts_success, finite_model
from seqrl.envs.grids import Grid, grid_of
from seqrl.training.loop.evaluation import Evaluation
from seqrl.training.loop.oracle import optimal_policy

# (player's sum, dealer's card, usable ace)
BLACKJACK = gym.spaces.Tuple([gym.spaces.Discrete(n) for n in (32, 11, 2)])
LIMIT = " ended by a time limit"  # a success, where the task is to last that long


def verdict(evaluation: Evaluation, envs: Environments, how: str = "greedy") -> str:
    """Return the mean return with its interval; a success rate where a known model says so.

    how: the episodes were played.
    """
    episodes, cut = len(evaluation.returns), int(evaluation.truncated.sum())
    if episodes == 1:
        return f"return {evaluation.mean:.6g} of one {how} episode{',' + LIMIT if cut else ''}"
    _, low, high = evaluation.interval
    model = finite_model(envs.envs[0]) if isinstance(envs, Serial) else None
    if model is not None and counts_success(model):
        text = f"success rate {evaluation.mean:.1%} (95 % interval {low:.1%} to {high:.1%})"
    else:
        text = f"mean return {evaluation.mean:.6g} (95 % interval {low:.6g} to {high:.6g})"
    return f"{text} over {episodes:,} {how} episodes" + (f", {cut:,}{LIMIT}" if cut else "")


def draw_policy(agent: Agent, envs: Environments) -> str | None:
    """Return a table's greedy policy on a grid world's map, beside the optimal one where known."""
    env = envs.envs[0] if isinstance(envs, Serial) else None
    grid = None if env is None else grid_of(env)
    if env is None or grid is None or not isinstance(agent, TabularAgent) or agent.index.masked:
        return None  # a mask comes with an observation, and the table knows none
    learned = draw_grid(grid, agent.q.argmax(1))
    best = optimal_policy(env, agent.options.gamma)
    return learned if best is None else side_by_side(learned, draw_grid(grid, best))


def side_by_side(learned: str, optimal: str) -> str:
    """Return two maps with their headings, the learned one to the left."""
    left = ["  learned", *learned.split("\n")]
    right = ["  optimal", *optimal.split("\n")]
    width = max(map(len, left)) + 2
    return "\n".join(f"{one:<{width}}{other}" for one, other in zip(left, right, strict=True))


def draw_grid(grid: Grid, policy: np.ndarray) -> str:
    """Return a map with an arrow for the action [S] in every non-terminal cell."""
    cells = zip("".join(grid.cells), policy, strict=False)
    marks = [cell if cell in grid.ends else grid.arrows[action] for cell, action in cells]
    rows = np.array(marks).reshape(len(grid.cells), -1)
    return "\n".join("  " + " ".join(row) for row in rows)


def show_table(agent: Agent, envs: Environments) -> str:
    """Return values and policy as text: on a map, on Blackjack's maps, or as a list of states."""
    if not isinstance(agent, TabularAgent):
        raise UsageError(f"{type(agent).__name__} has no table to show")
    if agent.index.masked:
        return show_states(agent)
    grid = grid_of(envs.envs[0]) if isinstance(envs, Serial) else None
    if grid is not None:
        return show_grid(grid, agent.q, draw_policy(agent, envs))
    if agent.index.space == BLACKJACK:
        return show_blackjack(agent.q)
    return show_states(agent)


def show_grid(grid: Grid, q: np.ndarray, policy: str | None) -> str:
    """Return the map with the greedy actions, then V and Q of each cell."""
    width = len(grid.cells[0])
    values = q.max(1).reshape(-1, width)
    table = "\n".join("  " + " ".join(f"{v:8.3f}" for v in row) for row in values)
    return f"policy\n{policy}\n\nV = max Q\n{table}\n\n{list_q(q, grid.arrows)}"


def list_q(q: np.ndarray, names: str) -> str:
    """Return Q as text, a line for each state."""
    head = "state " + " ".join(f"{name:>9}" for name in names)
    lines = [f"{s:5} " + " ".join(f"{x:9.4f}" for x in row) for s, row in enumerate(q)]
    return "\n".join(["Q", head, *lines])


def show_blackjack(q: np.ndarray) -> str:
    """Return two maps as in Sutton & Barto, Figure 5.2: H hits, S sticks; by sum and card."""
    table = q.reshape(32, 11, 2, 2)

    def rows(ace: int, gap: str, cell: Callable[[np.ndarray], str]) -> list[str]:
        sums = range(21, 10, -1)
        return [f"  {total:2}  " + gap.join(map(cell, table[total, 1:, ace])) for total in sums]

    parts = []
    for ace, title in ((1, "usable ace"), (0, "no usable ace")):
        shown = rows(ace, "  ", lambda x: "SH"[x.argmax()])
        parts += [title, *shown, "      A  2  3  4  5  6  7  8  9 10  (dealer shows)", ""]
    values = rows(0, " ", lambda x: f"{x.max():6.3f}")
    return "\n".join([*parts, "V, no usable ace", *values])


def show_states(agent: TabularAgent, most: int = 50) -> str:
    """Return the table's rows that were changed, `most` of them at most, highest value first."""
    changed = np.flatnonzero((agent.q != agent.q[0, 0]).any(1))
    order = changed[np.argsort(-agent.q[changed].max(1), kind="stable")][:most]
    head = f"{len(changed):,} of {len(agent.q):,} rows learned, the {len(order)} of highest value"
    # what may be taken is told with an observation, and not known here
    first = {row: "?" if agent.index.masked else agent.q[row].argmax() for row in order}
    lines = [
        f"{row:8}  {first[row]:>6}  " + " ".join(f"{x:10.4f}" for x in agent.q[row])
        for row in order
    ]
    return "\n".join([head, "     row  greedy  Q", *lines])
