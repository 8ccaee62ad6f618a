"""a copy of a text with plain characters, of equal length: full-width digits, letters and marks as ASCII."""

import unicodedata
from functools import lru_cache


def plain_copy(text: str) -> str:
    """The text with compatibility characters as their plain ones, where that is one: position by position the same."""
    return text if text.isascii() else "".join(map(_plain, text))


@lru_cache(maxsize=1 << 16)
def _plain(character: str) -> str:
    if character < "\u2000":
        return character
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 else character
