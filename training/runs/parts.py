"""Building the environments, agent and evaluator of a run from its config."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seqrl.agents.experience.dataset import Dataset
from seqrl.agents.experience.recording import Recording
from seqrl.agents.factory import Config, build_agent
from seqrl.agents.protocol import Agent
from seqrl.agents.registry import agent_class
from seqrl.agents.tabular.tabular_agent import TabularAgent
from seqrl.core import action_mask, team
from seqrl.core.errors import UsageError
from seqrl.core.seeding import Streams
from seqrl.envs.adapter import Environments, SeparateEnvs
from seqrl.envs.gathered import Gathered
from seqrl.envs.making import find, is_batched, make
from seqrl.envs.reference import reference_scores
from seqrl.envs.workers import TIMEOUT
from seqrl.envs.wrapping import wrappers
from seqrl.training.loop.evaluation import Evaluator
from seqrl.training.loop.fit import recorded_for
from seqrl.training.runs.defaults import AUTO, EVAL_EPISODES
from seqrl.training.runs.evaluation_curve import EvaluationCurve, price_of
from seqrl.training.runs.global_state import kept_state
from seqrl.training.runs.offline import EVALUATED_IN, Returns, learned_from

if TYPE_CHECKING:
    from seqrl.training.pictures.picture_logger import AgentPictures

OWN_FLAGS = {"env", "num_envs", "max_episode_steps", "worker_timeout", "restart_workers"}
OWN_FLAGS |= {"wrappers"}


class RunParts(NamedTuple):
    """The config, random streams, environments and agent of a run."""

    config: Config
    streams: Streams
    envs: Environments
    agent: Agent
    returns: Returns | None = None  # of the recorded episodes that it learns from

    def evaluator(self, logger: Any) -> Evaluator | None:
        """Return the run's evaluator with environments of its own, None with eval_episodes 0.

        Where nobody asked for as many episodes, there is room for as many env steps as the run has.
        """
        config, seed, pictures = self.config, self.streams.evaluation, None
        episodes, every, room = config.get("eval_episodes"), config.get("eval_every"), math.inf
        if episodes == 0:
            return None
        if every in (None, 0, AUTO):
            every, room = config["steps"], config["steps"] if episodes is None else room
        if config.get("pictures") and logger is not None:
            from seqrl.training.pictures.picture_logger import PictureLogger

            drawn = agent_pictures(config, seed)
            pictures = PictureLogger(drawn, logger, every=every, steps=config["steps"])
        if config.get("dataset"):
            config = {**config, "num_envs": min(EVALUATED_IN, episodes or EVAL_EPISODES)}
        known = self.reference
        if self.returns is not None:
            recorded = {"recorded_best": self.returns.best, "recorded_mean": self.returns.mean}
            known = {**known, **recorded}
        return Evaluator(
            build_envs(eval_config(config)),
            episodes or EVAL_EPISODES,
            every=every,
            seed=seed,
            logger=logger,
            reference=known,
            pictures=pictures,
            room=room,
            apart=kept_state,
        )

    def evaluation_curve(self, evaluator: Evaluator) -> EvaluationCurve:
        """Return what evaluates on the way where no interval was given."""
        steps, price = self.config["steps"], price_of(self.agent, self.config["num_envs"])
        envs = cpu_envs(eval_config(self.config))
        return EvaluationCurve(evaluator, envs, steps=steps, price=price)

    @property
    def reference(self) -> dict[str, float]:
        """Return the scores of the random, best memoryless and best policy, where known."""
        if self.config.get("wrappers"):
            return {}
        config = eval_config(self.config)
        limit = config.get("max_episode_steps")
        more = config["env_args"] | ({} if limit is None else {"max_episode_steps": limit})
        return reference_scores(config["env"].rpartition(":")[2], **more) or {}


def build(config: Config) -> RunParts:
    """Build the environments and the agent of a run; raise UsageError for a bad config."""
    streams = Streams.of(config["seed"])
    processes = config.get("processes", False)
    if config.get("dataset"):
        team.refuse_several("--dataset")
        return build_offline(config, streams)
    if team.size() > 1:
        check_data_parallel(agent_class(config["agent"], bool(config.get("network"))), config)
        envs: Environments = build_own_envs(config)
    else:
        envs = build_envs(config, processes=processes)
    check_evaluated(config, envs)
    agent = agent_for(config, envs, streams)
    if isinstance(agent, TabularAgent):
        agent.prepare(envs.num_envs)  # here, so that a lack of memory shows at once
    return RunParts(config, streams, envs, agent)


def build_own_envs(config: Config) -> Environments:
    """Return the environments of a run of several processes, of which this one plays its share."""
    n, size = config["num_envs"], team.size()
    if n % size:
        remedy = f"take a multiple of {size}"
        raise UsageError(f"--num-envs {n}: {size} processes cannot share them evenly; {remedy}")
    args, processes = config["env_args"], config.get("processes", False)
    if args.get("vectorization", "auto") == "auto" and not processes:
        spec, around = find(config["env"]), wrappers(config.get("wrappers"))
        if is_batched(spec, n, around, args):
            problem = f"{config['env']} is a batch with one seed, which processes cannot share"
            remedy = "it has no single one, so start without torchrun"
            if spec.entry_point is not None:
                remedy = "add --env-arg vectorization=serial, or --processes"
            raise UsageError(f"{problem}; {remedy}")
    share = {**config, "num_envs": n // size}
    own = team.in_all("the environments", lambda: build_envs(share, processes=processes))
    assert isinstance(own, SeparateEnvs)
    return Gathered(own)


def check_data_parallel(cls: type, config: Config) -> None:
    """Refuse an agent whose gradients processes cannot share, whatever its base class can."""
    if not vars(cls).get("data_parallel"):
        known = "torchrun's processes share a run of ppo, a2c or reinforce; start it without"
        raise UsageError(f"--agent {config['agent']}: {known}")


def build_offline(config: Config, streams: Streams) -> RunParts:
    """Build the agent of a run that learns from recorded episodes, which are its environments."""
    recording, returns = learned_from(config)
    check_spaces(config, recording)
    agent = build_agent(config, recording.observation_space, recording.action_space, streams)
    envs = recorded_for(agent, Dataset(recording))
    if isinstance(agent, TabularAgent):
        agent.prepare(envs.num_envs)
    return RunParts(config, streams, envs, agent, returns)


def check_spaces(config: Config, recording: Recording) -> None:
    """Refuse recorded episodes of other spaces than the environment's, where it can be made."""
    try:
        envs = cpu_envs(config)
    except UsageError as error:
        if config["eval_episodes"] != 0:
            remedy = "--eval-episodes 0 learns without evaluations"
            raise UsageError(f"{error}; {remedy}") from error
        return
    envs.close()
    for name in ("observation_space", "action_space"):
        here, there = getattr(envs, f"single_{name}"), getattr(recording, name)
        if here != there:
            found = f"its {name} is {there}, that of {config['env']} {here}"
            raise UsageError(f"--dataset {config['dataset'][0]}: {found}")


