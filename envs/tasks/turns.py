"""Texts in turns, read from a user's file: pairs in two columns, or dialogues a line a turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from seqrl.core.errors import UsageError, counted
from seqrl.envs.tasks.files import read_text


class Turn(NamedTuple):
    """What is said to the agent and what is right to reply; the lines they stand in, from 1."""

    texts: tuple[str, str]
    lines: tuple[int, int]


Row = tuple[Turn, ...]  # a pair has one turn


def pairs(name: str, text: str) -> list[Row]:
    """Return the pairs of lines SOURCE<TAB>TARGET; empty lines are left out."""
    found: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) != 2:
            tabs = f"{len(cells) - 1} tabs" if len(cells) > 2 else "no tab"
            raise UsageError(f"{name}, line {number}: {tabs}; expected SOURCE<TAB>TARGET")
        for cell, what in zip(cells, ("source", "target"), strict=True):
            if not cell.strip():
                raise UsageError(f"{name}, line {number}: an empty {what}; expected text")
        found.append((Turn((cells[0].strip(), cells[1].strip()), (number, number)),))
    return found


def dialogues(name: str, text: str) -> list[Row]:
    """Return dialogues, which empty lines part: what the user says and the reply in turn."""
    found: list[Row] = []
    lines: list[tuple[int, str]] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            lines.append((number, line.strip()))
        elif lines:
            if len(lines) % 2:
                what = f"a dialogue of {counted(len(lines), 'line')}, the last without a reply"
                raise UsageError(f"{name}, line {lines[-1][0]}: {what}; expected an even number")
            both = zip(lines[::2], lines[1::2], strict=True)
            found.append(tuple(Turn((said, reply), (i, j)) for (i, said), (j, reply) in both))
            lines = []
    return found


FORMS: dict[str, Callable[[str, str], list[Row]]] = {"pairs": pairs, "dialogues": dialogues}


@lru_cache(8)
def read_turns(path: str, form: str, checksum: str) -> list[Row]:
    """Return the rows of a file, read once; UsageError for the first line that is wrong."""
    rows = FORMS[form](f"path {path!r}", read_text("path", path))
    if len(rows) < 2:
        raise UsageError(f"path {path!r}: {counted(len(rows), form[:-1])}; expected two or more")
    return rows
