"""Samples: rows of a data set, and what belongs to each: a label, numbers or the row itself."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_amount, check_choice, check_whole
from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws
from seqrl.envs.tasks.files import mark
from seqrl.envs.tasks.generated import GENERATED, generated
from seqrl.envs.tasks.rows import Rows, iris, load

SETS = ("iris", *GENERATED)
ANSWERS = ("label", "numbers", "observation")


@dataclass(frozen=True)
class Samples:
    """A row is shown, and what belongs to it has to be said; one step.

    set: "iris", 150 flowers of 3 species by 4 lengths (Anderson 1935, Fisher 1936); "digits", drawn
        with a pen of seven strokes on 8 x 8 pixels from 0 to 1; "line", y = 3 x + 2 with x from
        [0, 1); "curve", y = 30 x^2 + 0.5 x + 0.2 with x from [-2, 2).
    path: a file of the user's instead: CSV with a header, whose last column belongs to the others,
        or npz with arrays x [M, ...] and y [M, ...].
    answer: "label" (Discrete), "numbers" (Box) or "observation", the row itself without `noise`, as
        an autoencoder says it; by default what the set has, of a file a label where it is text or
        whole numbers of an npz.
    noise: spread of Gaussian noise: of y in lines and curves, of the pixels shown of digits.
    size: rows that are generated, by default 300, and 2,000 digits.
    part: "all" rows, or those to "train" on or the share `held_out` to "test", which are the same
        for the same data_seed.
    data_seed: of the rows that are generated and of the parts.

    Reward of a label 1 where it is right, else 0; of numbers minus the mean squared error.
    """

    set: str = "iris"
    path: str | None = None
    target: str | None = field(default=None, metadata={"option": "answer"})
    noise: float = 0.0
    size: int | None = None
    part: str = "all"
    held_out: float = 1 / 3
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_choice("set", self.set, SETS)
        check_choice("part", self.part, ("all", "train", "test"))
        check_whole("data_seed", self.data_seed, 0)
        check_amount("noise", self.noise)
        if self.target is not None:
            check_choice("answer", self.target, ANSWERS)
        if not 0 < self.held_out < 1:
            raise UsageError(f"held_out {self.held_out!r}: expected a share between 0 and 1")
        if self.path is not None or self.set == "iris":
            self._refuse_generating()
        elif self.size is not None:
            check_whole("size", self.size, 2)
        self._check_answer()

    def __repr__(self) -> str:
        """Return the options, with a checksum of a file: a run goes on with the same one only."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        options = ", ".join(f"{name}={value!r}" for name, value in told.items())
        found = "" if self.path is None else f", checksum={mark(self.path)!r}"
        return f"Samples({options}{found})"

    def _refuse_generating(self) -> None:
        what = "path" if self.path is not None else f"set={self.set}"
        for name in ("noise", "size", *(["set"] if self.path is not None else [])):
            if getattr(self, name) != getattr(Samples, name):
                given = f"{name} {getattr(self, name)!r}"
                raise UsageError(f"{given}: {what} has rows of its own; leave one out")

    def _check_answer(self) -> None:
        value = self.rows.value
        if self.target == "label" and not self.rows.labels:
            raise UsageError(f"answer 'label': the set {self.set} has numbers; leave it out")
        if self.target == "numbers" and self.rows.labels:
            raise UsageError("answer 'numbers': these rows have labels; leave it out")
        if value is not None and self.rows.labels and len(self.rows.labels) < 2:
            raise UsageError(f"path {self.path!r}: one label alone; expected two or more")

    @cached_property
    def rows(self) -> Rows:
        """Return all rows, of every part."""
        if self.path is not None:
            return load(self.path, self.target, mark(self.path))
        if self.set == "iris":
            return iris()
        return generated(self.set, self.size, self.noise, self.data_seed)

    @property
    def values(self) -> np.ndarray:
        """Return what belongs to all rows: labels, int64 [M], or numbers, float32 [M, ...]."""
        value = self.rows.clean if self.target == "observation" else self.rows.value
        assert value is not None  # a file without one is refused
        return value if self.labelled else value.astype(np.float32)

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is shown in the rows of this part, [M, ...], and what belongs to them."""
        count = len(self.rows.shown)
        order = np.random.default_rng([self.data_seed, 1]).permutation(count)
        test = min(max(1, round(self.held_out * count)), count - 1)
        kept = np.sort({"all": order, "test": order[:test], "train": order[test:]}[self.part])
        return self.rows.shown[kept], self.values[kept]

    @property
    def labelled(self) -> bool:
        """Return whether the answers are labels."""
        return self.target != "observation" and bool(self.rows.labels)

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of what is shown, bounded by all rows."""
        shown = self.rows.shown
        if shown.dtype == np.uint8:
            return spaces.Box(0, 255, shown.shape[1:], np.uint8)
        return between(shown)

    @property
    def action_space(self) -> spaces.Discrete | spaces.Box:
        """Return the space of labels, or of numbers between the least and the greatest of all."""
        return spaces.Discrete(len(self.rows.labels)) if self.labelled else between(self.values)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return 1

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return N rows, drawn with replacement, and what belongs to them."""
        shown, value = self.data
        drawn = draws.integers(len(shown), n)
        return {"shown": draws.constant(shown)[drawn], "value": draws.constant(value)[drawn]}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return what is shown [N, ...]."""
        return 1 * episodes["shown"]

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with what belongs to the row."""
        value, over = episodes["value"], episodes["time"] == 1
        if self.labelled:
            return {}, xp.asarray(action == value, dtype=xp.float32), over
        error = (action - value).reshape(len(value), -1)
        return {}, -(error * error).mean(1), over

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return what belongs to the row."""
        return 1 * episodes["value"], episodes["time"] >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores of this part's rows; there is nothing to remember.

        The optimum knows every row by heart: of rows that look alike it says the commonest label or
        the mean. Random numbers are uniform between the bounds.
        """
        shown, value = self.data
        _, kind = np.unique(shown.reshape(len(shown), -1), axis=0, return_inverse=True)
        if self.labelled:
            best, random = by_label(kind.ravel(), value, len(self.rows.labels))
        else:
            best, random = by_numbers(kind.ravel(), value, between(self.values))
        return {"optimum": best, "memoryless": best, "random": random}


def between(numbers: np.ndarray) -> spaces.Box:
    """Return the space of numbers between the least and the greatest of rows [M, ...].

    What never changes gets a width of 1, as Gymnasium warns of none.
    """
    low, high = (np.asarray(end, np.float32) for end in (numbers.min(0), numbers.max(0)))
    return spaces.Box(low, high + (low == high), dtype=np.float32)


def by_label(kind: np.ndarray, label: np.ndarray, labels: int) -> tuple[float, float]:
    """Return the best and the random share of right labels; rows of one `kind` [M] look alike."""
    counts = np.zeros((kind.max() + 1, labels))
    np.add.at(counts, (kind, label), 1)
    return float(counts.max(1).sum() / len(kind)), 1 / labels


def by_numbers(kind: np.ndarray, value: np.ndarray, space: spaces.Box) -> tuple[float, float]:
    """Return minus the best and the random mean squared error; see `by_label`."""
    numbers = value.reshape(len(value), -1).astype(np.float64)
    means = np.zeros((kind.max() + 1, numbers.shape[1]))
    np.add.at(means, kind, numbers)
    means /= np.bincount(kind)[:, None]
    low, high = (end.ravel().astype(np.float64) for end in (space.low, space.high))
    random = (high - low) ** 2 / 12 + ((low + high) / 2 - numbers) ** 2
    return 0.0 - float(((numbers - means[kind]) ** 2).mean()), -float(random.mean())
