"""The run that another one begins from: its environment, its network and its weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqrl.agents.factory import Config
from seqrl.agents.protocol import Agent
from seqrl.agents.teachers import OBSERVATION
from seqrl.core import schema
from seqrl.core.errors import UsageError, told_of
from seqrl.envs.wrapping import named, without_reconstruction
from seqrl.training.runs import folder as runs
from seqrl.training.runs import saved_run
from seqrl.training.runs.load import CODE, check_code_named

LOG = logging.getLogger("seqrl")
OF_ENV = ("max_episode_steps", "wrappers", "env_args", "eval_env_args")
OF_NETWORK = ("network_args", "normalize_obs")
TABLES = ("env_args", "eval_env_args", "network_args")  # merged, what is given first


def inherited(folder: Path, given: Mapping[str, Any]) -> Config:
    """Return what a run takes from the run that it begins from, but for what is given.

    The settings of the environment and of the network go with these, so they are not taken where
    another one is given. The folder is not trusted: code has to be given again. UsageError for
    what is no run.
    """
    try:
        theirs = runs.read_config(folder)
        found = {name: theirs[name] for name in CODE if theirs.get(name)}
        for owner, names in (("env", OF_ENV), ("network", OF_NETWORK)):
            if given.get(owner) in (None, "", theirs.get(owner)):
                found |= {name: theirs[name] for name in names if name in theirs}
        # what learned observations alone is to play now
        if wrappers := without_reconstruction(found.pop("wrappers", None)):
            found["wrappers"] = wrappers
        if "num_envs" in theirs and not theirs.get("dataset"):
            found["num_envs"] = theirs["num_envs"]
        chosen = {name: x for name, x in given.items() if x not in (None, "")}
        check_code(found, chosen)
        for table in TABLES:
            if table in found:
                chosen[table] = {**found[table], **chosen.get(table, {})}
    except UsageError as error:
        raise told_of("--from", folder, error) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--from {folder}: it holds no run's settings: {error}") from error
    return {**found, **{name: x for name, x in chosen.items() if name in found}}


def learned_observations(folder: str) -> bool:
    """Return whether the run of a folder was to give observations back, and knows no policy."""
    try:
        return bool(runs.read_config(Path(folder))["agent_args"].get("teacher") == OBSERVATION)
    except (UsageError, AttributeError, LookupError):  # which is told elsewhere
        return False


def check_code(found: Config, chosen: Mapping[str, Any]) -> None:
    """Refuse what would import code that was not given again."""
    replaced = {name: chosen[name] for name in (*CODE, "wrappers") if name in chosen}
    names = [name for name, _ in named(chosen.get("wrappers"))]
    check_code_named("it", {**found, **replaced}, {**chosen, "wrappers": names})


def with_inherited(given: Mapping[str, Any]) -> Config:
    """Return settings with what they take from the run that they begin from, if from any."""
    source = given.get("from")
    if source is None:
        return dict(given)
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"--from {source!r}: expected a run's folder")
    folder = Path(source).absolute()
    return {**given, **inherited(folder, given), "from": str(folder)}


def begin(agent: Agent, config: Config, tell: Callable[[str], object] = LOG.warning) -> None:
    """Let a new agent begin from the run that its config names; `tell` what does not fit."""
    source, numbers = config.get("from"), config["agent_args"]
    if source is None:
        if numbers.get("kl_coef"):
            reason = "the policy came from nowhere; add --from RUN, or leave it out"
            raise UsageError(f"kl_coef {numbers['kl_coef']}: {reason}")
        return
    try:
        taken = warm_start(agent, source)
    except UsageError as error:
        raise told_of("--from", source, error) from error
    if taken.left:
        tell(f"seqrl: --from {source}: {taken}")
    warmup, steps = numbers.get("critic_warmup") or 0, config["steps"]
    if warmup >= steps:
        run = f"a run of {steps:,} env steps"
        tell(f"seqrl: critic_warmup {warmup}: the policy learns nothing in {run}")


def warm_start(agent: Agent, source: Any) -> Any:
    """Let a new agent begin from what another one has learned; return what was taken.

    source: a run's folder, what `seqrl.load` returns, or an agent. Weights are taken by name and
    shape, with the running statistics of observations; the critic begins from the policy's body.
    The result names the weights `taken`, and those that were not (`left`), and as a text says so
    in a line. UsageError where nothing fits.
    """
    if not hasattr(agent, "begin_from"):
        raise UsageError("a table begins from no run; name a --network")
    if isinstance(source, str | os.PathLike):
        saved = saved_run.newest(Path(source))
        if saved is None:
            raise UsageError("nothing was saved there")
        state = saved["loop"].get("agent")
    else:
        state = getattr(source, "agent", source).state_dict()
    if not isinstance(state, dict):
        raise UsageError("it holds no agent")
    with schema.loading("agent"):
        return agent.begin_from(state)
