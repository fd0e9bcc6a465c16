"""How tokens are written: words, characters or bytes, and their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from seqrl.core.checks import check_choice
from seqrl.core.errors import UsageError, closest

UNITS = ("word", "char", "byte")
SPECIAL = ("<pad>", "<begin>", "<end>")  # tokens 0, 1 and 2
UNKNOWN = "<unknown>"


@dataclass(frozen=True)
class Vocabulary:
    """The `words` have the tokens from 3 on; `unit` says what a word is: "word", "char", "byte".

    With a word "<unknown>" all that are not known have its token; else they are refused.
    """

    words: tuple[str, ...]
    unit: str = "word"

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, UNITS)
        if reserved := [word for word in SPECIAL if word in self.number]:
            raise UsageError(f"vocabulary: {reserved[0]!r} is a token of its own; leave it out")
        if len(self.number) < len(self.words):
            twice = next(word for i, word in enumerate(self.words) if word in self.words[:i])
            raise UsageError(f"vocabulary: {twice!r} is there twice; expected each word once")

    def __len__(self) -> int:
        """Return how many tokens there are, the special ones included."""
        return len(SPECIAL) + len(self.words)

    @cached_property
    def number(self) -> dict[str, int]:
        """Return the token of each word."""
        return {word: token for token, word in enumerate(self.words, len(SPECIAL))}

    def encode(self, text: str, where: str = "text") -> list[int]:
        """Return the tokens of a text; UsageError, which says `where`, for unknown words."""
        pieces, number = split(text, self.unit), self.number
        other = number.get(UNKNOWN)
        unknown = [piece for piece in dict.fromkeys(pieces) if piece not in number]
        padding = [piece for piece in unknown if piece in SPECIAL]
        if padding:
            remedy = "replies are begun, ended and padded here; leave it out"
            raise UsageError(f"{where}: {padding[0]!r} is no {self.unit}: {remedy}")
        if unknown and other is None:
            raise UsageError(f"{where}: {self._unknown(unknown)}")
        return [number.get(piece, other) for piece in pieces]  # type: ignore[misc]

    def _unknown(self, found: list[str]) -> str:
        """Return what is said of words that are not known."""
        named = ", ".join(repr(piece) for piece in found[:5]) + ", ..." * (len(found) > 5)
        hint = closest(found[0], self.words) if self.unit == "word" else ""
        plural = "s" * (len(found) > 1)
        return f"unknown {self.unit}{plural} {named}; the vocabulary has {len(self.words):,}.{hint}"

    def word(self, token: int) -> str:
        """Return how a token is written."""
        special = len(SPECIAL)
        return SPECIAL[token] if token < special else self.words[token - special]

    def spell(self, tokens: Iterable[int]) -> list[str]:
        """Return the words of tokens up to END, or to where padding begins."""
        found = []
        for token in map(int, tokens):
            if token in (0, 2):
                break
            found.append(self.word(token))
        return found

    def decode(self, tokens: Iterable[int]) -> str:
        """Return tokens as a text, as `spell` reads them."""
        found = self.spell(tokens)
        if self.unit != "byte":
            return (" " if self.unit == "word" else "").join(found)
        codes = bytes(int(word, 16) for word in found if word not in SPECIAL)
        return codes.decode("utf-8", errors="replace")


BYTES = Vocabulary(tuple(f"{code:02x}" for code in range(256)), "byte")


def split(text: str, unit: str) -> list[str]:
    """Return the words, characters, or bytes of UTF-8 in two hexadecimal digits, of a text."""
    if unit == "byte":
        return [f"{code:02x}" for code in text.encode()]
    return text.split() if unit == "word" else list(text)
