"""What an object saves, declared once a class: a table of attributes and how each is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, NamedTuple

import numpy as np

from seqrl.core import schema, tree
from seqrl.core.seeding import get_rng_state, set_rng_state


class Kept(NamedTuple):
    """How an attribute is kept: as what it is saved, how that is checked, and loaded.

    save: from the attribute to arrays and plain values. check: refuse (UsageError) what is saved
    under a name and does not fit the attribute. load: from the attribute and what is saved to the
    attribute's new value.
    """

    save: Callable[[Any], Any]
    check: Callable[[str, Any, Any], None]
    load: Callable[[Any, Any], Any]


def plain(expected: Any) -> Kept:
    """Keep numbers and texts as they are, checked by a schema."""
    return Kept(
        lambda value: value,
        lambda name, value, saved: schema.check(name, saved, expected),
        lambda value, saved: saved,
    )


def restored(value: Any, saved: Any) -> Any:
    """Load a part that has a state of its own, where one was saved."""
    if saved is not None:
        value.load_state_dict(saved)
    return value


def check_part(name: str, value: Any, saved: Any) -> None:
    """Check a part's state before anything is loaded, where the part can."""
    if isinstance(value, Saved):
        value.check_state(saved, name)


def restored_rng(value: np.random.Generator, saved: Any) -> np.random.Generator:
    """Set a generator's state."""
    set_rng_state(value, saved)
    return value


NUMBER = plain(0)  # a whole number of at least 0
PART = Kept(lambda value: None if value is None else value.state_dict(), check_part, restored)
ARRAYS = Kept(  # named arrays of the same dtypes and shapes
    dict,
    lambda name, value, saved: schema.check(name, saved, dict(value)),
    lambda value, saved: tree.map(np.array, saved),
)
RNG = Kept(  # what does not fit is refused by a copy, so that nothing changes
    get_rng_state, lambda name, value, saved: set_rng_state(deepcopy(value), saved), restored_rng
)


class Saved:
    """Saves, checks and loads the attributes that SAVED names, in its order."""

    SAVED: ClassVar[Mapping[str, Kept]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the kept attributes as arrays and plain values; arrays may be live ones."""
        return {name: kept.save(getattr(self, name)) for name, kept in self.SAVED.items()}

    def check_state(self, state: Any, name: str) -> None:
        """Refuse (UsageError) what this object has not saved; nothing changes."""
        schema.check(name, state, dict.fromkeys(self.SAVED, schema.anything))
        for entry, kept in self.SAVED.items():
            kept.check(f"{name}/{entry}", getattr(self, entry), state[entry])

    def load_state_dict(self, state: dict[str, Any], name: str = "agent") -> None:
        """Continue where `state` was taken; refuse (UsageError) what does not fit by its name."""
        with schema.loading(name):
            self.check_state(state, name)
            for entry, kept in self.SAVED.items():
                setattr(self, entry, kept.load(getattr(self, entry), state[entry]))
