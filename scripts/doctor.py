"""Is anything wrong with the pieces? `seqrl doctor` before the flags that `seqrl train` takes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seqrl.core import UsageError, UserError
from seqrl.scripts import options, train

if TYPE_CHECKING:
    import gymnasium as gym

    from seqrl.envs import Environments
    from seqrl.training.checkup import Finding, Play

Config = dict[str, Any]
ABOUT = """Step environment, network and agent for a moment and name what is wrong, each with its
remedy. Takes the flags of `seqrl train`; those on the length, place and log of a run change
nothing. Exit status 1 where something was found."""


def main(argv: Sequence[str] | None = None) -> int:
    """The script; answers its exit status."""
    return options.guarded(body, argv)


def body(argv: Sequence[str]) -> int:
    """Read, look, print."""
    made = train.parser(argv)
    made.prog, made.description = "seqrl doctor", ABOUT
    typed = made.read(argv)
    if typed.resume is not None:
        raise UsageError("--resume: the doctor sees no runs; name --agent and --env")
    logging.getLogger("seqrl").setLevel(logging.ERROR)
    config = train.read(typed)
    report = Report(typed.quiet)
    if made.note:
        report.fact("settings", made.note)
    try:
        examine(config, report)
    finally:
        report.tell_findings()
    if not report.findings:
        report.fact("healthy", "nothing was found")
    return 1 if report.findings else 0


class Report:
    """Prints facts as they come, findings behind them."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.findings: list[Finding] = []

    def fact(self, name: str, text: str) -> None:
        """A line of what is the case."""
        if not self.quiet:
            print(f"{name:<13} {text}", flush=True)

    def tell_findings(self) -> None:
        """Each with its remedy."""
        for what, remedy in self.findings:
            print(f"! {what}\n  remedy: {remedy}")


def examine(config: Config, report: Report) -> None:
    """The environment first; what is built on one that is broken is not looked at."""
    import warnings

    from seqrl.scripts.build import build_envs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's own checks: they are made here as well
        envs = build_envs(config)
        seen = examine_environment(config, envs, report)
        if seen is None:
            report.fact("stopped", "network and agent are looked at when the environment is sound")
        elif examine_network(config, envs.single_observation_space, seen, report):
            examine_agent(config, envs, report)
        envs.close()


def examine_environment(config: Config, envs: Environments, report: Report) -> Play | None:
    """Random actions in a single environment; None where nothing can be built on it."""
    from seqrl.training import checkup

    seed, env = config["seed"], single(config)
    seen = checkup.play(env, seed)
    environment_facts(config, envs, seen, report)
    report.findings += checkup.check_running(seen) + checkup.check_finite(seen)
    if report.findings:
        return None
    report.findings += checkup.check_space(seen, env.observation_space)
    sound = not report.findings
    report.findings += checkup.check_buffer(seen)
    random = checkup.check_seeds(single(config), env, seen, seed)
    report.findings += random
    if not random:
        report.fact("seeds", f"seed {seed} gives the same rollout again")
    report.findings += checkup.check_limit(envs)
    report.findings += checkup.check_actions(env.action_space)
    report.findings += checkup.check_rewards(seen)
    if config.get("network"):
        report.findings += checkup.check_scale(seen)
    return seen if sound else None


def single(config: Config) -> gym.Env:
    """One environment of a run, without what watches over it."""
    from seqrl.envs import Serial, make

    args = {name: value for name, value in config["env_args"].items() if name != "device"}
    args |= {"vectorization": "serial", "disable_env_checker": True}
    envs = make(config["env"], 1, max_episode_steps=config["max_episode_steps"], **args)
    assert isinstance(envs, Serial)
    env: gym.Env = envs.envs[0]
    return env


def environment_facts(config: Config, envs: Environments, seen: Play, report: Report) -> None:
    """What was seen of an environment."""
    from seqrl.envs import time_limit

    spaces = f"{envs.single_observation_space} -> {envs.single_action_space}"
    report.fact("environment", f"{config['env']}: {' '.join(spaces.split())[:160]}")
    mode = getattr(envs, "mode", None)
    how = "none: each environment is reset where its episode ends" if mode is None else mode.name
    report.fact("autoreset", how)
    steps, episodes = len(seen.rewards), len(seen.lengths)
    limit = time_limit(envs)
    cut = f"{episodes - seen.cut:,} over, {seen.cut:,} cut, limit {limit or 'none'}"
    report.fact("episodes", f"{episodes:,} in {steps:,} random steps: {cut}")
    if steps:
        report.fact("rewards", f"{min(seen.rewards):g} to {max(seen.rewards):g}")
    if episodes:
        report.fact("returns", f"{min(seen.returns):g} to {max(seen.returns):g}")


def examine_network(config: Config, space: gym.Space, seen: Play, report: Report) -> bool:
    """The network on what was seen; whether an agent can be built on it."""
    if not config.get("network"):
        return True
    from seqrl.networks.vitals import vitals
    from seqrl.scripts import network_checks as checks

    network = checks.fresh(config, space)
    obs, start = checks.rolled(space, seen)
    broken = checks.check_works(network, space, obs, start)
    report.findings += broken
    if broken:
        return False
    found = vitals(network, obs, start)
    contract = checks.check_contract(network, space)
    kept = "breaks" if contract else "keeps"
    report.fact("network", f"{checks.described(network, found)}; {kept} the rules of check_network")
    report.findings += checks.check_inputs(found, space)
    dead = checks.check_features(found, obs) or checks.check_gradients(found)
    report.findings += dead or contract
    return True


def examine_agent(config: Config, envs: Environments, report: Report) -> None:
    """The agent learns for a moment on every device that there is."""
    from seqrl.core import Streams
    from seqrl.scripts.build import build_agent
    from seqrl.training.checkup import Finding
    from seqrl.training.tempo import advice, tempo

    tempos, streams = {}, Streams.of(config["seed"])
    for device in devices(config):
        numbers = dict(config["agent_args"])
        if config.get("network"):
            numbers["device"] = device
        agent = build_agent({**config, "agent_args": numbers}, envs, streams)
        agent.horizon = config["steps"]
        try:
            tempos[device] = tempo(agent, envs, streams.envs)
        except UserError as error:
            remedy = "a smaller --learning-rate, or see with --debug of `seqrl train` where"
            report.findings.append(Finding(f"learning fails: {error}", remedy))
            return
        report.fact(f"on {device}", str(tempos[device]))
    report.fact("device", advice(tempos))


def devices(config: Config) -> list[str]:
    """Where this agent can run."""
    if not config.get("network"):
        return ["cpu"]
    from seqrl.agents.torch_tools import pick_device

    return list(dict.fromkeys(["cpu", pick_device("auto")[0].type]))


if __name__ == "__main__":
    sys.exit(main())
