"""Turns that are compiled: where a tabular agent plays a finite model, which is noticed here.

`compiled_turns(loop)` looks at agent and environments and returns what plays their turns, or the
reason why they are stepped. Both ways give the same bits.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete

from seqrl.agents.tabular.compilable import ALGORITHMS, LEARN_STEPS
from seqrl.agents.tabular.policy import GREEDY
from seqrl.agents.tabular.tabular_agent import TabularAgent
from seqrl.agents.tabular.td import learn_nothing
from seqrl.envs.adapter import Serial
from seqrl.envs.finite import Model, check_unchanged, finite_model, time_limit, time_limits

RUNS = 16  # side by side at most: one call of all lets go of Python's lock once
CALL = 1 << 20  # env steps a call at most, so that Ctrl-C and the progress bar are not kept waiting
MOST_EPISODES = 1 << 16  # episodes a call
LOG = logging.getLogger("seqrl")
NEVER = np.iinfo(np.int64).max
EPISODE: dict[str, type] = {  # of the World, for each run and environment
    **dict.fromkeys(("state", "action", "elapsed", "chosen"), np.int64),
    **{"start": bool, "returns": float, "log_prob": float},
}


class CompiledRun(NamedTuple):
    """A loop whose turns are compiled."""

    at: int  # where it is in the World
    loop: Any  # Interaction
    agent: Any
    seeds: list[int | None]  # of its environments, which may go on to another run meanwhile
    rngs: list[np.random.Generator]  # theirs, then the agent's

    def shape(self) -> Any:
        """What runs have in common that can be played in one call."""
        agent = self.agent
        return agent.learn_step, agent.options, agent.rates, [x.shape for x in agent.arrays]

    def numbers(self, until: int, steps: int, most: int) -> tuple[int, ...]:
        """What `turns_each` is told of it, for a call of as many steps and episodes."""
        loop = self.loop
        due = min(getattr(loop.recorder, "due", NEVER), NEVER)
        if loop.books.wanted is not None:
            most = max(1, min(most, loop.books.wanted - loop.books.episodes))
        learned = self.agent.steps - self.agent.origin  # of the schedules
        return self.at, learned, loop.steps, min(until, loop.steps + steps), due, most


Played = tuple[CompiledRun, int, list[np.ndarray]]  # env steps, and episodes as in `Ended`


class CompiledTurns:
    """Runs the turns of loops whose agents and environments allow it.

    `advance` those of the loop it was made for. Or `begin` several loops that share its
    environments, one after the other, and `play` them together.
    """

    def __init__(self, loop: Any, envs: list[Any], model: Model):
        from seqrl.training.loop import compiled

        self.compiled, self.loop, self.model = compiled, loop, model
        self.envs = [env.unwrapped for env in envs]
        self.clocks: list[list[Any]] = [time_limits(env) for env in envs]
        n = len(self.envs)
        tables = model.cumulative, model.next_state, model.reward, model.terminated
        limit = self.clocks[0][0]._max_episode_steps if self.clocks[0] else NEVER
        limit = min(limit, loop.max_episode_steps or NEVER)
        zeros: Any = {name: np.zeros((RUNS, n), kind) for name, kind in EPISODE.items()}
        every = np.arange(loop.agent.arrays.q.shape[1])
        self.world = compiled.World(*tables, np.cumsum(model.initial), limit, **zeros, every=every)
        self.words = np.zeros((RUNS, n + 1, 4), np.uint64)
        kinds = [np.zeros(MOST_EPISODES + RUNS * n, kind) for kind in (int, int, float, int, bool)]
        self.ended = compiled.Ended(*kinds)
        if not compiled.ready():
            LOG.warning("seqrl: compiling the loop, once, about 10 s")
        self._call([self.begin(loop)], until=0)  # no turn, but what is compiled is loaded

    def check(self) -> None:
        """Raise RunError where the model was changed since it was read."""
        for env in self.envs:
            check_unchanged(env, self.model)

    def advance(self, until: int) -> None:
        """Play whole turns while steps < `until`, at most those of one call."""
        next(self.play([self.begin(self.loop)], until))

    def begin(self, loop: Any, at: int = 0) -> CompiledRun:
        """Copy the state of a loop's environments and random numbers to index `at`."""
        agent = loop.agent
        agent.prepare(len(self.envs))
        w, rngs = self.world, [*(env.np_random for env in self.envs), agent.rng]
        for rng, words in zip(rngs, self.words[at], strict=True):
            self.compiled.read_stream(rng, words)
        for i, (env, clocks) in enumerate(zip(self.envs, self.clocks, strict=True)):
            w.state[at, i] = env.s
            w.action[at, i] = -1 if env.lastaction is None else env.lastaction
            w.elapsed[at, i] = clocks[0]._elapsed_steps if clocks else loop.books.lengths[i]
        w.start[at], w.returns[at] = loop.start, loop.books.returns
        return CompiledRun(at, loop, agent, loop.envs.seeds, rngs)

    def play(self, runs: list[CompiledRun], until: int) -> Iterator[CompiledRun]:
        """Play whole turns of every run while steps < `until`, at most those of one call.

        A run comes back early after a turn that gives its recorder the next point or the loop the
        last episode wanted. Yield each run when environments and loop are in its state.
        """
        for _, alike in groupby(runs, CompiledRun.shape):
            for run, steps, ended in self._call(list(alike), until):
                self._settle(run, steps, ended)
                if not steps and run.loop.steps < until:
                    run.agent.grow(2 * run.agent.arrays.action.shape[1])
                yield run

    def _settle(self, run: CompiledRun, steps: int, ended: list[np.ndarray]) -> None:
        """Count what was played, and set environments and loop to where it has come."""
        run.agent.steps += steps
        run.loop.steps += steps
        self._write(run)
        run.loop.record_all(*ended)

    def _call(self, runs: list[CompiledRun], until: int) -> list[Played]:
        """Play turns of like runs; return the env steps and the episodes of each."""
        n, k, agent = len(self.envs), len(runs), runs[0].agent
        most, steps = max(1, MOST_EPISODES // k), max(1, CALL // k)
        memories = zip(*(run.agent.arrays for run in runs), strict=True)
        memory = self.compiled.TableArrays(*map(stacked, memories))
        ended = self.compiled.Ended(*(x[: k * (most + n)].reshape(k, -1) for x in self.ended))
        numbers = np.array([run.numbers(until, steps, most) for run in runs])
        done = np.zeros((k, 2), np.int64)
        kind, world, words = LEARN_STEPS.index(agent.learn_step), self.world, self.words
        try:
            self.compiled.turns_each(
                kind, memory, agent.options, world, words, *agent.rates, numbers, ended, done
            )
        except BaseException:  # a signal's, raised when the call is over: what it has done counts
            for played in taken_apart(runs, memory, ended, done):
                self._settle(*played)
            raise
        return taken_apart(runs, memory, ended, done)

    def _write(self, run: CompiledRun) -> None:
        """Set environments and loop to where the compiled turns have come."""
        w, loop, at = self.world, run.loop, run.at
        loop.envs.seeds = run.seeds
        for rng, words in zip(run.rngs, self.words[at], strict=True):
            self.compiled.write_stream(rng, words)
        for i, (env, clocks) in enumerate(zip(self.envs, self.clocks, strict=True)):
            if env.np_random is not run.rngs[i]:
                env.np_random = run.rngs[i]
            env.s = int(w.state[at, i])
            env.lastaction = None if w.action[at, i] < 0 else int(w.action[at, i])
            if clocks:
                clocks[0]._elapsed_steps = int(w.elapsed[at, i])
        loop.obs, loop.start = w.state[at].copy(), w.start[at].copy()
        loop.books.returns, loop.books.lengths = w.returns[at].copy(), w.elapsed[at].copy()


def stacked(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return arrays of one shape as one [K, ...]: a copy, of a single one a view."""
    return parts[0][None] if len(parts) == 1 else np.stack(parts)


def taken_apart(runs: list[CompiledRun], memory: Any, ended: Any, done: np.ndarray) -> list[Played]:
    """Return the part of each run [K] in what a call has done; several have learned in copies."""
    if len(runs) > 1:
        for j, run in enumerate(runs):
            for own, part in zip(run.agent.arrays, memory, strict=True):
                own[...] = part[j]
    return [
        (run, taken, [x[j, :over] for x in ended])
        for j, (run, (taken, over)) in enumerate(zip(runs, done.tolist(), strict=True))
    ]


def no_table(agent: Any) -> str:
    """Return that an agent is none whose turns are compiled, or ""."""
    own = ALGORITHMS.get(type(agent), ())
    known = own and getattr(agent, "learn_step", None) in (*own, learn_nothing)
    return "" if known else f"{type(agent).__name__} is no tabular agent"


def greedy_player(agent: Any) -> TabularAgent:
    """Return a copy that plays the agent's very table greedily, and changes nothing of it."""
    player: Any = copy.copy(agent)
    player.options = agent.options._replace(kind=GREEDY, off_policy=False, grows=False)
    player.learn_step, player.rng = learn_nothing, np.random.default_rng(0)  # never drawn from
    return player


def compiled_turns(loop: Any) -> tuple[CompiledTurns | None, str]:
    """Return what plays an Interaction's turns compiled, or None; and why."""
    agent = loop.agent
    if no_table(agent):
        return None, no_table(agent)
    if not isinstance(loop.envs, Serial):
        return None, f"{type(loop.envs).__name__} environments are stepped"
    if loop.learning and loop.max_episode_steps is not None:
        return None, "the loop itself cuts episodes"
    envs: list[Any] = loop.envs.envs
    models = [finite_model(env) for env in envs]
    if models[0] is None or any(len(time_limits(env)) > 1 for env in envs):
        return None, "the environment publishes no model that can be compiled"
    if not all(m and all(map(np.array_equal, m, models[0])) for m in models[1:]):
        return None, "the environments have different models"
    problem = objection(agent, envs, models[0])
    if problem:
        return None, problem
    return CompiledTurns(loop, envs, models[0]), "tabular agent on a finite model"


def objection(agent: Any, envs: list[Any], model: Model) -> str:
    """Return why turns of a tabular agent on a model cannot be compiled, or ""."""
    states, actions = model.outcomes.shape
    fits = agent.index.space == Discrete(states) and agent.q.shape[1] == actions
    if not fits or agent._shift:
        return "the table's states and actions are not those of the model, counted from 0"
    if any(env.render_mode is not None for env in envs):
        return "the environment is drawn"
    if len({time_limit(env) for env in envs}) > 1:
        return "the environments have different time limits"
    rngs = [agent.rng, *(env.unwrapped.np_random for env in envs)]
    if any(type(rng.bit_generator) is not np.random.PCG64 for rng in rngs):
        return "random numbers of another kind than PCG64"
    return ""
