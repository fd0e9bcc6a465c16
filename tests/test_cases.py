"""Small inputs that once went wrong, one fault a script in cases/: each says PASS."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize("name", sorted(file.name for file in CASES.glob("[0-9]*.py")))
def test_a_case_holds(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(CASES / name)])
    monkeypatch.syspath_prepend(CASES)
    monkeypatch.setenv("SEQRL_TREE", str(CASES.parent.parent))
    monkeypatch.setenv("BUGTMP", str(tmp_path))
    monkeypatch.delitem(sys.modules, "_lib", raising=False)
    with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
        warnings.simplefilter("ignore")
        runpy.run_path(str(CASES / name), run_name="__main__")
    assert not end.value.code, capsys.readouterr().out
