"""Conformance of the loop: every way of putting environments side by side, every end of episodes,
every tabular agent, against a scalar reference that steps plain environments one by one."""

import re
import signal
from functools import partial
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import EpsilonGreedy, QLearning
from seqrl.core import Decision, Transition, UsageError, tree
from seqrl.envs import FiniteMDP, Serial, adapt, make
from seqrl.training import Interaction, evaluate, train
from seqrl.training.loop import interaction
from seqrl.training.runs.checkpoint import digest

ENDS = {
    "terminated": [(3, True, False)],
    "truncated": [(3, False, True)],
    "both": [(3, True, True)],
    "one step": [(1, True, False), (1, False, True), (1, True, True)],
    "mixed": [(1, True, False), (4, False, True), (2, True, True), (5, True, False)],
}
MIXED = ENDS["mixed"]
ASYNC = ["async NextStep", "async SameStep", "async Disabled"]
script = pytest.mark.parametrize("script", ENDS.values(), ids=ENDS)


def policy(obs):
    """An action for each row, from the first number seen in it."""
    first = next(tree.leaves(obs))
    return (first.reshape(len(first), -1)[:, 0].astype(int) * 7 + 1) % 3


class Recording:
    """Keeps every turn; its memory counts the steps since the episode began."""

    horizon = None

    def __init__(self):
        self.turns = []

    def act(self, obs, start, state=None, *, explore=True):
        state = np.zeros(len(start), int) if state is None else state
        return Decision(policy(obs), np.where(start, 0, state) + 1)

    def learn(self, step):
        self.turns.append(step)
        return {}

    def rows(self):
        """(row, transition) of all valid rows in the order in which they were learned."""
        return [
            (i, Transition(*(tree.take(part, i) for part in turn[:-1])))
            for turn in self.turns
            for i in np.flatnonzero(turn.valid)
        ]


def scalar_loop(envs, act, filler):
    """What a policy does in plain environments, turn by turn: lists of N transitions.

    With `filler` the turn after an episode's end only resets, else the reset follows at once.
    """
    obs = [env.reset()[0] for env in envs]
    start, waits = [True] * len(envs), [False] * len(envs)
    while True:
        turn = []
        for i, (env, decided) in enumerate(zip(envs, act(obs, start), strict=True)):
            action, log_prob = decided
            after, reward, terminated, truncated = obs[i], 0, False, False
            if not waits[i]:
                after, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            row = (obs[i], start[i], None, None, action, log_prob, reward, terminated, truncated)
            turn.append(Transition(*row, after, not waits[i]))
            fresh = waits[i] or (over and not filler)
            obs[i] = env.reset()[0] if fresh else after
            start[i], waits[i] = fresh, over and filler
        yield turn


def same_tree(a, b):
    return all(tree.leaves(tree.map(np.array_equal, a, b)))


def reference_agent(agent, envs, steps, filler):
    """The agent after `steps` env steps of the scalar loop."""

    def act(obs, start):
        decision = agent.act(np.array(obs), np.array(start))
        log_prob = decision.log_prob
        log_prob = [None] * len(envs) if log_prob is None else log_prob.tolist()
        return zip(decision.action.tolist(), log_prob, strict=True)

    for turn in scalar_loop(envs, act, filler):
        columns = dict(zip(Transition._fields, zip(*turn, strict=True), strict=True))
        step = Transition(
            **{name: None if x[0] is None else np.array(x) for name, x in columns.items()}
        )
        room = steps - agent.steps
        agent.learn(step._replace(valid=step.valid & (step.valid.cumsum() <= room)))
        if agent.steps == steps:
            return agent


def rotated(counting, script, n, **options):
    return [partial(counting, script, row, **options) for row in range(n)]


def bits(loop):
    """Everything that two equal runs have in common, and the books beside it."""
    rows = [
        loop.obs,
        loop.start,
        loop.books.returns,
        loop.books.lengths,
        list(map(list, loop.books.recent)),
    ]
    return digest([loop.fingerprint(), rows])


@script
@pytest.mark.parametrize("view", ["discrete", "nested"])
def test_transitions_are_those_of_a_scalar_loop(counting, arrange, layout, script, view):
    check_transitions(counting, arrange, layout, script, view)


