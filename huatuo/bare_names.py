"""names that nothing announces, found by reading a sentence as words and possible names.

A run of 汉字 is a lattice of dictionary words (jieba's, with their frequencies) and of possible names: a
surname and one or two characters, as likely as the characters are in given names. What stands on both
sides makes a name likelier or less so. A name is found where the likeliest reading of the run holds one.

The dictionary is read on first use (about a second) and never changes after that; any number of threads
may read it.
"""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from huatuo.names import NO_NAME, NOT_GIVEN, SURNAMES

_DATA = Path(__file__).with_name("bare_names.toml")
_HAN = re.compile(r"[\u4e00-\u9fff]+")
_BEGINS_A_WORD = re.compile(NO_NAME)
_LONGEST_WORD = 8
_LONGEST_RUN = 400
"""Characters read at once; a longer run without any mark is read in parts, so cost grows with its length only."""
_UNSEEN = 1e-5
"""How likely a given name holds a character that no known given name holds."""

_TITLED = frozenset("姐哥姨叔婶")

# After a given name of one character and before more words they are adverbs: 请张三先量血压.
_ADVERBS = frozenset("先再也又还")

_OFTEN = 60
"""What the dictionary calls a name, counts so often and holds an uncommon character is more likely a word: 许可证."""

_reading = Lock()


@dataclass(frozen=True)
class Proper:
    """Words that name a city, any place, or something else: 信阳, 颍上, 协和."""

    cities: frozenset[str]
    places: frozenset[str]
    names: frozenset[str]


@dataclass(frozen=True)
class Lexicon:
    """What a reading needs: log-likelihoods of words and of the characters of names, and what stands around names.

    words: natural logarithms of relative frequencies. surnames, first, second, single: of a name's parts.
    """

    words: dict[str, float]
    longest: dict[str, int]
    rarest: float
    surnames: dict[str, float]
    first: dict[str, float]
    second: dict[str, float]
    single: dict[str, float]
    weights: dict[str, float]
    plain: frozenset[str]
    named: frozenset[str]
    places: frozenset[str]
    proper: Proper
    common: frozenset[str]
    not_given: frozenset[str]
    loose: str
    units: str
    nicks: str
    unclear: str
    wary: str
    title: re.Pattern[str]
    kin: re.Pattern[str]
    nouns: frozenset[str]
    person: re.Pattern[str]
    called: re.Pattern[str]
    refuse: re.Pattern[str]
    not_eaten: re.Pattern[str]
    foreign: frozenset[str]
    foreign_beside: frozenset[str]
    before: re.Pattern[str]
    between: re.Pattern[str]
    after: re.Pattern[str]


def proper_words() -> Proper:
    """The dictionary's places and other proper names of two to five characters; reads it on first use."""
    return _lexicon().proper


def is_common(word: str) -> bool:
    """Whether the dictionary holds a word as one that people use often."""
    return _lexicon().words.get(word, -99.0) > -13.0


def is_given(word: str) -> bool:
    """Whether every character of a word is frequent in given names: 欣然, not 酬多."""
    return _lexicon().common.issuperset(word)


def find(text: str, skip: Collection[str] = ()) -> list[tuple[int, int]]:
    """The spans of names in a text, in order. skip: what stands in 【】 as a placeholder and is not read."""
    spans: list[tuple[int, int]] = []
    for match in _HAN.finditer(text):
        start, end = match.span()
        if match[0] in skip and text[start - 1 : start] == "【" and text[end : end + 1] == "】":
            continue
        for at in range(start, end, _LONGEST_RUN):
            spans += _read(text, at, min(at + _LONGEST_RUN, end))
    return spans


