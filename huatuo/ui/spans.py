"""passages that a rater marked as a danger: found in the stored answer, shown in its HTML.

The page shows rendered Markdown, the record keeps the model's own text. What both have in common are
the letters: every character that is not blank, in order. A passage arrives as its letters and how
often they occurred before; both are aligned here, so that the record holds offsets of the stored text.
"""

import difflib
import functools
import html as escape
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from huatuo import render
from huatuo.arena import Duel
from huatuo.ui.text import Language, say
from reviews.errors import BadVote
from reviews.protocol import SAFETY_KINDS
from reviews.records import Assignment, Comparison, Span

LONGEST_EXACT = 6000
"""Letters up to which every character may anchor the alignment; beyond, only the rarer ones."""
ENOUGH = 0.5
"""Share of a passage that must be found in one piece before its paragraph is taken instead."""
_TOKENS = re.compile(r"<[^>]*>|&#?\w+;|[^<&]|[<&]")

Where = tuple[str, int]
"""Side as seen and number of the turn, from 1."""


@dataclass(frozen=True)
class Shown:
    """The marks on one comparison as its rater sees it.

    stored: each answer's text in the record. removable: whether a mark can still be taken back.
    """

    spans: tuple[Span, ...]
    stored: Mapping[Where, str]
    removable: bool = True


def stored_texts(assignment: Assignment, comparison: Comparison) -> dict[Where, str]:
    """Each finished answer's text in the record, by side as this rater sees it and turn."""
    found: dict[Where, str] = {}
    for turn in comparison.turns:
        first, second = turn.a, turn.b
        if assignment.left_is == "b":
            first, second = second, first
        for side, answer in (("left", first), ("right", second)):
            if answer is not None:
                found[side, turn.number] = answer.text
    return found


class _Asking(BaseModel):
    """What the page's script asks for: one mark more, or the one of this number less."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    do: Literal["mark", "unmark"]
    side: Literal["left", "right"] = "left"
    turn: int = 1
    words: str = Field(default="", max_length=LONGEST_EXACT)
    before: int = 0
    kind: str = ""
    number: int = -1
    at: int = 0  # makes two requests of the same content different


_SPANS = TypeAdapter(tuple[Span, ...])


def changed(
    asking: str, spans: str, stored: Mapping[Where, str], seen: Duel
) -> tuple[Span, ...] | None:
    """The marks after what the page asked for; None when the passage was not found.

    asking, spans: JSON as the page sends it. The same passage and kind twice is one mark. Raises
    BadVote for what the page itself would not send.
    """
    try:
        wish = _Asking.model_validate_json(asking)
        marked = _SPANS.validate_json(spans or "[]")
    except ValidationError:
        raise BadVote("the page sent a mark that cannot be read; reload it") from None
    if wish.do == "unmark":
        return tuple(span for number, span in enumerate(marked) if number != wish.number)
    where = (wish.side, wish.turn)
    if where not in stored or wish.turn > len(seen.turns) or wish.kind not in SAFETY_KINDS:
        raise BadVote("there is no such answer or kind of danger; reload the page")
    turn = seen.turns[wish.turn - 1]
    pane = turn.left if wish.side == "left" else turn.right
    found = find(stored[where], pane.text, wish.words, wish.before)
    if found is None:
        return None
    span = Span(wish.side, wish.turn, *found, wish.kind)
    return (*(old for old in marked if old != span), span)


def find(stored: str, shown: str, words: str, occurrence: int) -> tuple[int, int] | None:
    """Where a selected passage stands in the stored text: start and end offset, or None.

    shown: the answer as the page shows it, before Markdown. words: what was selected; blanks in it
    do not count. occurrence: how often the same letters stood before it. Words that the text does
    not hold as they are lead to the stored paragraph that holds most of them, else to None.
    """
    letters, wanted = _letters(render.to_html(shown)), _squeeze(words)
    if not wanted:
        return None
    at = -1
    for _ in range(min(max(occurrence, 0), len(letters)) + 1):
        following = letters.find(wanted, at + 1)
        if following < 0:
            break
        at = following
    if at < 0:
        return _paragraph(stored, wanted)
    sources = _sources(stored, letters)
    low, high = sources[at][0], sources[at + len(wanted) - 1][1]
    words = stored[low:high]  # a hidden name's stretch may begin or end with blanks
    high = low + len(words.rstrip())
    low += len(words) - len(words.lstrip())
    return (low, high) if low < high else None


def mark(shown: str, stored: str, spans: Sequence[tuple[int, Span]], language: Language,
         *, removable: bool) -> str:  # fmt: skip
    """The answer as HTML with each span underlined and labelled.

    spans: with the number by which the page asks to remove one.
    """
    page = render.to_html(shown)
    if not spans:
        return page
    sources = _sources(stored, _letters(page))
    ends: dict[int, list[str]] = {}
    inside: set[int] = set()
    for number, span in spans:
        held = _held(sources, span)
        inside.update(held)
        last = held[-1] if held else len(sources) - 1
        ends.setdefault(last, []).append(_label(number, span, language, removable))
    return _painted(page, inside, ends)


def _painted(page: str, inside: set[int], ends: Mapping[int, Iterable[str]]) -> str:
    """The page's HTML with the letters of `inside` in mark elements and labels after their ends."""
    out: list[str] = []
    number, is_open = -1, False
    for token in _TOKENS.findall(page):
        is_tag = len(token) > 1 and token[0] == "<"
        if is_tag or not _squeeze(escape.unescape(token)):
            if is_open and (is_tag or number + 1 not in inside):
                out.append("</mark>")
                is_open = False
            out.append(token)
            continue
        number += 1
        if (number in inside) != is_open:
            out.append("</mark>" if is_open else '<mark class="flag">')
            is_open = not is_open
        out.append(token)
        if number in ends:
            out.append("</mark>" if is_open else "")
            is_open = False
            out += ends[number]
    return "".join(out)


