"""`seqrl list`: print agents, presets and environments, or the runs of a folder, a line each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from seqrl.scripts.options import Parser, guarded


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
    from seqrl.scripts.settings import presets

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
    from seqrl.training.comparison.recorded import find_runs, read_settings

    runs = [read_settings(folder) for folder in find_runs([str(home)])]
    for env in sorted({run.config["env"] for run in runs}):
        rows = sorted(named([run for run in runs if run.config["env"] == env]))
        width = max(len(env), *(len(name) + 2 for name, *_ in rows))
        yield f"{env:<{width}} {'score':>10} {'env steps':>13}  {'state':<26}  folder in {home}"
        for name, folder, config, summary in rows:
            score, steps, state = outcome(folder, config, summary)
            place = folder.relative_to(home)
            yield f"  {name:<{width - 2}} {score:>10} {steps:>13,}  {state:<26}  {place}"


def named(runs: Sequence[Any]) -> Iterator[tuple[str, Path, dict[str, Any], Any]]:
    """Yield name, folder, config and summary of the runs of one environment.

    The name is the agent's part of the folder, with the settings in which runs of one part differ.
    """
    from seqrl.training.comparison.recorded import labels
    from seqrl.training.runs.folder import plain_name

    parts = dict[str, list[Any]]()
    for run in runs:
        agent, env = (plain_name(run.config[name]) for name in ("agent", "env"))
        above = run.folder.absolute().parents
        parts.setdefault(above[0].name if above[1].name == env else agent, []).append(run)
    for part, group in parts.items():
        for name, run in zip(labels(group), group, strict=True):
            yield part + name.removeprefix(run.config["agent"]), *run[:3]


def outcome(folder: Path, config: dict[str, Any], summary: Any) -> tuple[str, int, str]:
    """Return a run's score, greedy where it was evaluated, its env steps, and how it stands."""
    from seqrl.training.runs.executor import steps_done

    if summary is None:
        return "", steps_done(folder), f"not finished, of {config['steps']:,}"
    score = summary.get("eval_mean_reward")
    greedy = score is not None
    score = score if greedy else summary.get("ep_rew_mean")
    shown = "" if score is None else f"{score:.4g}"
    return shown, summary["steps"], "finished" if greedy else "finished, not evaluated"


if __name__ == "__main__":
    sys.exit(main())
