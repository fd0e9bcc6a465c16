"""Tests that change torch for good, each in a process of its own: forked from a fresh one."""

from __future__ import annotations

import importlib
import multiprocessing
import traceback
from typing import Any

FRESH = multiprocessing.get_context("forkserver")


def failure(module: str, test: str, given: dict[str, Any]) -> str:
    """Run a test of a module with what it is given; return what failed, if anything."""
    FRESH.set_forkserver_preload([module, "torch._dynamo"])  # which is slow to import
    here, there = FRESH.Pipe(duplex=False)
    process = FRESH.Process(target=tell, args=(there, module, test, given))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return "the process has ended without a word"
    finally:
        process.join()


def tell(there: Any, module: str, test: str, given: dict[str, Any]) -> None:
    try:
        getattr(importlib.import_module(module), test)(**given)
        there.send("")
    except BaseException:
        there.send(traceback.format_exc())
