"""a study's protocol as the text of a file in configs/studies that says the same.

huatuo/study_files.py reads it back; a test holds the two against each other.
"""

import json
from collections.abc import Iterator

from reviews.protocol import CRITERIA, Closing, Criterion, Protocol

PIECE = 200
"""Characters of a long text on one line: a reader of configurations refuses very long lines."""
_DEFAULT = Protocol("-")
_PLAIN = (
    "title_zh", "title_en", "language", "kind", "contestants", "raters", "overlap", "pairing", "seed",
    "adjudicate", "safety_flags", "better_answers", "fastest_s", "consent_id", "generation", "notes",
)  # fmt: skip


def to_toml(protocol: Protocol) -> str:
    """The file's text; keys that hold the default are left out."""
    return "\n".join(_lines(protocol)) + "\n"


def _lines(protocol: Protocol) -> Iterator[str]:
    yield f"name = {_value(protocol.name)}"
    for key in _PLAIN:
        value = getattr(protocol, key)
        if value != getattr(_DEFAULT, key) or key in ("title_zh", "title_en", "kind"):
            yield f"{key} = {_value(value)}"
    ready = tuple(c for c in protocol.criteria if _is_ready(c))
    own = protocol.criteria[len(ready) :] if protocol.criteria[: len(ready)] == ready else ()
    if len(ready) + len(own) != len(protocol.criteria):  # the order is part of the protocol
        ready, own = (), protocol.criteria
    if ready:
        yield f"criteria = {_value(tuple(c.key for c in ready))}"
        required = tuple(c.key for c in ready if c.required)
        if required:
            yield f"required = {_value(required)}"
    if protocol.closing != Closing():
        yield "\n[closing]"
        for key in ("votes", "until", "sequential", "alpha"):
            value = getattr(protocol.closing, key)
            if value != getattr(Closing(), key):
                yield f"{key} = {_value(value)}"
    if protocol.gold:
        yield "\n[gold]"
        yield from (f"{_text(case)} = {_text(better)}" for case, better in protocol.gold.items())
    for one in own:
        yield "\n[[own_criteria]]"
        for key in ("key", "kind", "title_zh", "title_en", "required"):
            yield f"{key} = {_value(getattr(one, key))}"


def _is_ready(criterion: Criterion) -> bool:
    """Whether it is one of the ready ones, word for word."""
    known = CRITERIA.get(criterion.key)
    return known is not None and (known.kind, known.title_zh, known.title_en) == (
        criterion.kind,
        criterion.title_zh,
        criterion.title_en,
    )


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        one_line = "[" + ", ".join(_text(item) for item in value) + "]"
        if len(one_line) <= PIECE:
            return one_line
        return "[\n" + "".join(f"  {_text(item)},\n" for item in value) + "]"
    return _text(value) if isinstance(value, str) else str(value)


def _text(text: str) -> str:
    """A TOML string; a long one in pieces, each of which begins where no blank would be eaten."""
    if len(text) <= PIECE:
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
    pieces, start = [], 0
    while start < len(text):
        end = start + PIECE
        while end < len(text) and text[end].isspace():
            end += 1
        pieces.append(_text_inside(text[start:end]))
        start = end
    return '"""\\\n' + "\\\n".join(pieces) + '"""'


def _text_inside(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007F")