def _label(number: int, span: Span, language: Language, removable: bool) -> str:
    kind = say("flag." + span.kind, language)
    if not removable:
        return f'<span class="flag-label">{kind}</span>'
    remove = say("flag.remove", language, kind=kind)
    return (
        f'<button type="button" class="flag-label" data-unflag="{number}" aria-label="{remove}" '
        f'title="{remove}">{kind}<span aria-hidden="true"> ×</span></button>'
    )


def _letters(page: str) -> str:
    """Every visible character of our own inert HTML that is not blank."""
    return _squeeze(escape.unescape(re.sub(r"<[^>]*>", "", page)))


def _squeeze(text: str) -> str:
    """The text without blanks, as the page's script counts it (ECMAScript's white space)."""
    return re.sub(r"[\s\ufeff]", "", text)


@functools.lru_cache(maxsize=64)
def _sources(stored: str, letters: str) -> tuple[tuple[int, int], ...]:
    """For each visible letter the stretch of the stored text that it stands for.

    That is one character, or for a letter of a hidden name all that is hidden there.
    """
    places = [i for i, character in enumerate(stored) if _squeeze(character)]
    bare = "".join(stored[i] for i in places)
    known: list[int | None] = list(places)
    if bare != letters:
        known = [None] * len(letters)
        long = max(len(letters), len(bare)) > LONGEST_EXACT
        matcher = difflib.SequenceMatcher(None, letters, bare, autojunk=long)
        for block in matcher.get_matching_blocks():
            known[block.a : block.a + block.size] = places[block.b : block.b + block.size]
    following, ends = len(stored), []
    for at in reversed(known):
        ends.append(following if at is None else at + 1)
        following = following if at is None else at
    before, stretches = 0, []
    for at, end in zip(known, reversed(ends), strict=True):
        stretches.append((before if at is None else at, end))
        before = before if at is None else at + 1
    return tuple(stretches)


def _held(sources: Sequence[tuple[int, int]], span: Span) -> list[int]:
    """The visible letters that stand for something of the span."""
    return [
        number
        for number, (low, high) in enumerate(sources)
        if max(low, span.start) < min(high, span.end)
    ]


def _paragraph(stored: str, wanted: str) -> tuple[int, int] | None:
    """The stored line that holds most of these letters in one piece; None below ENOUGH of them."""
    best: tuple[int, int, int] | None = None
    for line in re.finditer(r"[^\n]*\S[^\n]*", stored):
        bare = _squeeze(line[0])
        matcher = difflib.SequenceMatcher(None, bare, wanted, autojunk=False)
        size = matcher.find_longest_match().size
        if size >= max(2, ENOUGH * len(wanted)) and (best is None or size > best[0]):
            blank = len(line[0]) - len(line[0].lstrip())
            best = (size, line.start() + blank, line.start() + len(line[0].rstrip()))
    return best[1:] if best else None
