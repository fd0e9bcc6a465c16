"""Step environment, network and agent of a config for a moment and name what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seqrl.core.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

    from seqrl.envs.adapter import Environments
    from seqrl.envs.env_check import Finding, Play

Config = dict[str, Any]


class Report:
    """What an examination shows on the way, `fact(name, text)`, and its findings with remedies."""

    def __init__(self, fact: Callable[[str, str], object]):
        self.fact = fact
        self.findings: list[Finding] = []


def examine(config: Config, report: Report) -> None:
    """Check the environment, then, if it is sound, network and agent."""
    import warnings

    from seqrl.training.runs.parts import build_envs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gymnasium's own checks, which are made here as well
        envs = build_envs(config)
        played = examine_environment(config, envs, report)
        if played is None:
            report.fact("stopped", "network and agent are looked at when the environment is sound")
        elif examine_network(config, envs.single_observation_space, played, report):
            examine_agent(config, envs, report)
        envs.close()


def examine_environment(config: Config, envs: Environments, report: Report) -> Play | None:
    """Check an environment by random actions; return them, None if it is unusable."""
    from seqrl.core.action_mask import check_mask
    from seqrl.envs import env_check
    from seqrl.envs.state import why_unkept

    seed, env = config["seed"], single_env(config)
    check_mask(env.observation_space, env.action_space)
    played = env_check.play(env, seed)
    report_environment(config, envs, played, report)
    report.findings += env_check.check_running(played) + env_check.check_finite(played)
    if report.findings:
        return None
    report.findings += env_check.check_space(played, env.observation_space)
    sound = not report.findings
    report.findings += env_check.check_buffer(played)
    seed_findings = env_check.check_seeds(single_env(config), env, played, seed)
    report.findings += seed_findings
    report.fact("resume", why_unkept(envs) or "exact, in the middle of episodes too")
    if not seed_findings:
        report.fact("seeds", f"seed {seed} gives the same rollout again")
    report.findings += [
        *env_check.check_limit(envs, played),
        *env_check.check_actions(env.action_space),
    ]
    report.findings += env_check.check_rewards(played)
    if config.get("network"):
        report.findings += env_check.check_scale(played)
    return played if sound else None


def single_env(config: Config) -> gym.Env:
    """Make one environment of a run, without Gymnasium's environment checker."""
    from seqrl.envs.adapter import Serial
    from seqrl.envs.making import make
    from seqrl.envs.wrapping import wrappers

    args = {name: value for name, value in config["env_args"].items() if name != "device"}
    args |= {"vectorization": "serial", "disable_env_checker": True}
    args["wrappers"] = wrappers(config["wrappers"])
    envs = make(config["env"], 1, max_episode_steps=config["max_episode_steps"], **args)
    assert isinstance(envs, Serial)
    env: gym.Env = envs.envs[0]
    return env


def report_environment(config: Config, envs: Environments, played: Play, report: Report) -> None:
    """Report spaces, autoreset, episodes, rewards and returns of an environment."""
    from seqrl.envs.making import time_limit

    spaces = f"{envs.single_observation_space} -> {envs.single_action_space}"
    report.fact("environment", f"{config['env']}: {' '.join(spaces.split())[:160]}")
    mode = getattr(envs, "mode", None)
    separate = "none: each environment is reset where its episode ends"
    report.fact("autoreset", separate if mode is None else mode.name)
    steps, episodes = len(played.rewards), len(played.lengths)
    limit = time_limit(envs)
    cut = f"{episodes - played.truncated:,} over, {played.truncated:,} cut, limit {limit or 'none'}"
    report.fact("episodes", f"{episodes:,} in {steps:,} random steps: {cut}")
    if steps:
        report.fact("rewards", f"{min(played.rewards):g} to {max(played.rewards):g}")
    if episodes:
        report.fact("returns", f"{min(played.returns):g} to {max(played.returns):g}")


def examine_network(config: Config, space: gym.Space, played: Play, report: Report) -> bool:
    """Check the network on recorded observations; return whether an agent can use it."""
    if not config.get("network"):
        return True
    from seqrl.core.action_mask import rest_space
    from seqrl.networks.diagnosis.vital_signs import vital_signs
    from seqrl.training.doctor import network_checks as checks

    obs, start = checks.as_rollout(space, played)
    space = rest_space(space)
    network = checks.new_network(config, space)
    failures = checks.check_works(network, space, obs, start)
    report.findings += failures
    if failures:
        return False
    signs = vital_signs(network, obs, start)
    contract = checks.check_contract(network, space)
    keeps = "breaks" if contract else "keeps"
    facts = checks.summary(network, signs)
    report.fact("network", f"{facts}; {keeps} the rules of check_network")
    report.findings += checks.check_inputs(signs, space)
    dead_parts = checks.check_features(signs, obs) or checks.check_gradients(signs)
    report.findings += dead_parts or contract
    return True


def examine_agent(config: Config, envs: Environments, report: Report) -> None:
    """Let the agent learn for a moment on every device there is, and measure its speed."""
    from seqrl.core.seeding import Streams
    from seqrl.envs.env_check import Finding
    from seqrl.training.runs.parts import agent_for, build_offline
    from seqrl.training.runs.speed import advice, measure_speed
    from seqrl.training.runs.teaching import give_teacher
    from seqrl.training.runs.warm_start import begin

    speeds, streams, devices = {}, Streams.of(config["seed"]), ["cpu"]
    if config.get("network"):
        from seqrl.agents.deep.devices import pick_device

        devices = list(dict.fromkeys(["cpu", pick_device("auto")[0].type]))
    for device in devices:
        agent_args = dict(config["agent_args"])
        if config.get("network"):
            agent_args["device"] = device
        on_device, played = {**config, "agent_args": agent_args}, envs
        if config["dataset"]:
            _, _, played, agent, _ = build_offline(on_device, streams)
        else:
            agent = agent_for(on_device, envs, streams)
        begin(agent, config)
        agent.horizon = config["steps"]
        try:
            give_teacher(agent, config)
            speeds[device] = measure_speed(agent, played, streams.envs)
        except UserError as error:
            remedy = "a smaller --learning-rate, or see with --debug of `seqrl train` where"
            report.findings.append(Finding(f"learning fails: {error}", remedy))
            return
        report.fact(f"on {device}", str(speeds[device]))
    report.fact("device", advice(speeds))
