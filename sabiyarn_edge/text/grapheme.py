"""GraphemeHold passes text on up to the last position where a cut splits no letter.

A letter as readers see it is a grapheme cluster: a base character and everything that combines with it, like
ẹ + U+0301 in Yoruba, or an emoji with its skin tone. Until the next character is known, the last cluster may still
grow. If a rule needs tables that Python lacks, the cluster is assumed to go on. Text then waits for the next certain
border, and a letter is never split.

Source: Unicode Standard Annex 29, rules GB1 to GB999.
"""

from __future__ import annotations

import enum
import functools
import unicodedata

__all__ = ["GraphemeHold"]


class _Kind(enum.Enum):
    OTHER = enum.auto()
    CONTROL = enum.auto()  # stands alone: a border before and after it
    EXTENDING = enum.auto()  # never begins a cluster
    LINKER = enum.auto()  # extends, and joins the letter after it (virama)
    JOINER = enum.auto()  # extends, and joins the emoji after it
    PREPENDED = enum.auto()  # joins whatever comes after it
    FLAG = enum.auto()  # regional indicator: two make a flag
    HANGUL_LEAD = enum.auto()  # joins the Hangul after it


_PREPENDED = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd"
    "\U000111c2\U000111c3\U000113d1\U0001193f\U00011941\U00011a84\U00011a85\U00011a86\U00011a87\U00011a88"
    "\U00011a89\U00011d46\U00011f02"
)
# Extending, though their category is not a mark: ZWNJ, Thai and Lao AM, halfwidth voicing marks, skin tones.
_EXTENDING = frozenset("\u200c\u0e33\u0eb3\uff9e\uff9f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_JOINER = "\u200d"


@functools.lru_cache(maxsize=1024)  # more than the letters of any one text in our languages
def _kind(char: str) -> _Kind:
    if char < "\u0300":
        return _Kind.CONTROL if char < " " or "\x7f" <= char < "\xa0" or char == "\xad" else _Kind.OTHER
    if char == _JOINER:
        return _Kind.JOINER
    if char in _EXTENDING or "\U000e0020" <= char <= "\U000e007f":  # the latter: tags
        return _Kind.EXTENDING
    if char in _PREPENDED:
        return _Kind.PREPENDED
    if "\U0001f1e6" <= char <= "\U0001f1ff":
        return _Kind.FLAG
    if "\u1100" <= char <= "\u115f" or "\ua960" <= char <= "\ua97f":
        return _Kind.HANGUL_LEAD
    if "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff":  # Hangul vowels and tails
        return _Kind.EXTENDING
    category = unicodedata.category(char)
    if category[0] == "M":
        return (
            _Kind.LINKER if unicodedata.combining(char) == 9 else _Kind.EXTENDING
        )  # 9: the class of viramas
    if category == "Cn":  # assigned after this Python's Unicode version: perhaps a mark
        return _Kind.EXTENDING
    return _Kind.CONTROL if category in ("Cc", "Cf", "Zl", "Zp") else _Kind.OTHER


class GraphemeHold:
    """A stage of a text stream: holds the last cluster back until another one begins."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._held: list[str] = []
        self._last = ""
        self._last_kind = _Kind.CONTROL
        self._linked = False  # a virama has come since the cluster's base
        self._odd_flags = False  # the last character is the first half of a flag

    def push(self, text: str) -> str:
        """Take text; return what is final, which ends at a cluster's end."""
        border = None
        for index, char in enumerate(text):
            if self._begins_cluster(char):
                border = index
        if text and self._last_kind is _Kind.CONTROL and self._last != "\r":  # "\r\n" is one cluster
            border = len(text)
        if border is None:
            self._held.append(text)
            return ""
        final = "".join([*self._held, text[:border]])
        self._held = [text[border:]]
        return final

    def flush(self) -> str:
        """The text that is still held; the next text begins a cluster."""
        final = "".join(self._held)
        self._forget()
        return final

    def _begins_cluster(self, char: str) -> bool:
        """Take note of the next character. Returns True if a cluster border certainly stands before it."""
        kind = _kind(char)
        last, last_kind = self._last, self._last_kind
        linked, odd_flags = self._linked, self._odd_flags
        self._last, self._last_kind = char, kind
        self._odd_flags = kind is _Kind.FLAG and not odd_flags
        extends = kind in (_Kind.EXTENDING, _Kind.LINKER, _Kind.JOINER)
        self._linked = kind is _Kind.LINKER or (linked and extends)

        if last_kind is _Kind.CONTROL or kind is _Kind.CONTROL:  # GB3, GB4, GB5
            return not (last == "\r" and char == "\n")
        if extends or last_kind is _Kind.PREPENDED:  # GB9, GB9a, GB9b
            return False
        if last_kind is _Kind.JOINER:  # GB11, whatever stands before the joiner
            return False
        if linked and unicodedata.category(char) == "Lo":  # GB9c, in any script
            return False
        if odd_flags and kind is _Kind.FLAG:  # GB12, GB13
            return False
        # GB6 to GB8, with L before anything Hangul; vowels and tails have been dealt with as extending.
        return not (
            last_kind is _Kind.HANGUL_LEAD and (kind is _Kind.HANGUL_LEAD or "\uac00" <= char <= "\ud7a3")
        )
