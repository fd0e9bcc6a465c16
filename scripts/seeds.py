"""`seqrl train --seeds K`: train seeds 0 to K-1 and summarise their learning curves."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from seqrl.agents.factory import Config
from seqrl.core.errors import counted
from seqrl.scripts import running
from seqrl.scripts.options import print_note
from seqrl.training.runs import folder as runs
from seqrl.training.runs.device_choice import choice, on
from seqrl.training.runs.global_state import one_at_a_time
from seqrl.training.runs.progress import Meter
from seqrl.training.runs.seed_curves import CURVES, make_trainer, train_in
from seqrl.training.runs.seeds import Runs, SeedTrainer
from seqrl.training.runs.tensorboard import command


def train_seeds(config: Config, args: argparse.Namespace, name: str) -> int:
    """Train the seeds, write their curves, report; return the exit status.

    `name` is the agent's part of the folder.
    """
    with one_at_a_time(config):
        if (chosen := choice(config, many=True)) is not None:
            config = on(config, chosen.device)
        trainer = make_trainer(config)
        env, seeds = config["env"], config["seeds"]
        folder = runs.new_folder(args.logdir, env, name, 0, args.run_dir, seeds=seeds)
        if not (trainer.compiled or args.quiet):
            print_note(trainer.path)
        with (
            Meter(seeds, "seeds", quiet=args.quiet) as meter,
            running.handle_signals(trainer.interrupt) as signals,
        ):
            results = train_in(folder, trainer, config, meter.show)
    if not args.quiet:
        report(config, trainer, results, folder)
    return running.STATUS[signals[0]] if signals else 0


def report(config: Config, seed_trainer: SeedTrainer, results: Runs, folder: Path) -> None:
    """Print how the runs ended."""
    threads, seeds = counted(seed_trainer.threads, "thread"), counted(len(results.seed), "seed")
    done = f"{results.steps.sum():,} env steps, {counted(results.episodes.sum(), 'episode')}"
    spent = f"{seed_trainer.seconds:.1f} s in {threads} ({seed_trainer.path})"
    print(f"{config['agent']} on {config['env']}: {seeds}, {done}, {spent}")
    returns = results.ep_rew_mean[np.isfinite(results.ep_rew_mean)]  # where an episode ended
    if len(returns):
        low, high = np.quantile(returns, (0.25, 0.75))
        last = f"{returns.mean():.6g}, the middle half {low:.6g} to {high:.6g}"
        print(f"mean return of the last 100 episodes {last}")
    print(f"saved in  {folder} ({CURVES})")
    print(f"see it:   {command(runs.logdir_of(folder, config))}")
