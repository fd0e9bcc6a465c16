"""Importing what a user names, as in `--network mynets:MyNet`."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

from seqrl.core.errors import UsageError, closest, explain


def named_object(name: str, told: str, expected: str = "module:Class") -> Any:
    """Return what `module:Class` names; UsageError, which begins as told, where there is none."""
    module, _, attribute = name.partition(":")
    near = ""
    try:
        loaded = import_named(module)
        near = closest(attribute, vars(loaded))
        return getattr(loaded, attribute)
    except Exception as error:  # whatever a module of the user's may do
        if module.endswith(".py"):
            near = f' Did you mean "{module.removesuffix(".py")}:{attribute}"?'
        raise UsageError(f"{told}: {explain(error)}; expected {expected}.{near}") from error


def import_named(name: str) -> ModuleType:
    """Import a module, from the current folder where a script runs and the folder has it.

    Scripts have the current folder last on their path, so that it lends nothing by accident; a name
    that is typed means the file there, whatever else is installed. Raises ImportError where another
    module of that name is loaded already, besides what the module raises itself.
    """
    top = name.partition(".")[0]
    spec = _beside(top)
    if spec is not None and (loaded := sys.modules.get(top)) is None:
        _load(spec)
    elif spec is not None and getattr(loaded, "__file__", None) != spec.origin:
        other = getattr(loaded, "__file__", "built into Python")
        raise ImportError(f"another {top} is loaded already, {other}: give yours another name")
    return importlib.import_module(name)


def _beside(name: str) -> ModuleSpec | None:
    """Return the spec of a module in the current folder; None without one or outside a script."""
    if "" not in sys.path or not name.isidentifier():
        return None
    importlib.invalidate_caches()
    spec = PathFinder.find_spec(name, [""])
    return spec if spec is not None and spec.has_location else None


def _load(spec: ModuleSpec) -> None:
    """Load a module; leave nothing of it where it raises."""
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