@pytest.mark.parametrize("layout", ASYNC)
def test_transitions_of_processes(counting, arrange, layout):
    check_transitions(counting, arrange, layout, MIXED, "nested")


def check_transitions(counting, arrange, layout, script, view):
    makers = rotated(counting, script, 1 if layout == "single" else 3, view=view)
    agent = Recording()
    loop = Interaction(agent, arrange(layout, makers))
    loop.run(40)
    learned = agent.rows()
    assert len(learned) == loop.steps == 40
    for row, make_env in enumerate(makers):
        one = scalar_loop([make_env()], lambda obs, _: [(policy_of(obs[0]), None)], False)
        mine = [step for i, step in learned if i == row]
        assert len(mine) >= 40 // len(makers) // 2
        memory = 0
        for got, (wanted,) in zip(mine, one, strict=False):
            for name in ("obs", "start", "action", "reward", "terminated", "truncated", "next_obs"):
                assert same_tree(getattr(wanted, name), getattr(got, name)), name
            memory = 1 if wanted.start else memory + 1
            assert got.next_state == memory
            assert wanted.start or got.state == memory - 1


def policy_of(obs):
    return int(policy(tree.map(lambda leaf: np.asarray(leaf)[None], sorted_keys(obs)))[0])


def sorted_keys(obs):
    return dict(sorted(obs.items())) if isinstance(obs, dict) else obs


def test_a_native_vector_gives_its_own_transitions_without_the_filler():
    envs = make("CartPole-v1", 3, max_episode_steps=9)
    agent = Recording()
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(4))
    loop.run(200)

    native = "vector_entry_point"
    raw = gym.make_vec("CartPole-v1", 3, native, max_episode_steps=9)
    obs, _ = raw.reset(seed=envs.seeds[0])
    waits, expected, ends = np.zeros(3, bool), [], {"terminated": 0, "truncated": 0}
    while len(expected) < 200:
        action = policy(obs)
        after, reward, terminated, truncated, _ = raw.step(action)
        for i in np.flatnonzero(~waits):
            row = (obs, action, reward, terminated, truncated, after)
            expected.append((i, *(part[i] for part in row)))
        ends["terminated"] += terminated.sum()
        ends["truncated"] += truncated.sum()
        obs, waits = after, terminated | truncated
    assert min(ends.values()) > 0  # both happen
    names = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
    for (i, step), (row, *wanted) in zip(agent.rows(), expected[:200], strict=True):
        assert i == row
        for name, part in zip(names, wanted, strict=True):
            np.testing.assert_array_equal(getattr(step, name), part, err_msg=name)


@script
def test_agents_learn_what_a_scalar_loop_teaches(counting, arrange, layout, script, new_agent):
    makers = rotated(counting, script, 1 if layout == "single" else 3)
    envs = arrange(layout, makers)
    agent = new_agent(makers[0]().observation_space, makers[0]().action_space)
    loop = Interaction(agent, envs)
    loop.run(71)  # no multiple of 3
    plain = new_agent(makers[0]().observation_space, makers[0]().action_space)
    plain.horizon = 71
    reference_agent(plain, [make() for make in makers], 71, layout == "sync NextStep")
    assert agent.steps == loop.steps == 71
    assert np.ptp(agent.q) > 1
    ours, wanted = agent.state_dict(), plain.state_dict()
    assert digest(ours) == digest(wanted)


