"""`seqrl train --seeds K`: seeds 0 to K-1, and their curves as one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from seqrl.core import RunError, UsageError
from seqrl.core.seeding import Streams
from seqrl.scripts.build import Config, build_agent, build_envs
from seqrl.training import checkpoint
from seqrl.training import folder as runs
from seqrl.training.many import Many, Runs, collect

if TYPE_CHECKING:
    from seqrl.training import TensorBoard

CURVES = "curves.npz"


def train_seeds(config: Config, typed: argparse.Namespace) -> int:
    """Train, write the curves, report; answers the exit status."""
    from seqrl.scripts.running import STATUS, attempt, because, stopping
    from seqrl.training import TensorBoard

    many = prepare(config, typed.threads)
    env, agent, seeds = config["env"], config["agent"], config["seeds"]
    folder = runs.new_folder(typed.logdir, env, agent, 0, typed.run_dir, seeds=seeds)
    runs.write_config(folder, config)
    logger = TensorBoard(folder)
    logger.describe(config)
    logger.text("path", many.path)
    if not (many.compiled or typed.quiet):
        print(f"seqrl: {many.path}", file=sys.stderr)
    watched = not typed.quiet and sys.stderr.isatty()
    with (
        tqdm(total=seeds, unit=" seeds", leave=False, disable=not watched) as bar,
        stopping(many, None) as signals,
    ):
        problem, _ = attempt(lambda: many.run(seeds, lambda done: bar.update(done - bar.n)))
    found = collect(many.done)
    save(found, folder, logger)
    logger.close(success=not (problem or signals))
    if problem is not None:
        raise RunError(f"{because(problem)}; the seeds done before are in {folder}") from problem
    runs.write_summary(folder, summary(config, many, found))
    if not typed.quiet:
        report(config, many, found, folder)
    return STATUS[signals[0]] if signals else 0


def prepare(config: Config, threads: int | None) -> Many:
    """What plays the seeds of a config; each agent is the one that a run of its seed has."""
    for name in ("seed", "eval_every", "checkpoint_every"):
        if config[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} with --seeds: seeds 0, 1, ... are trained; leave it out")
    return Many(
        lambda envs, seed: build_agent(config, envs, Streams.of(seed)),
        lambda: build_envs(config),
        config["steps"],
        episodes=config["episodes"],
        threads=threads,
        compile=config["compile"],
    )


def save(found: Runs, folder: Path, logger: TensorBoard) -> None:
    """The curves of all seeds and their summary, as arrays and for TensorBoard."""
    if not len(found.seed):
        return
    bands = found.summary()
    arrays: dict[str, Any] = {**found._asdict(), **bands}
    np.savez(folder / CURVES, **arrays)
    names = {"mean": "", "iqm": "/iqm", "low": "/low", "high": "/high"}
    for k, step in enumerate(found.grid.tolist()):
        values = {f"rollout/ep_rew_mean{end}": float(bands[x][k]) for x, end in names.items()}
        logger.scalars(step, {tag: value for tag, value in values.items() if np.isfinite(value)})


def summary(config: Config, many: Many, found: Runs) -> dict[str, Any]:
    """What summary.json holds; steps, episodes and steps_per_second are those of all seeds."""
    steps = int(found.steps.sum())
    return {
        "agent": config["agent"],
        "env": config["env"],
        "seeds": len(found.seed),
        "steps": steps,
        "episodes": int(found.episodes.sum()),
        "seconds": many.seconds,
        "steps_per_second": steps / many.seconds,
        "ep_rew_mean": float(np.mean(found.ep_rew_mean)) if len(found.seed) else float("nan"),
        "compiled": many.compiled,
        "path": many.path,
        "threads": many.threads,
        "device": "cpu",
        "versions": runs.versions(),
        "digest": checkpoint.digest(found._asdict()),
    }


def report(config: Config, many: Many, found: Runs, folder: Path) -> None:
    """The end of it, for a person."""
    from seqrl.scripts.running import logdir_of, tensorboard_command

    threads = f"{many.threads} thread" + "s" * (many.threads > 1)
    print(
        f"{config['agent']} on {config['env']}: {len(found.seed):,} seeds, "
        f"{found.steps.sum():,} env steps, {found.episodes.sum():,} episodes, "
        f"{many.seconds:.1f} s in {threads} ({many.path})"
    )
    if len(found.seed):
        low, high = np.quantile(found.ep_rew_mean, (0.25, 0.75))
        last = f"{found.ep_rew_mean.mean():.6g}, the middle half {low:.6g} to {high:.6g}"
        print(f"mean return of the last 100 episodes {last}")
    print(f"saved in  {folder} ({CURVES})")
    print(f"see it:   {tensorboard_command()} --logdir {logdir_of(folder, config)}")
