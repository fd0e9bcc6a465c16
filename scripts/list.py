"""`seqrl list`: print agents and environments, a line each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from seqrl.scripts.options import Parser, guarded


@guarded
def main(argv: Sequence[str]) -> int:
    """Print the lists."""
    parser = Parser(prog="seqrl list", description="Agents and environments, a line each.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.read(argv)
    from seqrl.agents.registry import AGENTS
    from seqrl.scripts.settings import presets

    print("agents (seqrl train --agent NAME --help shows the flags)")
    for name, entry in AGENTS.items():
        print(f"  {name:<14} {entry.line}")
    for name, preset in presets().items():
        if preset.alias:
            same = f"{preset.agent} --network {preset.settings['network']} --preset {name}"
            print(f"  {name:<14} {same}")
    print("\npresets (--preset NAME; by themselves where agent and environment are theirs)")
    for name, preset in presets().items():
        where = f"{preset.agent} on {preset.env}" if preset.env else preset.agent
        print(f"  {name:<24} {where}: {preset.reached}")
    print("\nenvironments (any other Gymnasium id that is installed works too)")
    for line in environments():
        print(f"  {line}")
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
