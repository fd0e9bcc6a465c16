"""The doctor finds every planted fault by name and says nothing of healthy pairs."""

import re
import subprocess
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from seqrl.envs import adapt
from seqrl.envs import env_check as checkup
from seqrl.networks.diagnosis.vital_signs import column_size
from seqrl.scripts import command, doctor
from seqrl.training.runs import speed as measure_speed

HEALTHY = [
    "--agent q-learning --env FrozenLake-v1",
    "--agent monte-carlo --env Blackjack-v1",
    "--agent reinforce --env CartPole-v1 --network mlp",
    "--agent reinforce --env seqrl/RepeatFirst-v0 --network lstm",
    "--agent reinforce --env seqrl/Catch-v0 --network cnn",
    "--agent sarsa --env CliffWalking-v1 --max-episode-steps 200",
]

MODULE = '''
import random, time
import gymnasium as gym, numpy as np, torch
from gymnasium import spaces
from torch import nn
from seqrl.networks import Network

class Walk(gym.Env):
    """A point on a line, pushed left or right; one thing is wrong with it, or none."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-9, 9, (2,), np.float32)

    def __init__(self, fault=""):
        self.fault, self.rng, self.buffer = fault, np.random.default_rng(), np.zeros(2, np.float32)
        self.own, self.at, self.t, self.pushed = np.random.default_rng(0), 0.0, 0, 0.0
        if fault == "actions":
            self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        if fault == "scale":
            self.observation_space = spaces.Box(-9000, 9000, (2,), np.float32)
        if fault == "image":
            self.observation_space = spaces.Box(0, 255, (8, 8, 1), np.float32)

    def see(self):
        obs = np.array([self.at, min(self.t, 9) / 9], np.float32)
        if self.fault == "nan seen" and self.t == 4:
            obs[0] = np.nan
        if self.fault == "outside" and self.t == 4:
            obs[0] = 77.0
        if self.fault == "kind":
            obs = obs.astype(np.float64)
        if self.fault == "scale":
            obs *= 900
        if self.fault == "image":
            obs = np.full((8, 8, 1), 100 + obs[0], np.float32)
        if self.fault == "buffer":
            self.buffer[:] = obs
            return self.buffer
        return obs

    def reset(self, *, seed=None, options=None):
        if self.fault != "unseeded start":
            super().reset(seed=seed)
        self.at, self.t = self.draw(), 0
        self.pushed *= self.fault == "kept"
        return self.see() if self.fault == "old reset" else (self.see(), {})

    def draw(self):
        draws = {
            "global": np.random.random, "python": random.random, "clock": time.perf_counter,
            "unseeded": self.rng.random, "own": self.own.random,
        }
        return draws.get(self.fault, self.np_random.random)() % 1

    def step(self, action):
        if self.fault == "raises" and self.t == 3:
            raise ZeroDivisionError("division by zero")
        self.t += 1
        self.pushed += 0.1
        self.at = float(np.clip(self.at + 2 * (np.ravel(action)[0] > 0) - 1, -8, 8))
        reward = self.at + self.pushed * (self.fault == "kept")
        reward = {"nan": np.nan, "none": None, "flat": 0.0}.get(self.fault, reward)
        reward *= 1e6 if self.fault == "large" else 1
        over = self.t >= 9 and self.fault != "endless"
        return self.see(), reward, over, False, {}

gym.register("Walk-v0", Walk, max_episode_steps=50)
gym.register("Endless-v0", Walk)

class Plain(nn.Module):
    def __init__(self, first, *rest):
        super().__init__()
        self.layers = nn.Sequential(first, *rest)

    def forward(self, obs):
        return self.layers(obs)

class Healthy(Plain):
    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())

class Dead(Plain):
    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.ReLU())
        nn.init.constant_(self.layers[0].bias, -100.0)

class Deep(Plain):
    def __init__(self):
        parts = [nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()) for _ in range(7)]
        super().__init__(nn.Linear(2, 8), *parts)

class Detached(Healthy):
    def forward(self, obs):
        return self.layers[2:](self.layers[:2](obs).detach())

class Cut(Healthy):
    def forward(self, obs):
        return self.layers(obs).detach()

class Unused(Healthy):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(3, 3)

class Root(Plain):
    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.Tanh())

    def forward(self, obs):
        return self.layers(obs.sqrt())

class Weight(Healthy):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.layers[2].weight, float("nan"))

class Logarithm(nn.Module):
    def forward(self, x):
        return (x - 100).log()

class Inner(Healthy):
    def __init__(self):
        super().__init__()
        self.layers.insert(2, Logarithm())

class Scaling(Healthy):
    def forward(self, obs):
        return self.layers(obs / 900)

class Elman(Network):
    """h = gain h + W x; what is wrong with its memory is named."""

    def __init__(self, fault="", gain=0.5):
        super().__init__()
        self.features, self.fault, self.gain = 4 + (fault == "width"), fault, gain
        self.layer = nn.Linear(2, 4)

    def initial_state(self, n):
        return torch.zeros(n, 4)

    def forward(self, obs, start, state=None):
        state, out = self.initial_state(start.shape[1]) if state is None else state, []
        for t in range(len(start)):
            if self.fault != "forgets nothing":
                state = state * ~start[t][:, None]
            state = self.gain * state + self.layer(obs[t])
            out.append(state)
        seen = torch.stack(out)
        return (seen.mean(0, keepdim=True) + seen if self.fault == "looks ahead" else seen), state
'''

