"""The folder of many seeds of one config: their trainer, their curves, their summary."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.agents.factory import Config
from seqrl.agents.protocol import Agent, Taught
from seqrl.core.errors import RunError, UsageError
from seqrl.core.seeding import Streams
from seqrl.envs.adapter import Environments
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs
from seqrl.training.runs.defaults import DEFAULTS, flag_of
from seqrl.training.runs.parts import agent_for, build_envs
from seqrl.training.runs.run_one import fail
from seqrl.training.runs.seeds import Runs, SeedTrainer, collect
from seqrl.training.runs.teaching import give_teacher
from seqrl.training.runs.telling import telling
from seqrl.training.runs.tensorboard import TensorBoard
from seqrl.training.runs.warm_start import LOG, begin

CURVES = "curves.npz"
Show = Callable[[int], object]


def make_trainer(config: Config) -> SeedTrainer:
    """Return the trainer of a config; each agent is that of a single run of its seed.

    UsageError for an agent whose training a teacher drives: its curves would be the teacher's.
    """
    for name in ("seed", "eval_every", "checkpoint_every"):
        if config[name] not in (0, DEFAULTS[name]):
            raise UsageError(
                f"{flag_of(name)} with --seeds: seeds 0, 1, ... are trained; leave it out"
            )
    more = {
        "episodes": config["episodes"],
        "compile": config["compile"],
        "threads": config["threads"],
    }

    tell = cache(LOG.warning)  # once, not a seed

    def make_agent(envs: Environments, seed: int) -> Agent:
        agent = agent_for(config, envs, Streams.of(seed))
        if isinstance(agent, Taught) and not agent.plays:
            problem = "--seeds shows the returns of training, here a teacher's"
            remedy = f"seqrl compare --agents {config['agent']} --seeds {config['seeds']}"
            raise UsageError(f"{problem}: take `{remedy}`, which evaluates each seed")
        begin(agent, config, tell)
        give_teacher(agent, config)
        return agent

    return SeedTrainer(make_agent, lambda: build_envs(config), config["steps"], **more)


def train_in(folder: Path, trainer: SeedTrainer, config: Config, show: Show) -> Runs:
    """Train the seeds of a config in its folder; `show` is told how many are done.

    RunError for what failed on the way; the seeds done before are saved, as with Ctrl-C.
    """
    runs.write_config(folder, config)
    logger = TensorBoard(folder)
    logger.describe(config, telling(config))
    logger.text("path", trainer.path)
    problem: Exception | None = None
    try:
        trainer.run(config["seeds"], show)
    except KeyboardInterrupt:
        trainer.stopped = True
    except Exception as error:
        problem = error
    results = collect(trainer.done)
    try:
        save(results, folder, logger)
    finally:
        logger.close(success=not (problem or trainer.stopped))
    if problem is not None:
        fail(problem, f"the seeds done before are in {folder}")
    runs.write_summary(folder, summary(config, trainer, results))
    return results


def save(results: Runs, folder: Path, logger: TensorBoard) -> None:
    """Write the curves of all seeds and their summary, as arrays and for TensorBoard."""
    if not len(results.seed):
        return
    curves = results.summary()
    arrays: dict[str, Any] = {**results._asdict(), **curves}
    try:
        np.savez(folder / CURVES, **arrays)
    except OSError as error:
        (folder / CURVES).unlink(missing_ok=True)
        raise RunError(f"{folder / CURVES}: {error.strerror}; make room, run it anew") from error
    names = {"mean": "", "iqm": "/iqm", "low": "/low", "high": "/high"}
    for k, step in enumerate(results.grid.tolist()):
        values = {f"rollout/ep_rew_mean{end}": float(curves[x][k]) for x, end in names.items()}
        logger.scalars(step, {tag: value for tag, value in values.items() if np.isfinite(value)})


def summary(config: Config, seed_trainer: SeedTrainer, results: Runs) -> dict[str, Any]:
    """Return the contents of summary.json; its counts and speed are those of all seeds."""
    steps = int(results.steps.sum())
    return {
        **{name: config[name] for name in ("agent", "env")},
        "seeds": len(results.seed),
        "steps": steps,
        "episodes": int(results.episodes.sum()),
        "seconds": seed_trainer.seconds,
        "steps_per_second": steps / seed_trainer.seconds,
        "ep_rew_mean": float(np.mean(results.ep_rew_mean)) if len(results.seed) else float("nan"),
        "compiled": seed_trainer.compiled,
        "path": seed_trainer.path,
        "threads": seed_trainer.threads,
        "device": "cpu",
        "versions": runs.versions(),
        "digest": checkpoint.digest(results._asdict()),
    }
