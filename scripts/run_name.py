"""The agent's part of a run's folder: who learned, and what was typed that changes what."""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqrl.scripts.options import Parser, flag_value, words_of
from seqrl.training.runs.folder import run_label, shortened

LONGEST = 80  # bytes of a name
UNNAMED = {  # where it is, how long it is, what is watched, and how it is executed
    *("agent", "env", "seed", "seeds", "steps", "episodes"),
    *(
        "logdir",
        "run_dir",
        "quiet",
        "debug",
        "pictures",
        "checkpoint_every",
        "resume",
        "search_trial",
    ),
    *("eval_every", "eval_episodes", "eval_env_args", "stop_at", "patience"),
    *("processes", "worker_timeout", "restart_workers", "threads", "compile"),
    *("deterministic", "device", "backend"),
}


def run_name(argv: Sequence[str], parser: Parser, agent: str, varied: Sequence[str] = ()) -> str:
    """Return the agent and each setting typed, as in `ppo,network=gru,num_envs=8`.

    `argv` is as typed: what a preset or an alias stands for is not in it. What is `varied` in a
    comparison is always named. The order is that of the flags' help, so that the same settings
    have the same name; but for wrappers, whose order counts.
    """
    order = {id(action): place for place, action in enumerate(parser._actions)}
    found: dict[tuple[int, str], str] = {}
    for action, word in typed(argv, parser, varied):
        place, (key, text) = order[id(action)], label(action, word, parser)
        if action.dest == "wrappers":  # as typed: two of a kind, and an argument of each, count
            place, key = order[id(parser._option_string_actions["--wrapper"])], f"{len(found):06}"
        found[place, key] = text
    agent = flag_value(argv, "--agent", agent)
    return shortened(",".join([agent, *(found[key] for key in sorted(found))]), LONGEST)


def typed(
    argv: Sequence[str], parser: Parser, varied: Sequence[str]
) -> Iterator[tuple[Action, str]]:
    """Yield the flags that change what is learned, each with the word typed for it."""
    always = {flag for flag, _ in words_of(varied)}
    for flag, word in words_of(argv):
        action = parser._option_string_actions.get(flag)
        if action is not None and (flag in always or action.dest not in UNNAMED):
            switch = "false" if flag.startswith("--no-") else "true"
            yield action, switch if action.nargs == 0 else word


def label(action: Action, word: str, parser: Parser) -> tuple[str, str]:
    """Return what tells a repeatable flag's words apart, and how the name shows the word."""
    if action.nargs == 0:
        return "", f"{action.dest}={word}"
    value = parser._get_value(action, word)
    if isinstance(value, tuple):  # name=value
        name, found = word.partition("=")[0], value[1]
        as_it_is = action.dest == "bin_range" or isinstance(found, str)
        return name, word if as_it_is else f"{name}={str(found).replace(' ', '')}"
    if action.dest == "wrappers":
        return word, f"wrapper={word}"
    if action.dest == "from":
        return word, f"from={run_label(Path(word))}"
    if action.dest == "dataset":
        return word, f"dataset={Path(word).name}"
    return "", f"{action.dest}={Path(word).stem if action.dest == 'config' else value}"