@pytest.mark.parametrize(
    ("terminated", "truncated", "tails"),
    [(True, False, (0, 0)), (False, True, (2.5, 17.5)), (True, True, (0, 0))],
    ids=["terminated", "truncated", "both"],
)
def test_only_a_truncation_bootstraps(
    counting, arrange, layout, new_agent, terminated, truncated, tails
):
    """Two episodes of one step, worked out by hand.

    Q(s, a) = 3 s + a at first, gamma .5, alpha 1, greedy: action 2 pays 12 in state 0 and 112 in
    state 10. Cut off there, max Q = 5 and 35 of states 1 and 11 count as well, by half.
    """
    envs = arrange(layout, rotated(counting, [(1, terminated, truncated)], 1))
    agent = new_agent(
        gym.spaces.Discrete(40),
        gym.spaces.Discrete(3),
        learning_rate=1.0,
        gamma=0.5,
        exploration=EpsilonGreedy(0.0),
    )
    expected = np.arange(120.0).reshape(40, 3)
    agent.arrays.q[:] = expected
    if agent.options.double:
        agent.arrays.twins[:] = expected
    loop = Interaction(agent, envs)
    loop.run(2)
    for state, reward, tail in ((0, 12, tails[0]), (10, 112, tails[1])):
        old = expected[state, 2] if agent.options.double else reward + tail
        expected[state, 2] = (reward + tail + old) / 2  # of two tables one has moved
    np.testing.assert_array_equal(agent.q, expected)
    assert agent.steps == loop.steps == loop.books.episodes == 2
    assert list(loop.books.recent) == [(12, 1), (112, 1)]


def test_a_run_takes_exactly_the_steps_asked_and_goes_on_with_the_surplus(
    counting, arrange, layout
):
    parts = (1, 1, 5, 2, 7, 4, 3)
    whole, agent = Recording(), Recording()
    n = 1 if layout == "single" else 3
    Interaction(whole, arrange(layout, rotated(counting, MIXED, n))).run(sum(parts))
    loop = Interaction(agent, arrange(layout, rotated(counting, MIXED, n)))
    done = 0
    for part in parts:
        loop.run(part)
        done += part
        assert loop.steps == done == sum(int(turn.valid.sum()) for turn in agent.turns)
    assert len(whole.rows()) == done
    for (i, got), (j, wanted) in zip(agent.rows(), whole.rows(), strict=True):
        assert i == j
        assert same_tree(outcome_of(wanted), outcome_of(got))


def test_an_abandoned_episode_is_forgotten(counting, layout, arrange, new_agent):
    """Nothing of it waits or is credited once another has begun."""
    envs = arrange(layout, rotated(counting, [(9, True, False)], 1))
    agent = new_agent(gym.spaces.Discrete(40), gym.spaces.Discrete(3))
    loop = Interaction(agent, envs)
    loop.run(2)
    loop.reset()
    loop.run(1)
    assert agent.arrays.waiting[0] <= 1
    assert (agent.arrays.trace[0] != 0).sum() <= 1
    assert loop.books.lengths.tolist() == [1] and loop.books.episodes == 0


def test_a_reset_drops_the_surplus_and_the_memory(counting, arrange):
    agent = Recording()
    loop = Interaction(agent, arrange("serial", rotated(counting, MIXED, 3)))
    loop.run(4)  # two rows of the second turn are left over
    loop.reset()
    loop.run(3)
    assert [int(turn.valid.sum()) for turn in agent.turns] == [3, 1, 3]
    assert agent.turns[-1].start.all() and agent.turns[-1].state is None


class Listener:
    def __init__(self):
        self.heard = []

    def episode(self, loop, episode):
        self.heard.append(episode)


def test_episodes_are_reported_at_the_env_step_of_their_own_row(counting, arrange):
    makers = [partial(counting, [(length, True, False)]) for length in (2, 3, 1)]
    listener = Listener()
    loop = Interaction(Recording(), arrange("serial", makers), recorder=listener)
    loop.run(8)  # turns end at 3, 6, 8: row 2 is left over
    assert [(e.step, e.env, e.length) for e in listener.heard] == [
        (3, 2, 1),
        (4, 0, 2),
        (6, 2, 1),
        (8, 1, 3),
    ]
    loop.run(1)
    assert listener.heard[-1][:2] == (9, 2)
    # row 0: 10 + a, 20 + a; the policy's actions in states 0 and 1 are 1 and 2
    assert listener.heard[1].total == 11 + 22
    assert loop.books.episodes == 5 and not loop.stopped


def test_an_episode_counts_as_cut_only_where_it_is_not_over(counting, arrange, layout):
    listener = Listener()
    envs = arrange(layout, rotated(counting, ENDS["one step"], 1))
    Interaction(Recording(), envs, recorder=listener).run(3)
    assert [e.truncated for e in listener.heard] == [False, True, False]


