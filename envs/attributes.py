"""Attributes of Python objects as arrays and plain values, and back.

Kept as they are: None, numbers, texts, arrays of numbers, and lists, tuples and dicts of these.
Under a tag: NumPy scalars, long lists of numbers, deques, enum members, named tuples, random
generators, and objects of plain attributes. A value that two names share is kept once.
"""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Sequence
from enum import Enum
from functools import cached_property, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from seqrl.core import schema
from seqrl.core.errors import UsageError
from seqrl.core.seeding import get_rng_state, set_rng_state

CODE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, partial)
CONSTANT = (*CODE, gym.Space, EnvSpec)  # do not change while an environment runs
# what made an environment, and wall clocks, which are told to people alone
IGNORED = {"metadata", "_metadata", "_saved_kwargs", "_ezpickle_args", "_ezpickle_kwargs"}
IGNORED |= {"_cached_spec", "episode_start_time", "episode_start_times", "time_queue"}
NEW_OBJECT = object().__reduce_ex__(2)[0]  # how an object without a state of its own is copied
CONSTANT_TAG = "$constant"  # it is as it was in whoever restores it
LONG = 32  # numbers in a list, from which they are kept as an array
GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class Unkept(Exception):
    """A value that cannot be kept; the text names it."""


class UnknownClass(UsageError):
    """An object that was kept is of a class that is none of these environments'."""


def is_constant(value: Any) -> bool:
    """Return whether a value is code or a space, or holds nothing else."""
    if type(value) in (list, tuple, dict) and len(value):
        return all(map(is_constant, value.values() if type(value) is dict else value))
    return isinstance(value, CONSTANT)


def attributes_of(owner: Any) -> dict[str, Any]:
    """Return the attributes of an object that are looked at, in the order of their names."""
    return {name: value for name, value in sorted(vars(owner).items()) if name not in IGNORED}


def has_default_copy(kind: type) -> bool:
    """Return whether a class leaves it to Python how its objects are copied and deleted."""
    own = ("__setstate__", "__copy__", "__del__")
    if any(hasattr(kind, name) for name in own):
        return False
    default = ("__reduce__", "__reduce_ex__", "__getstate__")
    return all(getattr(kind, name) is getattr(object, name) for name in default)


def is_plain(value: Any) -> bool:
    """Return whether an object consists of its attributes alone."""
    kind = type(value)
    if not has_default_copy(kind):
        return False
    try:
        make, given, state, *items = value.__reduce_ex__(2)
    except Exception:  # of a class that does not let itself be copied
        return False
    whole = make is NEW_OBJECT and given == (kind,) and not any(items)
    return whole and hasattr(value, "__dict__") and not isinstance(state, tuple)