def _read(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Viterbi over one run: the likeliest way to cut it into words and names, and its names."""
    lexicon = _lexicon()
    best: list[tuple[float, int, bool]] = [(0.0, start, False)]
    best += [(-math.inf, start, False)] * (end - start)
    for at in range(start, end):
        reached = best[at - start][0]
        for stop, score, is_name in _edges(lexicon, text, at, end):
            if reached + score > best[stop - start][0]:
                best[stop - start] = (reached + score, at, is_name)
    spans = []
    at = end
    while at > start:
        _, before, is_name = best[at - start]
        if is_name:
            spans.append((before, at))
        at = before
    return spans[::-1]


def _edges(lexicon: Lexicon, text: str, at: int, end: int) -> Iterator[tuple[int, float, bool]]:
    """The words and names that begin at a place: (where they stop, log-likelihood, whether it is a name)."""
    words = lexicon.words
    yield at + 1, words.get(text[at], lexicon.rarest), False
    longest = lexicon.longest.get(text[at : at + 2], 0)
    for stop in range(at + 2, min(at + longest, end) + 1):
        score = words.get(text[at:stop])
        if score is not None:
            yield stop, score, False
    if _could_begin(lexicon, text, at):
        for stop, score in _names(lexicon, text, at, end):
            yield stop, score + _around(lexicon, text, at, stop), True


def _could_begin(lexicon: Lexicon, text: str, at: int) -> bool:
    """Not after a digit where the character is a measure: 孕37周破水."""
    return not (at and text[at] in lexicon.units and text[at - 1].isdecimal())


def _names(lexicon: Lexicon, text: str, at: int, end: int) -> Iterator[tuple[int, float]]:
    """The names that may begin at a place, with what their characters say: (where they stop, log-likelihood)."""
    weights = lexicon.weights
    begins_a_word = _BEGINS_A_WORD.match(text, at)
    for size in (2, 1):
        surname = text[at : at + size]
        likely = lexicon.surnames.get(surname)
        if likely is None or at + size >= end:
            continue
        wary = weights["wary"] * (surname in lexicon.wary)
        for stop in range(at + size + 1, min(at + size + 2, end) + 1):
            name = text[at:stop]
            if stop - at > size + 1 and name[-1] in _ADVERBS and stop < end:
                continue
            given = None if name in lexicon.plain else _given(lexicon, name[size:])
            if given == weights["unseen"] and not lexicon.before.search(text[max(0, at - 8) : at]):
                continue
            if given is not None:
                wordy = name not in lexicon.named and lexicon.words.get(name, -99.0) > -13.0
                place = weights["place"] * (name[:2] in lexicon.places)
                doubt = weights["wordy"] if wordy or begins_a_word else 0.0
                score = likely + given + doubt + wary + place
                if not begins_a_word and _is_surely_a_person(lexicon, text, at, stop):
                    score = max(score, lexicon.words.get(name, score))
                yield stop, score
        if surname not in lexicon.unclear and lexicon.title.match(text, at + size, end):
            yield at + size, likely + weights["title"]
    yield from _fond_names(lexicon, text, at, end)


def _is_surely_a_person(lexicon: Lexicon, text: str, at: int, stop: int) -> bool:
    """Whether a noun such as 方圆 is a name here: 我闺蜜方圆昨天住院."""
    return (
        text[at:stop] in lexicon.nouns
        and lexicon.before.search(text[max(0, at - 8) : at]) is not None
        and lexicon.person.match(text, stop) is not None
    )


def _fond_names(lexicon: Lexicon, text: str, at: int, end: int) -> Iterator[tuple[int, float]]:
    """Names without a surname: 小张, 阿珍, 乐乐, and after 'my son' any two characters of names."""
    pair = text[at : min(at + 2, end)]
    if len(pair) < 2:
        return
    weights = lexicon.weights
    follows = pair[0] != "老" and text[max(0, at - 1) : at] in lexicon.surnames
    if pair in lexicon.plain or (follows and not lexicon.before.search(text[max(0, at - 8) : at])):
        return
    if pair[0] in "小老阿" and pair[1] in lexicon.nicks:
        yield at + 2, lexicon.surnames[pair[1]] + weights["nick"]
    is_child = bool(lexicon.kin.search(text[max(0, at - 5) : at]))
    twice = pair[0] == pair[1]
    if twice and not _HAN.match(text[max(0, at - 1) : at]) and lexicon.person.match(text, at + 2):
        is_child = True
    likelier_a_word = -12.5 if twice and is_child else -14.5
    if pair not in lexicon.named and lexicon.words.get(pair, -99.0) > likelier_a_word:
        return
    share = math.log(1 / len(lexicon.common))
    of_names = all(character in lexicon.common for character in pair[pair[0] in "小阿" :])
    if (twice and (is_child or of_names)) or (pair[0] in "小阿" and of_names):
        yield at + 2, weights["fond"] + share
    elif of_names and (is_child or lexicon.called.match(text, at + 2)):
        titled = text[at + 2 : at + 3] in _TITLED and not _HAN.match(text[max(0, at - 1) : at])
        yield at + 2, weights["only_given"] + weights["titled"] * titled + 2 * share


def _given(lexicon: Lexicon, given: str) -> float | None:
    """The log-likelihood of one or two characters as a given name; None where it is none."""
    weights = lexicon.weights
    if any(character in lexicon.not_given for character in given):
        return None
    loose = weights["loose"] * (given[-1] in lexicon.loose)
    if len(given) == 1:
        likely = lexicon.single.get(given)
        if likely is None:
            return weights["unseen"] if _is_rare(lexicon, given) else None
        return likely + weights["short"] + loose
    first, second = lexicon.first.get(given[0]), lexicon.second.get(given[1])
    if first is None and second is None:
        return None
    unseen = math.log(_UNSEEN)
    return (first or unseen) + (second or unseen) + weights["long"] + loose


def _is_rare(lexicon: Lexicon, character: str) -> bool:
    """Whether a character is in the dictionary but hardly a word of its own (喆): then it stands in names."""
    return lexicon.words.get(character, 0.0) < -13.0


def _around(lexicon: Lexicon, text: str, at: int, stop: int) -> float:
    """How much likelier a name is for what stands before and after it."""
    weights = lexicon.weights
    left, right = text[max(0, at - 8) : at], text[stop : stop + 6]
    if lexicon.before.search(left):
        score = weights["cue_before"]
    elif not left or not _HAN.match(left[-1]):
        score = weights["edge_before"]
    else:
        score = weights["link_before"] if lexicon.between.search(left) else weights["none_before"]
    if (
        _is_foreign(lexicon, text, at, stop)
        or lexicon.refuse.match(right)
        or (lexicon.not_eaten.search(left) and not lexicon.title.match(right))
    ):
        return score + weights["refused"]
    if lexicon.after.match(right):
        return score + weights["cue_after"]
    edge = not right or not _HAN.match(right[0])
    return score + (weights["edge_after"] if edge else weights["none_after"])


def _is_foreign(lexicon: Lexicon, text: str, at: int, stop: int) -> bool:
    """Whether it is a piece of a foreign word: 比伐[芦定], [鲍曼]尼."""
    return lexicon.foreign.issuperset(text[at + 1 : stop]) and bool(
        lexicon.foreign_beside & {text[max(0, at - 1) : at], text[stop : stop + 1]}
    )


def _lexicon() -> Lexicon:
    with _reading:
        return _read_lexicon()


@cache
def _read_lexicon() -> Lexicon:
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    plain = frozenset((data["words"] + data["medical"]).split())
    surnames = dict.fromkeys(SURNAMES + data["more_surnames"])
    surnames = dict.fromkeys(name for name in surnames if name not in data["dropped"])
    counts, named, nouns, proper = _dictionary(data, plain, frozenset(surnames))
    names = [name for name in named if name[0] in SURNAMES]
    total = math.log(sum(counts.values()))
    words = {word: math.log(count) - total for word, count in counts.items()}
    common = Counter("".join(data["common"].split()))
    pairs = [name[1:] for name in names if len(name) == 3]
    rank = {surname: 0.23 / (place + 3) for place, surname in enumerate(surnames)}
    rank |= dict.fromkeys(data["doubles"], 0.0005)
    return Lexicon(
        words=words,
        longest=_longest(words),
        rarest=-total,
        surnames={surname: math.log(share) for surname, share in rank.items()},
        first=_shares(Counter(pair[0] for pair in pairs), common),
        second=_shares(Counter(pair[1] for pair in pairs), common),
        single=_shares(Counter("".join(pairs)), common),
        weights=data["weights"],
        plain=plain,
        named=frozenset(named),
        places=frozenset(place for place in proper.places if len(place) == 2),
        proper=proper,
        common=frozenset(common),
        not_given=frozenset(NOT_GIVEN + data["not_given"]),
        loose=data["loose"],
        units=data["units"],
        nicks=data["nicks"],
        unclear=data["unclear"],
        wary=data["wary"],
        title=re.compile(data["titles"]),
        kin=re.compile(f"(?:{data['kin']})$"),
        nouns=nouns,
        person=re.compile(data["person"]),
        called=re.compile(data["called"]),
        refuse=re.compile(data["refuse"]),
        not_eaten=re.compile(data["not_eaten"]),
        foreign=frozenset(data["foreign"]),
        foreign_beside=frozenset(data["foreign_beside"]),
        before=re.compile(rf"(?:{'|'.join(data['before'])})(?:[:：(（]\s?)?$"),
        between=re.compile(f"(?:{'|'.join(data['between'])})$"),
        after=re.compile("|".join(data["after"])),
    )


def _longest(words: Iterable[str]) -> dict[str, int]:
    """How long the longest word with these first two characters is: where none is, no look is needed."""
    longest: dict[str, int] = {}
    for word in words:
        if 2 <= len(word) <= _LONGEST_WORD and longest.get(word[:2], 0) < len(word):
            longest[word[:2]] = len(word)
    return longest


def _shares(seen: Counter[str], common: Counter[str]) -> dict[str, float]:
    """The log-shares of characters: half as in the dictionary's names, half as in the list of common ones."""
    known, listed = sum(seen.values()), len(common)
    return {
        character: math.log(0.5 * seen[character] / known + 0.5 * (character in common) / listed)
        for character in seen.keys() | common.keys()
    }


def _dictionary(
    data: dict[str, Any], plain: frozenset[str], surnames: frozenset[str]
) -> tuple[dict[str, int], list[str], frozenset[str], Proper]:
    """jieba's words with their counts, the names of two or three characters, the nouns, what is proper."""
    import jieba

    counts: dict[str, int] = {}
    names: list[str] = []
    nouns: set[str] = set()
    places: set[str] = set()
    proper: set[str] = set()
    common = frozenset(data["common"])
    general = frozenset(data["not_proper"].split())
    cities = frozenset(data["cities"].split())
    hospitals = frozenset((data["hospitals"] + data["firms"]).split())
    with jieba.Tokenizer().get_dict_file() as file:
        for line in file.read().decode("utf-8").splitlines():
            word, count, tag = line.split(" ")
            if tag in ("nr", "nrt", "nt", "nz") and 2 <= len(word) <= 5 and word not in plain:
                proper.add(word)
            if tag == "nr" and 2 <= len(word) <= 3 and word not in plain:
                names.append(word)
            if tag in ("nr", "nrt") and len(word) == 3 and word[0] in surnames:
                often = int(count) >= _OFTEN and not common.issuperset(word[1:])
                if not often and not word.endswith(tuple(data["no_name_ends"])):
                    continue
            if word[0] in surnames and len(word) in (2, 3) and tag[0] in "na" and word not in plain:
                nouns.add(word)
            if tag == "ns" and len(word) <= 5:
                places.add(word)
            counts[word] = int(count)
    for word in plain:
        counts[word] = max(counts.get(word, 0), 1000)
    return (
        counts,
        names,
        frozenset(nouns),
        Proper(
            cities, frozenset(places - general | cities), frozenset(proper - general | hospitals)
        ),
    )