class FirstBit(Recording):
    """Says the first of two bits."""

    def act(self, obs, start, state=None, *, explore=True):
        return Decision(obs[:, 0].astype(int))


class AtOnce(Listener):
    """One that takes what ends before its next point at once."""

    def __init__(self, spacing):
        super().__init__()
        self.due = self.spacing = spacing
        self.calls = 0

    def episodes(self, steps, totals, lengths):
        assert len(steps) and (steps < self.due).all()
        self.calls += 1
        rows = zip(steps.tolist(), totals.tolist(), lengths.tolist(), strict=True)
        self.heard += [(*row, None) for row in rows]

    def episode(self, loop, episode):
        seen = None
        if episode.step >= self.due:
            self.due = (episode.step // self.spacing + 1) * self.spacing
            seen = loop.books.ep_rew_mean, loop.books.episodes
        self.heard.append((episode.step, episode.total, episode.length, seen))


def test_episodes_that_end_in_one_turn_are_told_at_once_as_one_by_one(monkeypatch):
    """Twenty environments of one step, points at 30, 60, ...: numbers, order, running means."""
    heard, calls = [], []
    for many in (interaction.MANY, 1000):
        monkeypatch.setattr(interaction, "MANY", many)
        listener = AtOnce(30)
        envs = make("seqrl/Gates-v0", num_envs=20)
        loop = Interaction(FirstBit(), envs, recorder=listener)
        loop.reset(np.random.SeedSequence(0))
        loop.run(207)
        heard.append(listener.heard)
        calls.append(listener.calls)
    assert heard[0] == heard[1] and len(heard[0]) == 207
    assert calls[0] > 0 and calls[1] == 0
    assert heard[0][29][0] == 30 and heard[0][29][3][1] == 30 and heard[0][28][3] is None


class Noting:
    def __init__(self, every):
        self.every, self.called = every, []

    def __call__(self, loop):
        self.called.append(loop.steps)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_callbacks_come_at_the_first_turn_end_that_reaches_a_multiple(counting, arrange):
    four, seven = Noting(4), Noting(7)
    envs = arrange("serial", rotated(counting, MIXED, 3))
    loop = Interaction(Recording(), envs, callbacks=[four, seven])
    loop.run(10)  # turns end at 3, 6, 9, 10
    loop.run(2)
    loop.run(10)  # 15, 18, 21, 22
    assert four.called == [6, 9, 12, 18, 21]
    assert seven.called == [9, 15, 21]
    assert loop.steps == 22


def test_two_multiples_in_one_turn_are_one_call(counting, arrange):
    two = Noting(2)
    envs = arrange("serial", rotated(counting, MIXED, 5))
    Interaction(Recording(), envs, callbacks=[two]).run(15)
    assert two.called == [5, 10, 15]


WHERE = ["envs.step", "agent.act", "agent.learn", "recorder.episode"]


def interrupt_in(loop, where, times=1):
    """Let Ctrl-C be pressed when a method of the loop's parts has been called."""
    part, name = where.split(".")
    method = getattr(getattr(loop, part), name)

    def pressed(*arguments, **options):
        delattr(getattr(loop, part), name)
        found = method(*arguments, **options)
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        return found

    setattr(getattr(loop, part), name, pressed)


@pytest.mark.parametrize("where", WHERE)
def test_an_interrupt_waits_for_the_end_of_the_turn(new_agent, where):
    """Table, counters and environments agree, and the run goes on as if nothing had been."""
    whole, parts = loops_of(new_agent), loops_of(new_agent)
    whole.run(200)
    parts.recorder = Ends()
    parts.run(51)
    interrupt_in(parts, where)
    with pytest.raises(KeyboardInterrupt):
        parts.run(149)
    assert 51 < parts.steps < 200 and parts.steps % 3 == 0
    assert parts.agent.steps == parts.steps
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    parts.run(200 - parts.steps)
    assert bits(parts) == bits(whole)


def test_a_second_interrupt_is_raised_at_once(new_agent):
    loop = loops_of(new_agent)
    interrupt_in(loop, "agent.learn", times=2)
    with pytest.raises(KeyboardInterrupt):
        loop.run(30)
    assert (loop.steps, loop.agent.steps) == (0, 3)


class Pressed(Noting):
    """Plays a loop of its own; the first time Ctrl-C is pressed in one of its turns."""

    def __call__(self, loop):
        inner = Interaction(loop.agent, make("FrozenLake-v1"), learn=False)
        if not self.called:
            super().__call__(loop)
            interrupt_in(inner, "envs.step")
        inner.run(5)
        super().__call__(loop)


def test_an_interrupt_in_a_callback_is_raised_at_once_and_the_callback_called_again(new_agent):
    loop = loops_of(new_agent)
    loop.callbacks = [pressed, noting] = [Pressed(6), Noting(6)]
    with pytest.raises(KeyboardInterrupt):
        loop.run(30)
    assert (loop.steps, pressed.called, noting.called) == (6, [6], [])
    loop.run(6)
    assert (pressed.called, noting.called) == ([6, 6, 12], [6, 12])


def test_another_handler_of_ctrl_c_is_left_in_place(new_agent):
    loop, pressed = loops_of(new_agent), []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        interrupt_in(loop, "agent.learn")
        loop.run(30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT] and loop.steps == 30


def test_metrics_in_a_mapping_that_is_used_again_are_read_again(counting):
    class Counter(Recording):
        metrics: ClassVar[dict[str, float]] = {}

        def learn(self, step):
            self.metrics["turns"] = self.metrics.get("turns", 0.0) + 1
            return self.metrics

    loop = Interaction(Counter(), counting(MIXED))
    loop.run(5)
    assert loop.metrics == {"turns": 5.0}


@pytest.mark.parametrize("every", [0, -5, 2.5, None])
def test_a_callback_that_would_never_be_due_is_refused(counting, arrange, every):
    envs = arrange("serial", rotated(counting, MIXED, 1))
    with pytest.raises(UsageError, match=r"Noting\.every .* at least 1"):
        Interaction(Recording(), envs, callbacks=[Noting(every)]).run(1)


def a_function(loop):
    pass


class Forgetful:
    def __call__(self, loop):
        pass


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([Forgetful()], "Forgetful.every None: expected a whole number of env steps"),
        ([Noting], "callback Noting: expected an object to call"),
        ([None], "callback NoneType: expected an object to call"),
        (a_function, "callbacks function: expected a list"),
        (Noting(2), "callbacks Noting: expected a list"),
        (None, "callbacks NoneType: expected a list"),
    ],
)
def test_what_is_no_callback_is_refused_in_a_line(callbacks, message):
    envs = make("FrozenLake-v1")
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    with pytest.raises(UsageError, match=message):
        train(agent, envs, 10, callbacks=callbacks)
    assert agent.steps == 0


