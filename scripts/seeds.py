"""`seqrl train --seeds K`: train seeds 0 to K-1 and summarise their learning curves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from seqrl.agents.factory import Config
from seqrl.scripts import running
from seqrl.scripts.options import print_note
from seqrl.training.runs import folder as runs
from seqrl.training.runs.global_state import one_at_a_time
from seqrl.training.runs.run_one import fail
from seqrl.training.runs.seed_curves import CURVES, make_trainer, save, summary
from seqrl.training.runs.seeds import Runs, SeedTrainer, collect
from seqrl.training.runs.telling import telling
from seqrl.training.runs.tensorboard import TensorBoard


def train_seeds(config: Config, args: argparse.Namespace, name: str) -> int:
    """Train the seeds, write their curves, report; return the exit status.

    `name` is the agent's part of the folder.
    """
    with one_at_a_time(config):
        seed_trainer = make_trainer(config)
        env, seeds = config["env"], config["seeds"]
        folder = runs.new_folder(args.logdir, env, name, 0, args.run_dir, seeds=seeds)
        runs.write_config(folder, config)
        logger = TensorBoard(folder)
        logger.describe(config, telling(config))
        logger.text("path", seed_trainer.path)
        if not (seed_trainer.compiled or args.quiet):
            print_note(seed_trainer.path)
        show_bar = not args.quiet and sys.stderr.isatty()
        problem: Exception | None = None
        with (
            tqdm(total=seeds, unit=" seeds", leave=False, disable=not show_bar) as bar,
            running.handle_signals(seed_trainer.interrupt) as signals,
        ):
            try:
                seed_trainer.run(seeds, lambda done: bar.update(done - bar.n))
            except KeyboardInterrupt:
                pass
            except Exception as error:
                problem = error
        results = collect(seed_trainer.done)
        try:
            save(results, folder, logger)
        finally:
            logger.close(success=not (problem or signals))
        if problem is not None:
            fail(problem, f"the seeds done before are in {folder}")
        runs.write_summary(folder, summary(config, seed_trainer, results))
    if not args.quiet:
        report(config, seed_trainer, results, folder)
    return running.STATUS[signals[0]] if signals else 0


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
    print(f"see it:   {running.tensorboard_command(running.logdir_of(folder, config))}")
