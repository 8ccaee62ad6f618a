"""finds the hidden truth in a patient's words: names of the diagnosis and long pieces of the doctor's text.

Names count in every spelling (full-width, spaces and punctuation inside, either case) and, from four characters on,
with one of four characters different. What the assistant has said itself is no secret any more. Not found: the name in
another language, in traditional characters, in pinyin or in other words.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huatuo.marks import fold

SPAN = 10
"""Characters of the doctor's text in one piece that count as copied."""
NEAR = 0.75
"""Share of equal characters from which a text of the same length is the name with a slip."""
COMPLAINT = 8
"""Characters of the longest complaint that counts as a name."""


@dataclass(frozen=True)
class Name:
    """A name in the hidden diagnosis. head: its end that names the disease by itself; is_disease: not a mere complaint.

    known: it stands in the patient's own text as it was published.
    """

    text: str
    head: str
    is_disease: bool
    known: bool


@cache
def _words() -> dict[str, Any]:
    file = Path(__file__).with_name("patient.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def bare(text: str) -> str:
    """The text as names are sought in it: folded, letters, digits and characters only."""
    return "".join(c for c in fold(text) if c.isalnum())


def names_of(diagnosis: str, own: str) -> tuple[Name, ...]:
    """The names in what the doctor wrote. own: the patient's text, which a mere complaint may come from."""
    truth = _words()["truth"]
    heading = re.compile(rf"^[ \t]*(?:{truth['diagnosis']})[ \t]*[：:]", re.M | re.I)
    after = re.compile(rf"^[ \t]*(?:{truth['advice']})[ \t]*[：:]", re.M | re.I)
    found = heading.search(diagnosis)
    text = diagnosis[found.end() :] if found else diagnosis
    if end := after.search(text):
        text = text[: end.start()]
    if re.search(truth["none"], text.strip()):
        return ()
    names: dict[str, Name] = {}
    for part in re.split(rf"[，,。；;、\n（）()＋+]|\s{{2,}}|{truth['between']}", text):
        term = part.strip()
        while (shorter := re.sub(truth["around"], "", term, flags=re.I).strip()) != term:
            term = shorter
        is_disease = re.search(truth["ending"], term, re.I) is not None
        # A longer text without a disease in it is a sentence of the doctor's: found as a copied piece.
        longest = 40 if is_disease or " " in term else COMPLAINT
        if 2 <= len(bare(term)) <= longest and not re.search(truth["no_name"], term, re.I):
            head = _head(term) if is_disease else term
            names[bare(term)] = Name(term, head, is_disease, bare(term) in bare(own))
    return tuple(names.values())


def _head(term: str) -> str:
    """The name without what only says which kind, where or how fast; at least three characters of it."""
    modifier = _words()["truth"]["modifier"]
    while len(bare(shorter := re.sub(modifier, "", term, flags=re.I))) >= 3 and shorter != term:
        term = shorter
    return term


def told_names(text: str, names: Iterable[Name], instead: str) -> str:
    """The patient's own text with each name of a disease, and its head, replaced. A complaint stays."""
    diseases = [name for name in names if name.is_disease]
    for name in diseases:
        text = _without_near(text, name.text, instead)
    for form in dict.fromkeys(form for name in diseases for form in (name.text, name.head)):
        letters = r"[\s\W_]*".join(map(re.escape, bare(form)))
        edge = r"\b" if form.isascii() else ""
        text = re.sub(f"{edge}{letters}{edge}", instead, text, flags=re.I)
    return text


def _without_near(text: str, name: str, instead: str) -> str:
    """Slips of the name replaced, too: 双向情感障碍 for 双相情感障碍."""
    size = len(name)
    start = 0
    while size >= 4 and start + size <= len(text):
        if _near(text[start : start + size], name):
            text = text[:start] + instead + text[start + size :]
            start += len(instead)
        else:
            start += 1
    return text


def _near(piece: str, name: str) -> bool:
    """Whether one of four characters differs at most; both ends must be the same."""
    if piece[-2:] != name[-2:] or piece[:1] != name[:1]:
        return False
    return sum(a == b for a, b in zip(piece, name, strict=True)) / len(name) >= NEAR


def leaks(text: str, names: Sequence[Name], doctor: str, own: str, said: str) -> tuple[str, ...]:
    """What the text gives away: names of the diagnosis, and pieces of the doctor's text of SPAN characters or more.

    own: what the patient may say; said: what the assistant has said. Neither is a secret. A complaint that the
    patient's own text holds is none either.
    """
    plain, heard, allowed = bare(text), bare(said), bare(own)
    found = []
    for name in names:
        if not name.is_disease and (name.known or len(bare(name.text)) < 3):
            continue
        for form in dict.fromkeys((name.text, name.head)):
            term = bare(form)
            if _holds(plain, term, name.is_disease) and not any(
                _holds(other, term, name.is_disease) for other in (heard, allowed)
            ):
                found.append(form)
    for piece in _copied(plain, bare(doctor)):
        if piece not in heard and piece not in allowed:
            found.append(piece)
    return tuple(dict.fromkeys(found))


def _holds(text: str, term: str, with_slips: bool) -> bool:
    if term in text:
        return True
    size = len(term)
    places = range(len(text) - size + 1) if with_slips and size >= 4 else ()
    return any(_near(text[i : i + size], term) for i in places)


def _copied(text: str, doctor: str) -> list[str]:
    match = difflib.SequenceMatcher(None, text, doctor, autojunk=False)
    return [text[b.a : b.a + b.size] for b in match.get_matching_blocks() if b.size >= SPAN]


def repeats(text: str, earlier: str) -> bool:
    """Whether the text only says an earlier one again: a part of it, or nearly the same."""
    a, b = bare(text), bare(earlier)
    if len(a) >= 4 and a in b:
        return True
    return a == b or difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= 0.85