class NoInstance:
    def scalar(self, tag, value, step):
        raise NotImplementedError


@pytest.mark.parametrize("logger", [a_function, print, Noting(2), "runs/mine", NoInstance])
def test_what_is_no_logger_is_refused_in_a_line(logger):
    envs = make("FrozenLake-v1")
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    with pytest.raises(UsageError, match="has no begin, episode, flush: expected a TensorBoard"):
        train(agent, envs, 10, logger=logger)


def test_a_function_with_an_interval_is_a_callback():
    """It keeps nothing, so that the loop can be saved all the same."""
    envs, called = make("FrozenLake-v1"), []

    def note(loop):
        called.append(loop.steps)

    note.every = 4
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    loop = Interaction(agent, envs, callbacks=[note])
    loop.run(8)
    assert called == [4, 8] and loop.state_dict()["callbacks"] == []


def test_a_plain_function_is_called_every_thousand_env_steps(counting):
    called = []

    def note(loop):
        called.append(loop.steps)

    def note_in(notes, loop):
        notes.append(loop.steps)

    both = [note, partial(note_in, called), lambda loop: called.append(-loop.steps)]
    train(Recording(), counting([(3, True, False)]), 2_500, callbacks=both)
    assert called == [1_000, 1_000, -1_000, 2_000, 2_000, -2_000]