ENVIRONMENTS = {  # what is found, and the remedy
    "nan seen": ("observation.*nan.* is not finite", "divided by 0"),
    "nan": ("reward nan at random step 1", "0/0"),
    "none": ("fails after 0 random steps: TypeError", "reset or step"),
    "raises": ("fails after 3 random steps: ZeroDivisionError", "reset or step"),
    "old reset": ("fails after 0 random steps", r"reset returns \(obs, info\)"),
    "outside": ("observation .*77.* is not of Box", "np.clip"),
    "kind": (r"is not of Box.*\(float64\)", "astype"),
    "buffer": ("one observation buffer", r"obs.copy\(\)"),
    "global": ("draws from np.random", "self.np_random"),
    "python": ("draws from Python's random", "self.np_random"),
    "clock": ("same seed in two environments gives another rollout from step 0", "no clock"),
    "unseeded": ("same seed in two environments", r"super\(\).reset\(seed=seed\)"),
    "unseeded start": ("same seed in two environments", r"super\(\).reset\(seed=seed\)"),
    "own": (r"reset\(seed=0\) once more gives another rollout from step 0", "self.np_random"),
    "kept": (r"reset\(seed=0\) once more gives another rollout from step 1", "every field anew"),
    "actions": (r"action space Box\(-inf, inf.* has no bounds", r"Box\(-1, 1"),
    "flat": ("every reward was 0 and every episode's return 0", "explore longer"),
    "large": (r"rewards reach \d", "TransformReward"),
    "scale": ("not normalised: the first layer gets numbers around", "normalize=True"),
}