def build_single(config: Config) -> RunParts:
    """Build the agent of a run, and one environment on the CPU in place of the run's."""
    streams, envs = Streams.of(config["seed"]), cpu_envs(config)
    agent = agent_for(config, envs, streams)
    return RunParts(config, streams, envs, agent)


def agent_for(config: Config, envs: Environments, streams: Streams) -> Agent:
    """Return the agent of a run, for environments like `envs`."""
    spaces = envs.single_observation_space, envs.single_action_space
    return build_agent(config, *spaces, streams)


def build_envs(config: Config, *, processes: bool = False) -> Environments:
    """Build the environments of a run, in this process or each in one of its own."""
    for name in OWN_FLAGS.intersection(config["env_args"]):
        flag = "--" + name.replace("_", "-")
        raise UsageError(f"--env-arg {name}: that is a flag of its own, {flag}")
    restarts = config.get("restart_workers") or 0
    if restarts and not config.get("processes"):
        raise UsageError(f"--restart-workers {restarts}: there are none; add --processes")
    if processes and "vectorization" in config["env_args"]:
        raise UsageError("--env-arg vectorization: --processes says it already; leave out one")
    timeout = config.get("worker_timeout", TIMEOUT)
    workers = {"vectorization": "async", "worker_timeout": timeout, "restart_workers": restarts}
    more: dict[str, Any] = {"max_episode_steps": config.get("max_episode_steps")}
    more |= workers if processes else {}
    more["wrappers"] = wrappers(config.get("wrappers"))
    return make(config["env"], config["num_envs"], **more, **config["env_args"])


def eval_config(config: Config) -> Config:
    """Return the config of the environments in which a run is evaluated."""
    merged = {**config.get("env_args", {}), **config.get("eval_env_args", {})}
    return {**config, "env_args": merged, "eval_env_args": {}}


def check_evaluated(config: Config, learned: Environments) -> None:
    """Refuse evaluations in environments of other actions than those that are learned in."""
    if not config.get("eval_env_args"):
        return
    envs = cpu_envs(eval_config(config))
    envs.close()
    here, there = envs.single_action_space, learned.single_action_space
    if here != there:
        remedy = "take arguments that leave the actions as they are"
        raise UsageError(f"--eval-env-arg: actions {here}, those of training are {there}; {remedy}")


def agent_pictures(config: dict[str, Any], seed: np.random.SeedSequence | None) -> AgentPictures:
    """Return what draws the agents of a run."""
    from seqrl.training.pictures.picture_logger import AgentPictures

    draws = {"activity_of": network_activity, "codes_of": network_codes}
    return AgentPictures(partial(picture_envs, config), seed=seed, **draws)


def picture_envs(config: dict[str, Any], **more: Any) -> Environments:
    """Build one environment of a run to be drawn, with further arguments."""
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # pygame needs no screen and no sound card
        os.environ.setdefault(name, "dummy")
    return cpu_envs(config, **more)


def cpu_envs(config: dict[str, Any], n: int = 1, **more: Any) -> Environments:
    """Build N environments of a run on the CPU and in this process, with further arguments."""
    args = {name: x for name, x in config["env_args"].items() if name != "device"}
    return build_envs({**config, "num_envs": n, "env_args": args | more})


def network_activity(agent: Any, obs: Any) -> Any:
    """Return the activity of an agent's network over observations [T, ...], None without one."""
    if not hasattr(agent, "network"):
        return None
    from seqrl.networks.diagnosis.activity import activity

    return activity(agent.network, action_mask.split(obs)[0])


def network_codes(agent: Any, obs: Any) -> Any:
    """Return what an agent's autoencoder makes of observations [M, ...], None without one."""
    if not hasattr(agent, "network"):
        return None
    from seqrl.networks.diagnosis.codes import codes

    return codes(agent.network, obs)


def network_reading(agent: Any, obs: Any) -> Any:
    """Return where an agent's network looks in its source over a reply [T, ...], or None."""
    found = network_activity(agent, obs)
    return None if found is None else found.reading