class Packer:
    """Packs the attributes of objects that belong together.

    `owners` are referred to by number. At most `limit` plain values are packed (Unkept beyond).
    """

    def __init__(self, owners: Sequence[Any], limit: int):
        self.shared = {id(owner): i for i, owner in enumerate(owners)}
        self.kept = list(owners)  # holds on to what is shared, as an id is free again after it
        self.examples: dict[str, Any] = {}  # an object of each class that was met
        self.left = limit

    def attributes(self, owner: Any, name: str) -> dict[str, Any]:
        """Return the packed attributes of an object by name."""
        packed = {}
        for key, part in attributes_of(owner).items():
            if is_constant(part):
                packed[key] = {CONSTANT_TAG: None}
            elif is_code(getattr(type(owner), key, None)):
                raise Unkept(f"{name}.{key} stands for a method")
            else:
                packed[key] = self.pack(part, f"{name}.{key}")
        return packed

    def pack(self, value: Any, name: str) -> Any:
        """Return a value as arrays and plain values; Unkept where that is not possible."""
        self.left -= 1 + (len(value) // 16 if type(value) is str else 0)
        if self.left < 0:
            raise Unkept(f"{name}: too many values")
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.generic):
            return {"$scalar": self._array(np.array(value), name)}
        if isinstance(value, Enum):
            return {"$member": [self._class(value), value.name]}
        if isinstance(value, tuple):
            return self._tuple(value, name)
        if id(value) in self.shared:
            return {"$shared": [self.shared[id(value)], type(value).__name__]}
        self.shared[id(value)] = len(self.kept)
        self.kept.append(value)
        return self._mutable(value, name)

    def _tuple(self, value: Any, name: str) -> Any:
        parts = tuple(self.pack(part, f"{name}[{i}]") for i, part in enumerate(value))
        if type(value) is tuple:
            return parts
        if not hasattr(value, "_make"):
            raise Unkept(f"{name} is a {type(value).__name__}")
        return {"$named": [self._class(value), parts]}

    def _mutable(self, value: Any, name: str) -> Any:
        if type(value) is np.ndarray:
            return self._array(value, name)
        if type(value) is list:
            return self._list(value, name)
        if type(value) is deque:
            return {"$deque": [self._list(value, name), value.maxlen]}
        if type(value) is dict:
            return self._dict(value, name)
        if isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
            return {f"${type(value).__name__}": random_state(value, name)}
        if not is_plain(value):
            raise Unkept(f"{name} is a {type(value).__name__}")
        return {"$object": [self._class(value), self.attributes(value, name)]}

    def _array(self, value: np.ndarray, name: str) -> Any:
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise Unkept(f"{name} is an array of {value.dtype}")
        return np.array(value, order="C")

    def _list(self, value: Any, name: str) -> Any:
        if len(value) > LONG and {*map(type, value)} in ({float}, {int}):
            numbers = np.array(value)
            if numbers.dtype in (np.int64, np.float64):
                return {"$numbers": numbers}
        return [self.pack(part, f"{name}[{i}]") for i, part in enumerate(value)]

    def _dict(self, value: dict[Any, Any], name: str) -> Any:
        for key in value:
            parts = key if type(key) is tuple else (key,)
            plain = all(part is None or type(part) in (bool, int, float, str) for part in parts)
            if not plain or str(key).startswith("$"):
                raise Unkept(f"{name} has the key {key!r:.50}")
        return {key: self.pack(part, f"{name}[{key!r}]") for key, part in value.items()}

    def _class(self, value: Any) -> str:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        self.examples[name] = value
        return name


def random_state(rng: Any, name: str) -> Any:
    """Return the state of a generator of NumPy's or Python's."""
    if type(rng) is np.random.Generator and type(rng.bit_generator).__name__ in GENERATORS:
        return get_rng_state(rng)
    if type(rng) is np.random.RandomState:
        return rng.get_state(legacy=False)
    if type(rng) is random.Random:
        version, words, gauss = rng.getstate()
        return [version, np.array(words, np.uint32), gauss]
    raise Unkept(f"{name} is a generator of {type(rng).__name__}")


