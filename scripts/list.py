"""`seqrl list`: print agents, presets and environments, or the runs of a folder, a line each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqrl.scripts.options import Parser, guarded, print_note


@guarded
def main(argv: Sequence[str]) -> int:
    """Print the lists."""
    about = "Agents, presets and environments, or runs, a line each."
    parser = Parser(prog="seqrl list", description=about)
    add = parser.add_argument
    add("--runs", nargs="?", const="runs", metavar="DIR", help="the runs in a folder (or in runs)")
    add("--debug", action="store_true", help="show tracebacks")
    args = parser.read(argv)
    for line in known() if args.runs is None else recorded(Path(args.runs)):
        print(line)
    return 0


def known() -> Iterator[str]:
    """Yield what there is to train: agents, presets, environments."""
    from seqrl.agents.registry import AGENTS
    from seqrl.training.runs.presets import presets

    yield "agents (seqrl train --agent NAME --help shows the flags)"
    for name, entry in AGENTS.items():
        yield f"  {name:<14} {entry.line}"
    for name, preset in presets().items():
        if preset.alias:
            same = f"{preset.agent} --network {preset.settings['network']} --preset {name}"
            yield f"  {name:<14} {same}"
    yield "\npresets (--preset NAME; by themselves where agent and environment are theirs)"
    for name, preset in presets().items():
        where = f"{preset.agent} on {preset.env}" if preset.env else preset.agent
        yield f"  {name:<24} {where}: {preset.reached}"
    yield "\nenvironments (any other Gymnasium id that is installed works too)"
    yield from (f"  {line}" for line in environments())


def environments() -> Iterator[str]:
    """Yield a line for each environment: id, step limit, known scores; ours first."""
    import gymnasium as gym

    from seqrl.envs.reference import reference_scores

    for spec in sorted(gym.registry.values(), key=lambda s: (s.namespace != "seqrl", s.id)):
        if spec.namespace in (None, "seqrl") and spec.entry_point is not None:
            parts = [f"limit {spec.max_episode_steps}" if spec.max_episode_steps else "no limit"]
            parts += [f"solved at {spec.reward_threshold:g}"] if spec.reward_threshold else []
            scores = reference_scores(spec) or {}
            parts += [f"{name} {score:.4g}" for name, score in scores.items()]
            yield f"{spec.id:<32} {', '.join(parts)}"


def recorded(home: Path) -> Iterator[str]:
    """Yield a line for each run in a folder: settings, score, env steps, whether it is finished."""
    from seqrl.training.comparison.overview import overview

    known, damaged = overview(home)
    for problem in damaged:
        print_note(problem)
    for env, rows in known.items():
        width = max(len(env), *(len(row.name) + 2 for row in rows))
        yield f"{env:<{width}} {'score':>10} {'env steps':>13}  {'state':<26}  folder in {home}"
        for name, folder, score, steps, state in rows:
            shown = "" if score is None else f"{score:.4g}"
            place = folder.relative_to(home) if folder.is_relative_to(home) else folder
            yield f"  {name:<{width - 2}} {shown:>10} {steps:>13,}  {state:<26}  {place}"


if __name__ == "__main__":
    sys.exit(main())
