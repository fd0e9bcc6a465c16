"""The files of a comparison: tables, text, picture, TensorBoard's charts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seqrl.core.errors import UsageError
from seqrl.training.comparison.charts import write_charts
from seqrl.training.comparison.compare import Table
from seqrl.training.comparison.plot import draw
from seqrl.training.comparison.report import as_csv, as_json, markdown
from seqrl.training.runs.folder import check_writable, plain_name


def named_folder(logdir: str, envs: Iterable[str], algorithms: Iterable[str]) -> Path:
    """Return the folder for a comparison of these, LOGDIR/compare-ENVS-ALGORITHMS."""
    parts = "-".join("+".join(dict.fromkeys(part)) for part in (envs, algorithms))
    return Path(logdir) / plain_name(f"compare-{parts}")


def make_folder(out: Path) -> Path:
    """Make a folder, new, empty, or that of an earlier comparison, which will be replaced."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_writable(out)
        if any(out.iterdir()) and not (out / "compare.json").exists():
            raise UsageError(f"{out} holds something else than a comparison: name another --out")
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}; name another --out") from error
    return out


def write(table: Table, out: Path) -> str:
    """Write all files of a comparison; return why the picture could not be drawn, or ""."""
    text = markdown(table)
    written = {"compare.json": as_json(table), "compare.csv": as_csv(table), "compare.md": text}
    for name, content in written.items():
        (out / name).write_text(content, encoding="utf-8")
    write_charts(out, table, text)
    try:
        draw(table, out / "compare.png")
    except UsageError as error:
        (out / "compare.png").unlink(missing_ok=True)  # an older one would not belong
        return str(error)
    return ""
