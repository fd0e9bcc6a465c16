"""Writing episodes.csv: one row an episode, thinned beyond a million."""

from __future__ import annotations

from pathlib import Path

from seqrl.training.runs.growing_file import GrowingFile

ROWS = 1_000_000  # complete up to here; then every tenth episode, every hundredth, ...
ROW = "{},{!r},{}\n".format
THINNED = f"complete to {ROWS:,} episodes, then every 10th, from ten times as many every 100th ..."


class EpisodesCsv:
    """Appends to `folder`/episodes.csv: env step of the episode's end, return, length."""

    def __init__(self, folder: Path):
        path = folder / "episodes.csv"
        self.file = GrowingFile(path)
        if not path.stat().st_size:
            self.file.write(b"step,return,length\n")
        self.episodes = 0  # finished so far, those without a row included

    def write(self, steps: list[int], returns: list[float], lengths: list[int]) -> None:
        """Write the rows of episodes in the order in which they ended, lists of one length."""
        done = 0
        while done < len(steps):
            every = thinning(self.episodes)
            count = min(len(steps) - done, every * ROWS - self.episodes)
            kept = slice(done + -self.episodes % every, done + count, every)
            rows = map(ROW, steps[kept], returns[kept], lengths[kept])
            self.file.write("".join(rows).encode())
            self.episodes += count
            done += count

    @property
    def thinned(self) -> bool:
        """Return whether episodes have been left out."""
        return self.episodes > ROWS


def thinning(episodes: int) -> int:
    """Return every how many episodes a row is kept: all up to 10^6, then every tenth, ..."""
    return 10 ** len(str(episodes // ROWS)) if episodes >= ROWS else 1
