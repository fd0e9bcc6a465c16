"""From a run's folder, which is not trusted, to its config, its parts and its agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqrl.core.errors import UsageError, explain
from seqrl.envs.registry import check_code, own_code
from seqrl.envs.wrapping import is_trusted, named
from seqrl.training.runs import folder as runs
from seqrl.training.runs import parts as run_parts
from seqrl.training.runs import saved_run
from seqrl.training.runs.defaults import AUTO
from seqrl.training.runs.offline import with_target
from seqrl.training.runs.parts import RunParts

CODE = ("agent", "env", "network")  # settings that may import code
Build = Callable[[dict[str, Any]], RunParts]


def load_parts(
    folder: Path,
    allowed: Mapping[str, Any],
    *,
    best: bool = False,
    build: Build = run_parts.build,
    target_return: float | None = None,
    evaluated: bool = False,
) -> RunParts:
    """Return the parts of a run from its newest checkpoint, or from its best one.

    Its folder is not trusted: `allowed` has to name again any code that it would import; the
    `env_args` there take the place of the run's own. `build` makes the parts from the config, in
    the run's environment, whatever it learned from; `evaluated`: with the environments that the
    run is evaluated in. `target_return` is wanted where the agent sees what is (--condition-on
    return).
    """
    config = allowed_config(folder, allowed)
    config.pop("dataset", None)
    if evaluated:
        config = run_parts.eval_config(config)
    numbers = config.get("agent_args", {})
    if numbers.get("device", "cpu") != "cpu":  # a GPU, which may not be here
        config["agent_args"] = {**numbers, "device": AUTO}
    config["env_args"] = {**config.get("env_args", {}), **(allowed.get("env_args") or {})}
    if target_return is not None:
        config = with_target(config, target_return)
    if best and not runs.best_path(folder).exists():
        raise UsageError(f"{folder}: no best agent was kept; train with --eval-every to keep it")
    saved = saved_run.read(runs.best_path(folder)) if best else saved_run.newest(folder)
    if saved is None:
        raise UsageError(f"{folder}: nothing was saved there")
    parts = build_parts(folder, config, build)
    try:
        parts.agent.load_state_dict(saved["loop"]["agent"])
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} holds no run of this version: {explain(error)}") from error
    return parts


def allowed_config(folder: Path, allowed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run folder, which is not trusted.

    `allowed` has to name again, by flag, any code that it would import, and can name nothing else.
    """
    config = runs.read_config(folder)
    check_code_named(str(folder), config, allowed)
    for flag in CODE:
        code, own = allowed.get(flag), str(config.get(flag) or "")
        if code not in (None, own):
            found = f"its {flag} is {own}" if own else f"it has no {flag}, it learned a table"
            remedy = f"leave --{flag} out, or name the run that has it"
            raise UsageError(f"--{flag} {code}: {folder} is another run, {found}; {remedy}")
    names = [name for name, _ in named(config.get("wrappers"))]
    for name in allowed.get("wrappers", ()):
        if name not in names:
            raise UsageError(f"--wrapper {name}: the run has no such wrapper, and keeps its own")
    check_code(env_id_of(config), allowed.get("env_args") or {})
    return config


def env_id_of(config: Mapping[str, Any]) -> str:
    """Return the id of a config's environment, without the module that registers it."""
    return str(config.get("env")).rpartition(":")[2]


def check_code_named(place: str, config: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    """Refuse a config of a place that is not trusted where it would import code not `allowed`."""
    for flag in CODE:
        own = str(config.get(flag) or "")
        if ":" in own and own != allowed.get(flag):
            remedy = f"to allow it, add --{flag} {own} (in Python {flag}={own!r})"
            raise UsageError(f"{place}: its {flag} imports code; {remedy}")
    for name, _ in named(config.get("wrappers")):
        if not (is_trusted(name) or name in allowed.get("wrappers", ())):
            remedy = f"to allow it, add --wrapper {name} (in Python wrappers=[{name!r}])"
            raise UsageError(f"{place}: its wrapper imports code; {remedy}")
    typed = allowed.get("env_args") or {}
    for table in ("env_args", "eval_env_args"):
        args = {**(config.get(table) or {}), **typed}
        for name, code in own_code(env_id_of(config), args).items():
            if typed.get(name) != code:
                remedy = f"to allow it, add --env-arg {name}={code}"
                python = f"(in Python env_args={{{name!r}: {code!r}}})"
                raise UsageError(f"{place}: its {name} imports code; {remedy} {python}")


def build_parts(folder: Path, config: dict[str, Any], build: Build = run_parts.build) -> RunParts:
    """Build the parts of a run; raise UsageError for a config of an older version."""
    try:
        return build(config)
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} holds no run of this version: {explain(error)}") from error
