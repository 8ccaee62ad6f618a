"""breaks role marks and special tokens in what people type, so that it forges neither turn nor end.

A mark counts in every spelling that a tokenizer's normaliser could turn into it: full-width and other compatibility forms
(NFKC), either case, with invisible characters inside. Everything else passes untouched.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_FILLERS = "\u034f\u115f\u1160\u3164\uffa0"
"""Characters that show nothing and are no format characters, beside the variation selectors."""


class _Folding(dict[int, str]):
    """Code point -> how it counts, for str.translate: NFKC, case folded, '' if it shows nothing."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        hidden = unicodedata.category(char) == "Cf" or char in _FILLERS or 0xFE00 <= code <= 0xFE0F
        self[code] = "" if hidden else unicodedata.normalize("NFKC", char).casefold()
        return self[code]


_FOLD = _Folding()


def fold(text: str) -> str:
    """The text as marks are looked for in it."""
    return text.translate(_FOLD)


@lru_cache(maxsize=64)
def pattern_of(marks: tuple[str, ...], specials: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds marks (expressions) and special tokens (strings of two characters or more) in folded text."""
    plain = sorted({fold(s) for s in specials if len(fold(s)) > 1}, key=len, reverse=True)
    parts = [f"({'|'.join(marks)})" if marks else "(?!)()", *map(re.escape, plain)]
    return re.compile("|".join(parts)) if marks or plain else None


def special_strings(tokens: Iterable[tuple[str, bool]]) -> tuple[str, ...]:
    """What may not come from text, of (token, is it special): specials, and added tokens that look like marks."""
    return tuple(
        sorted({text for text, special in tokens if special or re.search(r"[<>\[\]|]", text)})
    )


def broken(text: str, pattern: re.Pattern[str] | None) -> str:
    """The text with each mark broken: `〈 病人 〉`, `# # # 问题:`, `[ Round 3]`, `问 ：`, `< /s>`."""
    for _ in range(20):  # a break can join what stood around it; twice is already rare
        folded = fold(text)
        if pattern is None or not pattern.search(folded):
            break
        places = [place for place, char in enumerate(text) for _ in _FOLD[ord(char)]]
        pieces, end = [], 0
        for match in pattern.finditer(folded):
            first, last = places[match.start()], places[match.end() - 1] + 1
            pieces += [text[end:first], _apart(text[first:last], role=match[1] is not None)]
            end = last
        changed = "".join([*pieces, text[end:]])
        if changed == text:
            break
        text = changed
    return text


def _apart(mark: str, *, role: bool) -> str:
    """One mark, broken; role: it is a family's mark, not a special token."""
    if len(mark) == 1:
        return " "
    folded = fold(mark)
    if role and folded[0] in "<〈" and folded[-1] in ">〉":
        return f"〈 {mark[1:-1].strip()} 〉"
    if role and folded[0] == "#":
        return "".join(f"{char} " if fold(char) == "#" else char for char in mark)
    if role and folded[-1] == ":":
        return f"{mark[:-1]} {mark[-1]}"
    return f"{mark[0]} {mark[1:]}"
