"""Temporal-difference learning on a table: one step, n steps, eligibility traces.

Plain functions over the scalars of one step and the agent's arrays (see `table`).
"""

from __future__ import annotations

import numpy as np

from seqrl.agents.tabular.policy import expected
from seqrl.agents.tabular.returns import n_step_return
from seqrl.agents.tabular.table import Active, move, value
from seqrl.agents.tabular.tabular_agent import SMOOTHING, Options, Step, TableArrays
from seqrl.core.checks import check_choice, check_unit, check_whole
from seqrl.core.errors import UsageError

TRACES = ("accumulating", "replacing")
FAINTEST = 1e-300  # a trace that is smaller is none: it is near the end of floating point


def one_step(
    m: TableArrays,
    o: Options,
    active: Active,
    action: int,
    target: float,
    alpha: float,
    coin: int = 0,
) -> None:
    """Q(S,A) <- Q(S,A) + alpha [target - Q(S,A)]; of two tables the one the coin picked."""
    if o.double:
        delta = target - value(m.twins[coin], active, action)
        move(m.twins[coin], active, action, alpha * delta)
        for j in active:
            m.q[j, action] = (m.twins[0][j, action] + m.twins[1][j, action]) / 2.0
    else:
        delta = target - value(m.q, active, action)
        move(m.q, active, action, alpha * delta)
    note(m, delta)


def learn_nothing(
    m: TableArrays,
    o: Options,
    i: int,
    s: Step,
    alpha: float,
    epsilon: float,
    rng: np.random.Generator,
) -> None:
    """Leave the table as it is: an agent's `learn_step` where it is evaluated."""


def expected_after(m: TableArrays, o: Options, s: Step, rate: float) -> float:
    """The value of what followed a step, under the exploring policy."""
    return expected(o.kind, m.q, s.next_active, s.next_actions, rate)


def note(m: TableArrays, delta: float) -> None:
    """Update the running mean of |TD error|."""
    m.error[0] += SMOOTHING * (abs(delta) - m.error[0])


def forget(m: TableArrays, i: int) -> None:
    """Drop the waiting steps and the trace of env i: an episode begins."""
    m.waiting[i] = 0
    cut(m, i)


def cut(m: TableArrays, i: int) -> None:
    """Drop the trace of env i."""
    if m.traced[i] > 0:
        spread(m.q, m.trace[i], m.pairs[i, : m.traced[i]], 0.0, 0.0)
        m.traced[i] = 0


def wait(m: TableArrays, i: int, s: Step) -> None:
    """Append a step to those of env i that wait."""
    at = m.waiting[i]
    for k in range(len(s.active)):
        m.active[i, at, k] = s.active[k]
    m.action[i, at] = s.action
    m.reward[i, at] = s.reward
    m.log_prob[i, at] = s.log_prob
    if m.forbidden.shape[2] > 0:
        for action in range(m.forbidden.shape[2]):
            m.forbidden[i, at, action] = True
        for action in s.actions:
            m.forbidden[i, at, action] = False
    m.waiting[i] = at + 1


def step_later(
    m: TableArrays, o: Options, i: int, s: Step, bootstrap: float, alpha: float, coin: int
) -> None:
    """n-step learning: the oldest waiting step has now seen n rewards and `bootstrap`.

    Sutton & Barto (2018), the box of section 7.2, p. 147. At an episode's end all that wait are
    learned from, each with the rewards that were left.
    """
    wait(m, i, s)
    if s.terminated or s.truncated:
        while m.waiting[i] > 0:
            learn_oldest(m, o, i, bootstrap, alpha, coin)
    elif m.waiting[i] == o.n_step:
        learn_oldest(m, o, i, bootstrap, alpha, coin)


def learn_oldest(
    m: TableArrays, o: Options, i: int, bootstrap: float, alpha: float, coin: int
) -> None:
    """Learn from the oldest waiting step of env i, and move the others up."""
    n = m.waiting[i]
    target = n_step_return(m.reward, i, n, bootstrap, o.gamma)
    one_step(m, o, m.active[i, 0], m.action[i, 0], target, alpha, coin)
    for k in range(n - 1):
        for j in range(m.active.shape[2]):
            m.active[i, k, j] = m.active[i, k + 1, j]
        m.action[i, k] = m.action[i, k + 1]
        m.reward[i, k] = m.reward[i, k + 1]
    m.waiting[i] = n - 1


def credit(
    m: TableArrays, o: Options, i: int, active: Active, action: int, target: float, alpha: float
) -> None:
    """Eligibility traces: every pair visited lately shares in the TD error.

    Sutton & Barto (2018), section 12.2 and the box of 12.7, p. 305, with binary features.
    """
    delta = target - value(m.q, active, action)
    for j in active:
        if m.trace[i, j, action] == 0.0:
            m.pairs[i, m.traced[i]] = j * m.q.shape[1] + action
            m.traced[i] += 1
        m.trace[i, j, action] = 1.0 if o.replacing else m.trace[i, j, action] + 1.0
    pairs = m.pairs[i, : m.traced[i]]
    m.traced[i] = spread(m.q, m.trace[i], pairs, alpha * delta, o.gamma * o.decay)
    note(m, delta)


def spread(q: np.ndarray, trace: np.ndarray, pairs: np.ndarray, step: float, decay: float) -> int:
    """Q += step * trace and trace *= decay for these pairs alone; return how many have one still.

    Those come to the front of `pairs`. Stepping does it for all at once, a compiled loop for one
    after the other (see `compiled`), to the same bits.
    """
    flat, traces = np.asarray(q).reshape(-1), trace.reshape(-1)
    faded = traces[pairs]
    flat[pairs] += step * faded
    faded *= decay
    traces[pairs] = faded
    faint = faded < FAINTEST
    if np.count_nonzero(faint) == 0:
        return len(pairs)
    traces[pairs[faint]] = 0.0
    kept = pairs[~faint]
    pairs[: len(kept)] = kept
    return len(kept)


def td_options(
    gamma: float,
    kind: int,
    n_step: int,
    trace_decay: float,
    trace: str,
    *,
    double: bool = False,
    expected: bool = False,
) -> Options:
    """Return the checked options of a TD agent (UsageError)."""
    check_unit("gamma", gamma)
    check_unit("trace_decay", trace_decay)
    n_step = check_whole("n_step", n_step)
    check_choice("trace", trace, TRACES)
    if trace_decay > 0 and (n_step > 1 or double):
        raise UsageError("trace_decay goes with n_step 1 and without double: choose one of them")
    numbers = float(gamma), kind, double, n_step, float(trace_decay)
    return Options(*numbers, replacing=trace == "replacing", expected=expected)
