"""The loop of a tabular agent on a finite model, compiled: the same bits, hundreds of times faster.

Nothing but `spread` is written twice. Numba compiles the very functions that stepping calls
(`q_learning`, `explore`, `rate` ...). Random numbers come from the environments' own Generators and
the agent's: their PCG64 is worked out here from their state and handed back, so every draw is the
one that stepping would have made. What is here is only the turn itself.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import extending
from numba.extending import register_jitable

from seqrl.agents.schedules import rate
from seqrl.agents.tabular import compilable, policy, td
from seqrl.agents.tabular.tabular_agent import Step, TableArrays

# nothing here allocates, so Numba need not count references (a third of the time otherwise)
BARE: dict[str, Any] = {"_nrt": False, "nogil": True}
for function, inline in compilable.functions():
    register_jitable(forceinline=inline, **BARE)(function)

overload: Any = extending.overload  # their stubs do not know jit_options
method: Any = extending.overload_method


@overload(td.spread, jit_options=BARE)
def spread_one_by_one(q, trace, pairs, step, decay):  # type: ignore[no-untyped-def]
    """Compile `spread`, which has no memory for arrays of its own here."""

    def spread(q, trace, pairs, step, decay):  # type: ignore[no-untyped-def]
        flat, traces, kept = q.reshape(q.size), trace.reshape(trace.size), 0
        for pair in pairs:
            flat[pair] += step * traces[pair]
            faded = traces[pair] * decay
            traces[pair] = 0.0 if faded < td.FAINTEST else faded
            if not faded < td.FAINTEST:
                pairs[kept] = pair
                kept += 1
        return kept

    return spread


# PCG64 (O'Neill, 2014; the XSL-RR 128/64 of NumPy's default Generator)
HIGH, LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)  # of the multiplier
MASK, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


class Stream(NamedTuple):
    """A PCG64 as four words, with the `random` of the Generator that it was taken from."""

    words: np.ndarray  # [4] uint64: state and increment, high word first

    def random(self) -> float:
        """For the type checker; Numba compiles `stream_random`."""
        return float("nan")


@method(numba.types.NamedUniTuple, "random", jit_options=BARE)
def stream_random(stream):  # type: ignore[no-untyped-def]  # Numba compares signatures
    """Compile `random`: a number from [0, 1) with 53 random bits."""
    if stream.instance_class is not Stream:
        return None

    def random(stream):  # type: ignore[no-untyped-def]
        w = stream.words
        high, low = multiply(w[1], LOW)
        high += w[0] * LOW + w[1] * HIGH
        low += w[3]
        high += w[2] + np.uint64(low < w[3])
        w[0], w[1] = high, low
        turn = high >> np.uint64(58)
        mixed = high ^ low
        bits = (mixed >> turn) | (mixed << ((np.uint64(64) - turn) & np.uint64(63)))
        return float(bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)

    return random


@register_jitable(**BARE)
def multiply(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the 128-bit product of two words, high and low."""
    a1, a0, b1, b0 = a >> HALF, a & MASK, b >> HALF, b & MASK
    middle = a1 * b0 + ((a0 * b0) >> HALF)
    other = a0 * b1 + (middle & MASK)
    return a1 * b1 + (middle >> HALF) + (other >> HALF), a * b


def read_stream(rng: np.random.Generator, words: np.ndarray) -> None:
    """Read the Generator's state into four words."""
    state = rng.bit_generator.state["state"]
    for at, number in ((0, state["state"]), (2, state["inc"])):
        words[at], words[at + 1] = number >> 64, number & (2**64 - 1)


def write_stream(rng: np.random.Generator, words: np.ndarray) -> None:
    """Set the Generator's state from the words."""
    state = rng.bit_generator.state
    high, low = words[:2].tolist()
    state["state"]["state"] = high << 64 | low
    rng.bit_generator.state = state


class World(NamedTuple):
    """N environments on one finite model; for `turns_each` every [N] is [runs, N]."""

    cumulative: np.ndarray  # [S, A, K]
    next_state: np.ndarray  # [S, A, K]
    reward: np.ndarray  # [S, A, K]
    terminated: np.ndarray  # [S, A, K]
    initial: np.ndarray  # [S] running sums
    limit: int  # steps that an episode is cut after
    state: np.ndarray  # [N] where each environment is
    action: np.ndarray  # [N] its last action, -1 for none in this episode
    elapsed: np.ndarray  # [N] steps of this episode
    start: np.ndarray  # [N] bool: the state opens an episode
    returns: np.ndarray  # [N] of this episode
    chosen: np.ndarray  # [N] this turn's actions
    log_prob: np.ndarray  # [N] and their log-probabilities
    every: np.ndarray  # [A] the actions


class Ended(NamedTuple):
    """Memory for the episodes that end in a call."""

    step: np.ndarray
    env: np.ndarray
    total: np.ndarray
    length: np.ndarray
    truncated: np.ndarray


@register_jitable(**BARE)
def draw(cumulative: np.ndarray, u: float) -> int:
    """Return the first index with cumulative probability > u, else 0, as Gymnasium does."""
    for k in range(len(cumulative)):
        if cumulative[k] > u:
            return k
    return 0


@register_jitable(**BARE)
def full(m):  # type: ignore[no-untyped-def]
    """Return whether an episode has used up the memory for its steps."""
    for waiting in m.waiting:
        if waiting == m.action.shape[1]:
            return True
    return False


