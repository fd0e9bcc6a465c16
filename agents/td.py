"""Temporal-difference learning on a table: one step, n steps, eligibility traces.

Plain functions over one row of scalars and the agent's arrays (see tables.py).
"""

from __future__ import annotations

import numpy as np

from seqrl.agents.returns import discounted
from seqrl.agents.tables import Rows, move, value
from seqrl.agents.tabular import SMOOTHING, Memory, Options, Step
from seqrl.core import UsageError

TRACES = ("accumulating", "replacing")


def one_step(
    m: Memory, o: Options, rows: Rows, action: int, target: float, alpha: float, coin: int = 0
) -> None:
    """Q(S,A) <- Q(S,A) + alpha [target - Q(S,A)]; of two tables the one the coin picked."""
    if o.double:
        delta = target - value(m.twins[coin], rows, action)
        move(m.twins[coin], rows, action, alpha * delta)
        for row in rows:
            m.q[row, action] = (m.twins[0][row, action] + m.twins[1][row, action]) / 2.0
    else:
        delta = target - value(m.q, rows, action)
        move(m.q, rows, action, alpha * delta)
    note(m, delta)


def note(m: Memory, delta: float) -> None:
    """Keep the running mean of |TD error|."""
    m.error[0] += SMOOTHING * (abs(delta) - m.error[0])


def forget(m: Memory, i: int) -> None:
    """An episode opens: nothing of the one before may be credited."""
    m.waiting[i] = 0
    if m.trace.size > 0:
        m.trace[i] = 0.0


def wait(m: Memory, i: int, s: Step) -> None:
    """Put a step at the end of those that wait."""
    at = m.waiting[i]
    for k in range(len(s.rows)):
        m.rows[i, at, k] = s.rows[k]
    m.action[i, at] = s.action
    m.reward[i, at] = s.reward
    m.log_prob[i, at] = s.log_prob
    m.waiting[i] = at + 1


def step_later(
    m: Memory, o: Options, i: int, s: Step, tail: float, alpha: float, coin: int
) -> None:
    """n-step learning: the oldest step that waits has now seen n rewards and `tail`.

    Sutton & Barto (2018), the box of section 7.2, p. 147. At an episode's end all that wait are
    learned from, each with the rewards that were left.
    """
    wait(m, i, s)
    if s.terminated or s.truncated:
        while m.waiting[i] > 0:
            learn_oldest(m, o, i, tail, alpha, coin)
    elif m.waiting[i] == o.n_step:
        learn_oldest(m, o, i, tail, alpha, coin)


def learn_oldest(m: Memory, o: Options, i: int, tail: float, alpha: float, coin: int) -> None:
    """Learn from the first step that waits, and move the others up."""
    n = m.waiting[i]
    target = discounted(m.reward, i, n, tail, o.gamma)
    one_step(m, o, m.rows[i, 0], m.action[i, 0], target, alpha, coin)
    for k in range(n - 1):
        for j in range(m.rows.shape[2]):
            m.rows[i, k, j] = m.rows[i, k + 1, j]
        m.action[i, k] = m.action[i, k + 1]
        m.reward[i, k] = m.reward[i, k + 1]
    m.waiting[i] = n - 1


def credit(
    m: Memory, o: Options, i: int, rows: Rows, action: int, target: float, alpha: float
) -> None:
    """Eligibility traces: every pair visited lately shares in the TD error.

    Sutton & Barto (2018), section 12.2 and the box of 12.7, p. 305, with binary features.
    """
    delta = target - value(m.q, rows, action)
    for row in rows:
        m.trace[i, row, action] = 1.0 if o.replacing else m.trace[i, row, action] + 1.0
    np.multiply(m.trace[i], alpha * delta, m.share)
    np.add(m.q, m.share, m.q)
    np.multiply(m.trace[i], o.gamma * o.decay, m.trace[i])
    note(m, delta)


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
    """The numbers of a TD agent, checked."""
    check_unit("gamma", gamma)
    check_unit("trace_decay", trace_decay)
    if not isinstance(n_step, int | np.integer) or n_step < 1:
        raise UsageError(f"n_step {n_step!r}: expected a whole number of at least 1")
    if trace not in TRACES:
        raise UsageError(f"trace {trace!r}: expected one of {', '.join(TRACES)}")
    if trace_decay > 0 and (n_step > 1 or double):
        raise UsageError("trace_decay goes with n_step 1 and without double: choose one of them")
    return Options(
        gamma=float(gamma),
        kind=kind,
        double=double,
        n_step=int(n_step),
        decay=float(trace_decay),
        replacing=trace == "replacing",
        expected=expected,
    )


def check_unit(name: str, number: float) -> None:
    """Refuse what is not a number in [0, 1]."""
    if not 0 <= number <= 1:  # NaN fails as well
        raise UsageError(f"{name} {number}: expected a number from 0 to 1")