@pytest.mark.parametrize("steps", [1_000, 100_000], ids=["stepped", "compiled"])
def test_what_a_callback_raises_comes_out_as_it_is(steps):
    class Pruned(Exception):
        pass

    class Pruning(Noting):
        def __call__(self, loop):
            if loop.steps >= 300:
                raise Pruned

    envs = make("FrozenLake-v1")
    spaces = envs.single_observation_space, envs.single_action_space
    agents = [QLearning(*spaces, seed=0) for _ in range(3)]
    with pytest.raises(Pruned):
        train(agents[0], envs, steps, seed=0, callbacks=[Pruning(100)])
    assert agents[0].steps == 300
    train(agents[1], envs, 1_000, seed=0)
    train(agents[2], make("FrozenLake-v1"), 1_000, seed=0)
    assert np.array_equal(agents[1].q, agents[2].q)


def test_a_filler_turn_calls_nobody_twice(counting, arrange):
    two = Noting(2)
    envs = arrange("sync NextStep", rotated(counting, [(2, True, False)], 1))
    Interaction(Recording(), envs, callbacks=[two]).run(6)
    assert two.called == [2, 4, 6]


def test_episodes_end_a_run_after_the_turn_in_which_they_are_over(counting):
    agent = Recording()
    found = train(agent, counting([(3, True, False)]), 100, episodes=2)
    assert (found["steps"], found["episodes"]) == (6, 2)


def outcome_of(step):
    """A transition without memory; gym's time limit also cuts what is over, which says no more."""
    return step._replace(state=None, truncated=step.truncated & ~step.terminated)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_loop_cuts_as_a_time_limit_does(counting, arrange, layout, limit):
    ours, theirs = Recording(), Recording()
    makers = rotated(counting, MIXED, 1)
    cut = Interaction(ours, arrange(layout, makers), max_episode_steps=limit)
    cut.run(30)
    Interaction(theirs, gym.wrappers.TimeLimit(makers[0](), limit)).run(30)
    for (_, got), (_, wanted) in zip(ours.rows(), theirs.rows(), strict=True):
        assert same_tree(outcome_of(wanted), outcome_of(got))
    assert max(length for _, length in cut.books.recent) == limit


class Ends:
    """Hears of episodes, and keeps nothing."""

    def episode(self, loop, episode):
        pass


def loops_of(new_agent, env="FrozenLake-v1", n=3):
    envs = make(env, n)
    agent = new_agent(envs.single_observation_space, envs.single_action_space)
    agent.horizon = 200
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(1))
    return loop


def test_evaluation_changes_nothing(new_agent):
    loop, other = loops_of(new_agent), loops_of(new_agent)
    loop.run(100)
    other.run(100)
    before = bits(loop)
    global_state = np.random.get_state()[1].tobytes()
    evaluate(loop.agent, make("FrozenLake-v1", 4), 5, seed=3)
    assert bits(loop) == before
    assert np.random.get_state()[1].tobytes() == global_state
    loop.run(100)
    other.run(100)
    assert bits(loop) == bits(other)


def test_each_environment_plays_its_share(counting, arrange, layout):
    lengths = (1, 7, 3)
    makers = [partial(counting, [(length, True, False)]) for length in lengths]
    found = evaluate(Recording(), arrange(layout, makers), 8)
    shares = {1: 8} if layout == "single" else {1: 3, 7: 3, 3: 2}
    counted = dict(zip(*np.unique(found.lengths, return_counts=True), strict=True))
    assert counted == shares
    assert not found.truncated.any()


def test_fewer_episodes_than_environments(counting, arrange, layout):
    makers = rotated(counting, [(2, True, False)], 1 if layout == "single" else 3)
    assert len(evaluate(Recording(), arrange(layout, makers), 1).returns) == 1


def test_evaluation_cuts_at_the_limit_and_counts(counting, arrange, layout):
    makers = [partial(counting, [(length, True, False)]) for length in (50, 4, 3)]
    n = 1 if layout == "single" else 3
    found = evaluate(Recording(), arrange(layout, makers[:n]), 2 * n, max_episode_steps=4)
    expected = [4, 4] if n == 1 else [3, 3, 4, 4, 4, 4]
    assert sorted(found.lengths) == expected
    assert found.truncated.sum() == 2  # the one that is over at step 4 was not cut
    assert found.truncated[found.lengths == 3].sum() == 0


