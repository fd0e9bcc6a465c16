"""From the config of a run to its parts."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from seqrl.agents import Agent, Boltzmann, EpsilonGreedy, TableIndex
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.agents.tabular import Tabular
from seqrl.core import UsageError
from seqrl.core.seeding import Streams
from seqrl.envs import Environments, make, reference_scores
from seqrl.training.evaluation import Evaluator

FLAGS = {"env", "num_envs", "max_episode_steps"}
Config = dict[str, Any]  # what config.toml holds


class Parts(NamedTuple):
    """What a run is made of."""

    config: Config
    streams: Streams
    envs: Environments
    agent: Agent

    def evaluator(self, logger: Any) -> Evaluator | None:
        """What evaluates this run, in environments of its own; None where no episodes are asked."""
        if not self.config["eval_episodes"]:
            return None
        return Evaluator(
            build_envs(self.config),
            self.config["eval_episodes"],
            every=self.config.get("eval_every") or self.config["steps"],
            seed=self.streams.evaluation,
            logger=logger,
            reference=self.reference,
        )

    @property
    def reference(self) -> dict[str, float]:
        """What the random, the best memoryless and the best policy earn here, where known."""
        limit = self.config.get("max_episode_steps")
        cut = {} if limit is None else {"max_episode_steps": limit}
        return (
            reference_scores(
                self.config["env"].rpartition(":")[2], **self.config["env_args"], **cut
            )
            or {}
        )


def build(config: Config) -> Parts:
    """Make the environments and the agent of a run; refuses what cannot be."""
    streams = Streams.of(config["seed"])
    envs = build_envs(config)
    agent = build_agent(config, envs, streams)
    if isinstance(agent, Tabular):
        agent.prepare(envs.num_envs)  # here, so that a lack of memory is noticed at once
    return Parts(config, streams, envs, agent)


def build_envs(config: Config) -> Environments:
    """The environments of a run."""
    for name in FLAGS.intersection(config["env_args"]):
        flag = "--" + name.replace("_", "-")
        raise UsageError(f"--env-arg {name}: that is a flag of its own, {flag}")
    return make(
        config["env"],
        config["num_envs"],
        max_episode_steps=config.get("max_episode_steps"),
        **config["env_args"],
    )


def build_agent(config: Config, envs: Environments, streams: Streams) -> Agent:
    """The agent of a run, for environments like `envs`."""
    if AGENTS[config["agent"]].network:
        return build_network_agent(config, envs, streams)
    numbers = dict(config["agent_args"])
    if "temperature" in numbers:
        numbers["exploration"] = Boltzmann(numbers.pop("temperature"))
    elif "epsilon" in numbers:
        numbers["exploration"] = EpsilonGreedy(numbers.pop("epsilon"))
    cls = agent_class(config["agent"])
    return cls(table_index(config, envs), envs.single_action_space, **numbers, seed=streams.agent)


def build_network_agent(config: Config, envs: Environments, streams: Streams) -> Agent:
    """An agent on a network; weights are drawn from the run's own stream."""
    import torch

    from seqrl.scripts.networks import build_network

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # small networks lose more to a second thread than they gain
    space = envs.single_observation_space
    with torch.random.fork_rng():
        torch.manual_seed(int(streams.network.generate_state(1)[0]))
        name = config.get("network") or "mlp"
        network = build_network(name, space, config.get("network_args", {}))
        cls = agent_class(config["agent"])
        numbers = config["agent_args"]
        return cls(network, envs.single_action_space, space, **numbers, seed=streams.agent)


def table_index(config: Config, envs: Environments) -> TableIndex:
    """How observations become rows of a table."""
    ranges = {int(d): (low, high) for d, (low, high) in config["bin_range"].items()}
    tiles = config.get("tiles") or 1
    bins = config.get("bins") or (8 if tiles > 1 else None)
    return TableIndex(envs.single_observation_space, bins, tiles, ranges)
