"""When a tabular agent plays a finite model, the loop can run compiled; here that is noticed.

`native(loop)` looks at agent and environments and gives what runs their turns, or the reason why
they are stepped. Both ways give the same bits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Discrete

from seqrl.agents import MonteCarlo, QLearning, Sarsa
from seqrl.envs import Serial
from seqrl.envs.finite import Model, check_unchanged, finite_model, time_limit, time_limits

if TYPE_CHECKING:
    from seqrl.training.interaction import Interaction

CALL = 1 << 20  # env steps a call at most, so that Ctrl-C and the progress bar are not kept waiting
ROOM = 1 << 16  # episodes a call
LOG = logging.getLogger("seqrl")
NEVER = np.iinfo(np.int64).max


class Native:
    """Runs the turns of a loop whose agent and environments allow it."""

    def __init__(self, loop: Interaction, envs: list[Any], model: Model):
        from seqrl.training import compiled

        self.compiled, self.model = compiled, model
        self.envs = [env.unwrapped for env in envs]
        self.clocks: list[list[Any]] = [time_limits(env) for env in envs]
        n = len(self.envs)
        self.world = compiled.World(
            cumulative=model.cumulative,
            next_state=model.next_state,
            reward=model.reward,
            terminated=model.terminated,
            initial=np.cumsum(model.initial),
            limit=self.clocks[0][0]._max_episode_steps if self.clocks[0] else NEVER,
            state=np.zeros(n, np.int64),
            action=np.zeros(n, np.int64),
            elapsed=np.zeros(n, np.int64),
            start=np.zeros(n, bool),
            returns=np.zeros(n),
            chosen=np.zeros(n, np.int64),
            log_prob=np.zeros(n),
        )
        self.words = np.zeros((n + 1, 4), np.uint64)
        kinds = [np.zeros(ROOM + n, kind) for kind in (int, int, float, int, bool)]
        self.ended = compiled.Ended(*kinds)
        self.attach(loop)
        if not compiled.ready():
            LOG.warning("seqrl: compiling the loop, once, about 10 s")
        self._turns(until=0, due=0, room=0)  # none, but what is compiled is loaded

    def attach(self, loop: Interaction) -> None:
        """Run the turns of a loop in these environments, the first one or another."""
        agent: Any = loop.agent
        self.loop, self.agent = loop, agent
        self.algorithm = self.compiled.ALGORITHMS[agent.learn_row]
        agent.prepare(len(self.envs))

    def check(self) -> None:
        """Refuse a model that was changed since it was read."""
        for env in self.envs:
            check_unchanged(env, self.model)

    def advance(self, until: int) -> None:
        """Whole turns while the loop's steps are below `until`, as far as one call goes.

        It comes back early after a turn that gives the recorder its next point or the loop the
        last episode wanted.
        """
        loop, agent = self.loop, self.agent
        self._read()
        due = min(getattr(loop.recorder, "due", NEVER), NEVER)
        wanted = loop.episodes_wanted
        room = ROOM if wanted is None else max(1, min(ROOM, wanted - loop.episodes))
        steps, episodes = self._turns(min(until, loop.steps + CALL), due, room)
        agent.steps += steps
        loop.steps += steps
        self._write()
        loop.record_all(*(part[:episodes] for part in self.ended))
        if not steps:
            agent.make_room(2 * agent.memory.action.shape[1])

    def _turns(self, until: int, due: int, room: int) -> tuple[int, int]:
        """Env steps and episodes done, as `compiled.turns` says."""
        agent, steps = self.agent, self.loop.steps
        return self.compiled.turns(
            self.algorithm,
            agent.memory,
            agent.options,
            self.world,
            self.words,
            *agent.rates,
            agent.steps,
            steps,
            until,
            due,
            self.ended,
            room,
        )

    def _generators(self) -> list[np.random.Generator]:
        return [*(env.np_random for env in self.envs), self.agent.rng]

    def _read(self) -> None:
        """Where environments and random numbers are."""
        for rng, words in zip(self._generators(), self.words, strict=True):
            self.compiled.read_stream(rng, words)
        for i, (env, clocks) in enumerate(zip(self.envs, self.clocks, strict=True)):
            self.world.state[i] = env.s
            self.world.action[i] = -1 if env.lastaction is None else env.lastaction
            self.world.elapsed[i] = clocks[0]._elapsed_steps if clocks else self.loop.lengths[i]
        self.world.start[:] = self.loop.start
        self.world.returns[:] = self.loop.returns

    def _write(self) -> None:
        """Put environments and loop where the compiled turns have come to."""
        w, loop = self.world, self.loop
        for rng, words in zip(self._generators(), self.words, strict=True):
            self.compiled.write_stream(rng, words)
        for i, (env, clocks) in enumerate(zip(self.envs, self.clocks, strict=True)):
            env.s = int(w.state[i])
            env.lastaction = None if w.action[i] < 0 else int(w.action[i])
            if clocks:
                clocks[0]._elapsed_steps = int(w.elapsed[i])
        loop.obs, loop.start = w.state.copy(), w.start.copy()
        loop.returns, loop.lengths = w.returns.copy(), w.elapsed.copy()


def native(loop: Interaction) -> tuple[Native | None, str]:
    """What runs the loop's turns compiled, or None; and why."""
    agent: Any = loop.agent
    if type(agent) not in (QLearning, Sarsa, MonteCarlo):
        return None, f"{type(agent).__name__} is no tabular agent"
    if not isinstance(loop.envs, Serial):
        return None, f"{type(loop.envs).__name__} environments are stepped"
    if loop.max_episode_steps is not None:
        return None, "the loop itself cuts episodes"
    envs: list[Any] = loop.envs.envs
    models = [finite_model(env) for env in envs]
    if models[0] is None or any(len(time_limits(env)) > 1 for env in envs):
        return None, "the environment publishes no model that can be compiled"
    if not all(m is not None and equal(m, models[0]) for m in models[1:]):
        return None, "the environments have different models"
    problem = objection(agent, envs, models[0])
    if problem:
        return None, problem
    return Native(loop, envs, models[0]), "tabular agent on a finite model"


def objection(agent: Any, envs: list[Any], model: Model) -> str:
    """What speaks against compiling turns of a tabular agent on a model, or nothing."""
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


def equal(one: Model, other: Model) -> bool:
    """Whether two models are the same to the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
