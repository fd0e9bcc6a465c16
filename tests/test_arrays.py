"""Arrays and memory: what counts as free."""

import os

import pytest

from seqrl.core import UsageError, arrays

MEMINFO = (
    "MemTotal: 24683656 kB\nMemFree: 1000 kB\nMemAvailable:   20000000 kB\nCached: 19999000 kB\n"
)


def test_memory_that_caches_give_back_is_available(tmp_path, monkeypatch):
    """A replay of 15 GiB fits, although next to nothing is free."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(arrays, "MEMINFO", tmp_path / "meminfo")
    arrays.check_memory(15 * 2**30, "a replay", "take less")
    with pytest.raises(UsageError, match=r"a replay takes 16.0 GiB, 19.1 are free; take less"):
        arrays.check_memory(16 * 2**30, "a replay", "take less")


@pytest.mark.parametrize("text", [None, "MemTotal: 24683656 kB\n"])
def test_where_it_is_not_told_all_memory_counts(tmp_path, monkeypatch, text):
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    monkeypatch.setattr(arrays, "MEMINFO", tmp_path / "meminfo")
    assert arrays.available_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
