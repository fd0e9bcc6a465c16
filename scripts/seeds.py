"""`seqrl train --seeds K`: train seeds 0 to K-1 and summarise their learning curves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from seqrl.agents.factory import Config
from seqrl.agents.protocol import Agent
from seqrl.core.errors import RunError, UsageError
from seqrl.core.seeding import Streams
from seqrl.envs.adapter import Environments
from seqrl.scripts import running
from seqrl.scripts.options import print_note
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs
from seqrl.training.runs.parts import agent_for, build_envs
from seqrl.training.runs.seeds import Runs, SeedTrainer, collect
from seqrl.training.runs.tensorboard import TensorBoard

CURVES = "curves.npz"


def train_seeds(config: Config, args: argparse.Namespace) -> int:
    """Train the seeds, write their curves, report; return the exit status."""
    seed_trainer = make_trainer(config, args.threads)
    env, agent, seeds = config["env"], config["agent"], config["seeds"]
    folder = runs.new_folder(args.logdir, env, agent, 0, args.run_dir, seeds=seeds)
    runs.write_config(folder, config)
    logger = TensorBoard(folder)
    logger.describe(config)
    logger.text("path", seed_trainer.path)
    if not (seed_trainer.compiled or args.quiet):
        print_note(seed_trainer.path)
    show_bar = not args.quiet and sys.stderr.isatty()
    with (
        tqdm(total=seeds, unit=" seeds", leave=False, disable=not show_bar) as bar,
        running.handle_signals(seed_trainer, None) as signals,
    ):
        problem, _ = running.attempt(seed_trainer.run, seeds, lambda done: bar.update(done - bar.n))
    results = collect(seed_trainer.done)
    try:
        save(results, folder, logger)
    finally:
        logger.close(success=not (problem or signals))
    if problem is not None:
        running.fail(problem, f"the seeds done before are in {folder}")
    runs.write_summary(folder, summary(config, seed_trainer, results))
    if not args.quiet:
        report(config, seed_trainer, results, folder)
    return running.STATUS[signals[0]] if signals else 0


def make_trainer(config: Config, threads: int | None) -> SeedTrainer:
    """Return the trainer of a config; each agent is that of a single run of its seed."""
    for name in ("seed", "eval_every", "checkpoint_every"):
        if config[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} with --seeds: seeds 0, 1, ... are trained; leave it out")
    more = {"episodes": config["episodes"], "compile": config["compile"], "threads": threads}

    def make_agent(envs: Environments, seed: int) -> Agent:
        return agent_for(config, envs, Streams.of(seed))

    return SeedTrainer(make_agent, lambda: build_envs(config), config["steps"], **more)


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


def report(config: Config, seed_trainer: SeedTrainer, results: Runs, folder: Path) -> None:
    """Print how the runs ended."""
    threads = f"{seed_trainer.threads} thread" + "s" * (seed_trainer.threads > 1)
    done = f"{results.steps.sum():,} env steps, {results.episodes.sum():,} episodes"
    spent = f"{seed_trainer.seconds:.1f} s in {threads} ({seed_trainer.path})"
    print(f"{config['agent']} on {config['env']}: {len(results.seed):,} seeds, {done}, {spent}")
    if len(results.seed):
        low, high = np.quantile(results.ep_rew_mean, (0.25, 0.75))
        last = f"{results.ep_rew_mean.mean():.6g}, the middle half {low:.6g} to {high:.6g}"
        print(f"mean return of the last 100 episodes {last}")
    print(f"saved in  {folder} ({CURVES})")
    print(f"see it:   {running.tensorboard_command()} --logdir {running.logdir_of(folder, config)}")