NETWORKS = {
    "Dead": ("dead: 100% of the network's features", "layer_norm"),
    "Deep": ("dead gradients: none arrives at .*layers.0.weight", "fewer layers"),
    "Detached": ("dead gradients: none arrives at .*layers.0.weight$", "detach"),
    "Cut": ("dead gradients: none arrives at .*layers.0.weight, .*layers.2", "detach"),
    "Unused": ("dead gradients: none arrives at .*spare.weight$", "not used"),
    "Root": (
        r"Root gives NaN or infinity on what was seen, first module \(Root\)",
        "above 1e-8",
    ),
    "Weight": ("expected finite floats", "first from its weight module.layers.2.weight"),
    "Inner": ("expected finite floats", r"first from module.layers.2 \(Logarithm\)"),
    "Elman fault='forgets nothing'": ("network Elman: ", "plug_your_network"),
    "Elman fault='looks ahead'": ("network Elman: ", "plug_your_network"),
    "Elman fault='width'": ("network Elman: .*set its attribute `features` to 4", "plug_your"),
    "Elman gain=9.0": ("exploding gradients: .* most in layer.weight", "lstm or gru"),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with the planted faults as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(measure_speed, "SECONDS", 0.05)
    monkeypatch.setattr(measure_speed, "MAX_SECONDS", 60.0)  # on a busy machine as well
    monkeypatch.setattr(checkup, "play", partial(checkup.play, seconds=60.0))
    (tmp_path / "planted.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("planted", None)
    for name in ("Walk-v0", "Endless-v0"):
        gym.registry.pop(name, None)


@pytest.fixture
def ask(capsys):
    """A function from words to the exit status, the facts and the findings with remedies."""

    def asked(*words):
        status = doctor.main(list(map(str, words)))
        out, err = capsys.readouterr()
        assert not err
        findings = re.findall(r"^! (.*)\n  remedy: (.*)$", out, re.MULTILINE)
        return status, out.partition("\n! ")[0], findings

    return asked


WALK = ("--agent", "reinforce", "--env", "planted:Walk-v0", "--preset", "none")


def only(findings, expected):
    """That there is one finding, and that it says what is expected."""
    (found,) = findings
    for text, pattern in zip(found, expected, strict=True):
        assert re.search(pattern, text), text


@pytest.mark.parametrize("line", HEALTHY)
def test_healthy_pairs_are_healthy(ask, line):
    status, facts, findings = ask(*line.split(), "--preset", "none")
    assert (status, findings) == (0, [])
    assert "nothing was found" in facts
    assert "env steps/s" in facts
    assert "learning nothing" not in facts


@pytest.mark.parametrize("fault", ENVIRONMENTS)
def test_a_fault_of_an_environment_is_found(ask, fault):
    status, _, findings = ask(*WALK, "--env-arg", f"fault={fault}")
    assert status == 1
    only(findings, ENVIRONMENTS[fault])


@pytest.mark.parametrize("fault", NETWORKS)
def test_a_fault_of_a_network_is_found(ask, fault):
    name, _, arg = fault.partition(" ")
    args = ["--network-arg", arg] if arg else []
    status, _, findings = ask(*WALK, "--network", f"planted:{name}", *args)
    assert status == 1
    only(findings, NETWORKS[fault])


@pytest.mark.parametrize("network", ["mlp", "attention", "planted:Healthy", "planted:Elman"])
def test_without_the_fault_nothing_is_found(ask, network):
    assert ask(*WALK, "--network", network)[0] == 0


def test_large_observations_are_no_fault_where_the_network_scales_them(ask):
    large = (*WALK, "--env-arg", "fault=scale")
    assert ask(*large, "--network", "planted:Scaling")[0] == 0
    status, facts, _ = ask(*large, "--network", "lstm", "--network-arg", "normalize=True")
    assert status == 0
    assert "inputs around 1," in facts  # its statistics have seen what the environment shows
    assert ask("--agent", "q-learning", *large[2:], "--bins", 4)[0] == 0


def test_an_image_of_floats_is_to_be_bytes(ask):
    _, _, findings = ask(*WALK, "--env-arg", "fault=image", "--network", "cnn")
    only(findings, ("not normalised", "uint8"))


def test_a_missing_step_limit_is_found_and_the_flag_mends_it(ask):
    endless = ("--agent", "sarsa", "--env", "planted:Endless-v0", "--bins", 4)
    status, facts, findings = ask(*endless, "--env-arg", "fault=endless")
    assert status == 1
    only(findings, ("no step limit, and an episode of 2,000", "--max-episode-steps 1000"))
    assert "0 in 2,000 random steps: 0 over, 0 cut, limit none" in facts
    remedy = findings[0][1].split()
    assert ask(*endless, *remedy)[0] == 0
    assert ask(*endless)[0] == 0  # an environment without a limit whose episodes end


def test_a_gradient_that_is_not_finite_is_found_while_learning(ask):
    _, _, findings = ask(*WALK, "--learning-rate", "1e38", "--optimizer", "SGD")
    only(findings, ("learning fails: ", "--learning-rate"))


def test_facts_name_autoreset_cuts_and_memory(ask):
    _, facts, _ = ask("--agent", "sarsa", "--env", "CliffWalking-v1", "--max-episode-steps", 10)
    assert "0 over, 200 cut, limit 10" in facts
    _, facts, _ = ask("--agent", "reinforce", "--env", "CartPole-v1", "--num-envs", 4)
    assert "NEXT_STEP" in facts
    assert "no memory" in facts
    assert "keeps the rules of check_network" in facts
    assert "seed 0 gives the same rollout again" in facts


def test_quiet_prints_findings_alone(ask, capsys):
    assert ask("--quiet") == (0, "", [])
    doctor.main([*WALK, "--quiet", "--env-arg", "fault=buffer"])
    assert capsys.readouterr().out.startswith("! the environment fills")


def test_what_was_found_is_told_before_an_error_ends_the_search(capsys):
    flags = ("--env-arg", "fault=buffer", "--gamma", "3")
    assert doctor.main([*WALK, *flags]) == 2
    out, err = capsys.readouterr()
    assert "! the environment fills" in out
    assert "healthy" not in out
    assert "gamma" in err


def test_usage_errors_are_those_of_train(capsys):
    assert doctor.main(["--agnt", "sarsa"]) == 2
    assert "--agent" in capsys.readouterr().err
    assert doctor.main(["--resume", "runs"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert doctor.main(["--env", "FrozenLake-v9"]) == 2
    assert doctor.main(["--agent", "reinforce", "--network", "mpl"]) == 2
    assert doctor.main(["--env", "CartPole-v1", "--preset", "none"]) == 2  # a table needs bins


def test_it_is_a_command(capsys):
    with pytest.raises(SystemExit):
        command.main(["doctor", "--help"])
    out = capsys.readouterr().out
    assert "usage: seqrl doctor" in out
    assert "Exit status 1 where something was found" in " ".join(out.split())


def test_a_table_is_looked_at_without_torch(here):
    code = "import sys; from seqrl.scripts import doctor; assert doctor.main([]) == 0; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True, timeout=60)


def test_two_plays_part_at_the_step_that_differs():
    def seen(*rewards):
        views = list(range(len(rewards) + 1))
        return checkup.Play(views, [True] + [False] * len(rewards), list(rewards))

    assert checkup.first_difference(seen(1.0, 2.0, 3.0), seen(1.0, 2.0)) is None
    assert checkup.first_difference(seen(1.0, 2.0, 3.0), seen(1.0, 2.0, 4.0)) == 3
    moved = seen(1.0, 2.0)
    moved.observations[1] = 7
    assert checkup.first_difference(seen(1.0, 2.0), moved) == 0


def test_a_look_is_capped_in_steps_and_time():
    env = gym.make("FrozenLake-v1")
    assert len(checkup.play(env, 0, steps=7).rewards) == 7
    assert len(checkup.play(env, 0, steps=10**9, seconds=0.01).rewards) < 10**5
    episodes = checkup.play(env, 0, steps=100)
    assert sum(episodes.lengths) <= 100
    assert len(episodes.lengths) == sum(episodes.start[1:])


@pytest.mark.parametrize(
    ("space", "found"),
    [
        (spaces.Box(-1, 1, (2,)), 0),
        (spaces.Box(np.float32([-1, -np.inf]), np.float32([1, 1])), 1),
        (spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, np.inf, (1,)))), 1),
        (spaces.Box(-3.4e38, 3.4e38, (1,), np.float32), 1),
        (spaces.MultiDiscrete([2, 3]), 0),
    ],
)
def test_actions_without_bounds(space, found):
    assert len(checkup.check_actions(space)) == found


def test_a_limit_of_a_single_environment_counts():
    played = checkup.Play(rewards=[0.0] * 1500, lengths=[300])
    assert checkup.check_limit(adapt(gym.make("CliffWalking-v1")), played)
    limited = gym.make("CliffWalking-v1", max_episode_steps=9)
    assert not checkup.check_limit(adapt(limited), played)
    played.lengths.append(300)
    assert not checkup.check_limit(adapt(gym.make("CliffWalking-v1")), played)


def test_the_faster_device_is_advised():
    measured = partial(measure_speed.Speed, 1.0, 1.0, 1.0, learned=True)
    both = {"cpu": measured(together=3000.0), "cuda": measured(together=1000.0)}
    assert measure_speed.advice(both) == "--device cpu, 3.0 times as fast as the other here"
    both["cuda"] = measured(together=4500.0)
    assert measure_speed.advice(both).startswith("--device cuda, 1.5 times")
    assert measure_speed.advice({"cpu": both["cpu"]}) == "cpu: there is no other"


def test_the_size_of_a_column_is_its_root_mean_square():
    x = torch.tensor([[3.0, 0.0], [4.0, 1.0]])  # columns sqrt(12.5) and sqrt(0.5)
    assert column_size(x) == pytest.approx(12.5**0.5)
    assert column_size(x[0]) == 3.0