class Unpacker:
    """Restores what a Packer packed.

    Whatever a state names, objects are of the classes of `owners` and `examples`, and of those that
    stand in the same modules.
    """

    def __init__(self, owners: Sequence[Any], examples: dict[str, Any]):
        self.made = list(owners)  # by the Packer's numbers
        self.examples = examples
        self.modules = {type(one).__module__ for one in (*owners, *examples.values())}

    def attributes(self, owner: Any, saved: dict[str, Any], name: str) -> None:
        """Restore the attributes of an object; those that were not there then are removed."""
        for key, value in attributes_of(owner).items():
            if not (key in saved or is_constant(value)):
                del vars(owner)[key]
        for key, part in saved.items():
            if isinstance(part, dict) and CONSTANT_TAG in part:
                if key not in vars(owner):
                    raise UnknownClass(
                        f"{name}/{schema.brief(key)}: it is code, of which there is none"
                    )
                continue
            if not key.isidentifier() or is_code(getattr(type(owner), key, None)):
                schema.refuse(f"{name}/{schema.brief(key)}", "an attribute", "none of this name")
            vars(owner)[key] = self.unpack(part, f"{name}/{key}")

    def unpack(self, saved: Any, name: str) -> Any:
        """Return the value that was packed."""
        if isinstance(saved, tuple):
            return tuple(self.unpack(part, name) for part in saved)
        if isinstance(saved, np.ndarray):
            return self._made(np.array(saved))
        if isinstance(saved, list):
            return self._filled(self._made([]), saved, name)
        if not isinstance(saved, dict):
            return saved
        tag, content = next(iter(saved.items()), (None, None))
        if isinstance(tag, str) and tag.startswith("$"):
            return self._tagged(tag, content, name)
        made = self._made({})
        made.update((key, self.unpack(part, name)) for key, part in saved.items())
        return made

    def _made(self, value: Any) -> Any:
        self.made.append(value)
        return value

    def _filled(self, made: Any, saved: Any, name: str) -> Any:
        if isinstance(saved, dict):
            made.extend(saved["$numbers"].tolist())
        else:
            made.extend(self.unpack(part, name) for part in saved)
        return made

    def _tagged(self, tag: str, content: Any, name: str) -> Any:
        """Return what was packed under a tag."""
        if tag in self.SIMPLE:
            return self.SIMPLE[tag](self, content)
        if tag == "$shared":
            number, kind = content
            if type(self.made[number]).__name__ != kind:
                schema.refuse(name, "another value", f"the {kind} of number {number}")
            return self.made[number]
        if tag == "$deque":
            return self._filled(self._made(deque(maxlen=content[1])), content[0], name)
        if tag == "$member":
            return self._class(content[0], name)[content[1]]
        if tag == "$named":
            return self._class(content[0], name)._make(self.unpack(content[1], name))
        if tag == "$object":
            made = self._made(self._new(content[0], name))
            self.attributes(made, content[1], name)
            return made
        return schema.refuse(name, schema.brief(tag), "a kind of value that is kept")

    def _class(self, saved: str, name: str) -> Any:
        """Return the class of a name; nothing is imported for it."""
        if saved in self.examples:
            return type(self.examples[saved])
        module, _, last = saved.rpartition(".")
        kind = getattr(sys.modules.get(module), last, None) if module in self.modules else None
        if not (isinstance(kind, type) and kind.__module__ == module):
            raise UnknownClass(f"{name}: there is no {schema.brief(saved)} here")
        return kind

    def _new(self, saved: str, name: str) -> Any:
        """Return a new object of a class of attributes alone."""
        if saved in self.examples:
            return copy.copy(self.examples[saved])  # with the code and spaces that it holds
        kind = self._class(saved, name)
        if not has_default_copy(kind):
            schema.refuse(name, schema.brief(saved), "a class of plain objects")
        return object.__new__(kind)

    SIMPLE: ClassVar[dict[str, Any]] = {
        "$scalar": lambda self, saved: np.array(saved)[()],
        "$numbers": lambda self, saved: self._made(saved.tolist()),
        "$Generator": lambda self, saved: self._made(generator_from(saved)),
        "$RandomState": lambda self, saved: self._made(random_state_from(saved)),
        "$Random": lambda self, saved: self._made(python_random_from(saved)),
    }


def is_code(value: Any) -> bool:
    """Return whether a class attribute is a method or a property."""
    own = callable(value) or hasattr(value, "__get__")
    return own and not isinstance(value, cached_property)


def generator_from(state: Any) -> np.random.Generator:
    """Return a Generator in a state."""
    kind = GENERATORS[GENERATORS.index(state["bit_generator"])]
    rng = np.random.Generator(getattr(np.random, kind)(0))
    set_rng_state(rng, state)
    return rng


def random_state_from(state: Any) -> np.random.RandomState:
    """Return a RandomState in a state."""
    rng = np.random.RandomState(0)
    rng.set_state(state)
    return rng


def python_random_from(state: Any) -> random.Random:
    """Return a generator of Python's in a state."""
    version, words, gauss = state
    rng = random.Random()
    rng.setstate((version, tuple(words.tolist()), gauss))
    return rng