def one_of(functions: Sequence[Callable[..., None]]) -> Callable[..., None]:
    """Return a function that calls the one of these which its first argument numbers."""
    first, *rest = functions
    inlined = register_jitable(forceinline=True, **BARE)
    if not rest:
        return inlined(lambda number, *arguments: first(*arguments))
    other = one_of(rest)

    def chosen(number, *arguments):  # type: ignore[no-untyped-def]
        if number == 0:
            first(*arguments)
        else:
            other(number - 1, *arguments)

    return inlined(chosen)


learn_step = one_of(compilable.LEARN_STEPS)


@register_jitable(**BARE)
def turns(  # type: ignore[no-untyped-def]
    algorithm, m, o, w, words, alpha, epsilon, learned, steps, until, due, ended, most
):
    """Play whole turns of a run while steps < `until`; return env steps and episodes done.

    `words` [N + 1, 4] are the streams of the environments, then the agent's. It comes back early
    after a turn in which an episode ended at or after step `due`, when `most` episodes have ended,
    or when an episode outgrows the memory for waiting steps.
    """
    n = len(w.state)
    rng: Any = Stream(words[n])
    actions, log_prob = w.chosen, w.log_prob
    done = episodes = 0
    pointed = False
    while steps + done < until and episodes < most and not pointed:
        if o.grows and full(m):
            break
        now = rate(epsilon[0], epsilon[1], epsilon[2], epsilon[3], learned + done)
        for i in range(n):
            actions[i] = policy.explore(o.kind, m.q, (w.state[i],), w.every, now, rng)
        if o.off_policy:
            for i in range(n):
                chance = policy.probability(o.kind, m.q, (w.state[i],), w.every, actions[i], now)
                log_prob[i] = math.log(chance)
        for i in range(n):
            s, a = w.state[i], actions[i]
            k = draw(w.cumulative[s, a], Stream(words[i]).random())
            reward, after, over = w.reward[s, a, k], w.next_state[s, a, k], w.terminated[s, a, k]
            w.elapsed[i] += 1
            cut = w.elapsed[i] >= w.limit
            w.returns[i] += reward
            step = Step(
                w.start[i], (s,), w.every, a, log_prob[i], reward, (after,), w.every, over, cut
            )
            at = learned + done
            size = rate(alpha[0], alpha[1], alpha[2], alpha[3], at)
            later = now
            if i > 0:
                later = rate(epsilon[0], epsilon[1], epsilon[2], epsilon[3], at)
            learn_step(algorithm, m, o, i, step, size, later, rng)
            done += 1
            w.state[i], w.action[i], w.start[i] = after, a, False
            if over or cut:
                ended.step[episodes] = steps + done
                ended.env[episodes] = i
                ended.total[episodes] = w.returns[i]
                ended.length[episodes] = w.elapsed[i]
                ended.truncated[episodes] = not over
                episodes += 1
                pointed = pointed or steps + done >= due
                w.state[i] = draw(w.initial, Stream(words[i]).random())
                w.action[i], w.elapsed[i], w.returns[i], w.start[i] = -1, 0, 0.0, True
    return done, episodes


@numba.njit(cache=True, **BARE)
def turns_each(  # type: ignore[no-untyped-def]
    algorithm, m, o, w, words, alpha, epsilon, numbers, ended, done
):
    """Play `turns` of K runs of like agents, one after the other, in a single call.

    Run k learns in `m` [K, ...] and writes to `ended` [K, ...] and `done` [K, 2]; its `numbers`
    [K, 6] are where it is in `w` and `words`, then what `turns` takes: learned, steps, until, due
    and most.
    """
    for k in range(len(numbers)):
        at = numbers[k, 0]
        memory = TableArrays(
            m.q[k],
            m.twins[k],
            m.weight[k],
            m.first[k],
            m.trace[k],
            m.pairs[k],
            m.traced[k],
            m.active[k],
            m.action[k],
            m.reward[k],
            m.log_prob[k],
            m.forbidden[k],
            m.waiting[k],
            m.error[k],
        )
        world = World(
            w.cumulative,
            w.next_state,
            w.reward,
            w.terminated,
            w.initial,
            w.limit,
            w.state[at],
            w.action[at],
            w.elapsed[at],
            w.start[at],
            w.returns[at],
            w.chosen[at],
            w.log_prob[at],
            w.every,
        )
        book = Ended(
            ended.step[k], ended.env[k], ended.total[k], ended.length[k], ended.truncated[k]
        )
        done[k, 0], done[k, 1] = turns(
            algorithm,
            memory,
            o,
            world,
            words[at],
            alpha,
            epsilon,
            numbers[k, 1],
            numbers[k, 2],
            numbers[k, 3],
            numbers[k, 4],
            book,
            numbers[k, 5],
        )


def stamp() -> tuple[int, ...]:
    """Return when the sources of all that is compiled were last changed, and their sizes."""
    found = [
        os.stat(inspect.getsourcefile(module) or "")
        for module in (*compilable.modules(), sys.modules[__name__])
    ]
    return tuple(number for stat in found for number in (stat.st_mtime_ns, stat.st_size))


def ready() -> bool:
    """Return whether all has been compiled, in this process or for the cache on disk."""
    return bool(turns_each.overloads or turns_each._cache._cache_file._load_index())


# Numba looks at this file alone when it asks whether its cache on disk is still good
turns_each._cache._cache_file._source_stamp = stamp()
