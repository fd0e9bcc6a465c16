"""From the config of a run to its parts."""

from __future__ import annotations

import inspect
import os
from typing import Any, NamedTuple

from seqrl.agents import Agent, Boltzmann, EpsilonGreedy, TableIndex
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.agents.tabular import Tabular
from seqrl.core import UsageError
from seqrl.core.seeding import Streams
from seqrl.envs import Environments, make, reference_scores
from seqrl.envs.workers import TIMEOUT
from seqrl.training.evaluation import Evaluator

FLAGS = {"env", "num_envs", "max_episode_steps", "worker_timeout", "restart_workers"}
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
        every = self.config.get("eval_every") or self.config["steps"]
        return Evaluator(
            build_envs(self.config),
            self.config["eval_episodes"],
            every=every,
            seed=self.streams.evaluation,
            logger=logger,
            reference=self.reference,
            pictures=self._pictures(logger, every) if self.config.get("pictures") else None,
        )

    def _pictures(self, logger: Any, every: int) -> Any:
        """What draws this run's evaluations."""
        from seqrl.scripts.pictures import gallery
        from seqrl.training.gallery import Exhibition

        shown = gallery(self.config, self.streams.evaluation)
        return Exhibition(shown, logger, every=every, steps=self.config["steps"])

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
    envs = build_envs(config, processes=config.get("processes", False))
    agent = build_agent(config, envs, streams)
    if isinstance(agent, Tabular):
        agent.prepare(envs.num_envs)  # here, so that a lack of memory is noticed at once
    return Parts(config, streams, envs, agent)


def build_envs(config: Config, *, processes: bool = False) -> Environments:
    """The environments of a run, here or each in a process of its own."""
    for name in FLAGS.intersection(config["env_args"]):
        flag = "--" + name.replace("_", "-")
        raise UsageError(f"--env-arg {name}: that is a flag of its own, {flag}")
    restarts = config.get("restart_workers") or 0
    if restarts and not config.get("processes"):
        raise UsageError(f"--restart-workers {restarts}: there are none; add --processes")
    supervised = {
        "vectorization": "async",
        "worker_timeout": config.get("worker_timeout", TIMEOUT),
        "restart_workers": restarts,
    }
    return make(
        config["env"],
        config["num_envs"],
        max_episode_steps=config.get("max_episode_steps"),
        **(supervised if processes else {}),
        **config["env_args"],
    )


def build_agent(config: Config, envs: Environments, streams: Streams) -> Agent:
    """The agent of a run, for environments like `envs`."""
    if config.get("network") or AGENTS[config["agent"]].network:
        return build_network_agent(config, envs, streams)
    cls = agent_class(config["agent"])
    numbers = with_exploration(cls, config["agent_args"])
    return cls(table_index(config, envs), envs.single_action_space, **numbers, seed=streams.agent)


def with_exploration(cls: Any, numbers: dict[str, Any]) -> dict[str, Any]:
    """An agent's arguments; of one that explores by a part, the part made of its rate."""
    numbers = dict(numbers)
    if "exploration" not in inspect.signature(cls).parameters:
        return numbers
    if "temperature" in numbers:
        numbers["exploration"] = Boltzmann(numbers.pop("temperature"))
    elif "epsilon" in numbers:
        numbers["exploration"] = EpsilonGreedy(numbers.pop("epsilon"))
    return numbers


def build_network_agent(config: Config, envs: Environments, streams: Streams) -> Agent:
    """An agent on a network; weights are drawn from the run's own stream."""
    import torch

    from seqrl.scripts.networks import build_network

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # small networks lose more to a second thread than they gain
    if config.get("deterministic"):
        make_deterministic()
    # what a network of the user's draws in its layers comes from there, too
    torch.manual_seed(int(streams.network.generate_state(1)[0]))
    space = envs.single_observation_space
    name = config.get("network") or "mlp"
    network = build_network(name, space, config.get("network_args", {}))
    cls = agent_class(config["agent"], network=True)
    numbers = with_exploration(cls, config["agent_args"])
    return cls(network, envs.single_action_space, space, **numbers, seed=streams.agent)


def make_deterministic() -> None:
    """Have torch take only operations that give the same bits every time, on a GPU too."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first use of cuBLAS
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def table_index(config: Config, envs: Environments) -> TableIndex:
    """How observations become rows of a table."""
    ranges = {int(d): (low, high) for d, (low, high) in config["bin_range"].items()}
    tiles = config.get("tiles") or 1
    bins = config.get("bins") or (8 if tiles > 1 else None)
    return TableIndex(envs.single_observation_space, bins, tiles, ranges)