def test_a_greedy_policy_brings_the_same_however_it_is_laid_out(arrange):
    envs = make("FrozenLake-v1")
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    train(agent, envs, 3000, seed=0)
    seen = []
    for layout in ("serial", "sync NextStep", "sync SameStep", "sync Disabled", "async SameStep"):
        several = arrange(layout, [partial(gym.make, "FrozenLake-v1")] * 3)
        found = evaluate(agent, several, 12, seed=5)
        seen.append(sorted(zip(found.returns, found.lengths, strict=True)))
    assert all(episodes == seen[0] for episodes in seen)
    assert len({length for _, length in seen[0]}) > 3


def test_adapting_twice_is_adapting_once(counting):
    envs = adapt(counting(MIXED))
    assert adapt(envs) is envs


# ---- episodes that grow long

NEVER = 10**9


class Blind(gym.Env):
    """Shows nothing; its episodes are as long as listed, one after the other."""

    observation_space, action_space = gym.spaces.Discrete(1), gym.spaces.Discrete(2)

    def __init__(self, lengths):
        self.lengths = iter(lengths)

    def reset(self, *, seed=None, options=None):
        self.left = next(self.lengths)
        return 0, {}

    def step(self, action):
        self.left -= 1
        return 0, 1.0, self.left == 0, False, {}


def told(caplog, lengths, steps, *, envs=1, **options):
    """What the logger says in a run whose episodes have these lengths; 50 steps are long."""
    loop = Interaction(Still(), Serial([Blind(lengths) for _ in range(envs)]), **options)
    loop.run(steps)
    return [record.getMessage() for record in caplog.records]


class Still:
    """An agent that learns nothing."""

    gamma, horizon, learner, device = 1.0, None, "", "cpu"

    def act(self, obs, start, state=None, *, explore=True):
        return Decision(np.zeros(len(start), int))

    def learn(self, step):
        return {}


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("seqrl.training.loop.long_episodes.LONG", 50)


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("before", [0, 99])
def test_an_episode_without_an_end_is_told_once_when_it_has_grown_long(caplog, short, before, envs):
    (said,) = told(caplog, [2] * before + [NEVER], 900 * envs, envs=envs)
    assert re.match(r"seqrl: an episode has taken \d+ env steps without an end and no step", said)
    assert 50 <= int(re.search(r"taken (\d+)", said)[1]) < 200


def test_where_all_episodes_end_or_are_cut_nothing_is_told(caplog, short):
    assert not told(caplog, [40] * 99, 2000)
    assert not told(caplog, [NEVER] * 99, 2000, max_episode_steps=70)
    assert not told(caplog, [NEVER], 49)


def test_compiled_turns_tell_of_long_episodes_too(caplog):
    env = FiniteMDP({0: {0: [(1.0, 0, 0.0, False)]}}, [1.0])
    loop = Interaction(QLearning(env.observation_space, env.action_space, seed=0), env)
    loop.run(100_000)
    said = [record.getMessage() for record in caplog.records if "no step" in record.getMessage()]
    assert loop.compiled and said == [
        "seqrl: an episode has taken 10,000 env steps without an end and no step limit is known; "
        "--max-episode-steps 1000 (max_episode_steps of make) would cut it"
    ]


def test_schedules_run_over_each_call_of_train():
    """Half-way through a call epsilon is half-way, whatever was played before."""
    envs = make("FrozenLake-v1")
    spaces = envs.single_observation_space, envs.single_action_space
    agent = QLearning(*spaces, exploration=EpsilonGreedy("linear:1:0"), seed=0)
    for steps in (100, 400, 60):
        rates = []

        def note(loop, rates=rates):
            rates.append(loop.agent.last_metrics["rollout/exploration_rate"]())

        note.every = steps // 2
        train(agent, envs, steps, seed=0, callbacks=[note])
        assert rates == [0.5, 0.0]
        assert agent.horizon == steps
