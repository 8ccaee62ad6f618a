"""The sets of sentences: how many identifiers are found, how much medicine is taken for one, and how long it takes."""

import re
import unicodedata
from functools import partial
from pathlib import Path

import pytest

from huatuo.privacy import KINDS, RULES, mask
from tests.patience import cpu_seconds

DATA = Path(__file__).parent / "data"
MARKED = re.compile(r"⟦(\w+)\|([^⟧]*)⟧")
PLACEHOLDER = re.compile(
    rf"(?:\d{{4}}年)?【(?:{'|'.join(zh for zh, _ in KINDS.values())})】(?: \d{{4}}\b)?"
)
TIMES = ("birth", "visit")
GENERAL = (
    "先生女士主任医生大夫护士教授老师傅同学阿姨大姐叔奶爷院长治疗太婶婆总小氏妈爸省市区县镇乡村路街道号栋幢单元室楼层弄科"
    "病床站监中心第公司有限集团幼儿园厂局年月日时分岁"
)
CUES = ("电话", "身份证", "住院号", "微信", "军官证", "SN", "姓名", "患者", "卡号", "name:", "")
FILLERS = (
    " ",
    "是",
    "号",
    "-",
    "1",
    "a",
    "王",
    "0 ",
    "·",
    ":",
    "一区",
    "市区县镇路",
    "12床",
    "a@",
    "\n",
    " \n",
    "\r\n",
)


def sentences(name: str) -> list[str]:
    text = (DATA / name).read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("name", "fewest"),
    [
        ("identifiers.txt", 200),
        ("identifiers_second.txt", 60),
        ("identifiers_third.txt", 350),
        ("identifiers_fourth.txt", 890),
        ("identifiers_fifth.txt", 400),
        ("identifiers_sixth.txt", 186),
        ("identifiers_seventh.txt", 200),
    ],
)
def test_identifiers_are_found(name: str, fewest: int) -> None:
    lines = sentences(name)
    marked = [(line, found[2]) for line in lines for found in MARKED.finditer(line)]
    missed = [
        text
        for line, text in marked
        if plain(text) in plain(mask(MARKED.sub(lambda found: found[2], line)).text)
    ]
    assert len(lines) >= fewest and len(marked) >= fewest
    assert len(missed) <= 0.03 * len(marked), missed


def left_of(line: str) -> list[str]:
    """The identifiers of a marked line of which a character that identifies is left after masking.

    A year beside its masked day, titles (主任), and the general parts of places and institutions (区, 医院) may stay.
    """
    text = MARKED.sub(lambda found: found[2], line)
    masked = PLACEHOLDER.sub("\0", mask(text).text.replace("90+", "\0"))
    aligned = re.fullmatch(
        "(.+?)".join(f"({re.escape(part)})" for part in masked.split("\0")), text
    )
    assert aligned is not None, (text, masked)
    hidden = set()
    for group in range(2, (aligned.re.groups or 0) + 1, 2):
        hidden |= set(range(*aligned.span(group)))
    left, removed = [], 0
    for found in MARKED.finditer(line):
        start = found.start() - removed
        places = range(start, start + len(found[2]))
        kept = "".join(text[at] for at in places if at not in hidden)
        rest = re.sub(r"^\d{4}(?!\d)|\d\d:\d\d$", "", kept) if found[1] in TIMES else kept
        if len(kept) == len(found[2]) or re.search(rf"(?![{GENERAL}])\w", rest):
            left.append(found[2])
        removed += len(found[0]) - len(found[2])
    return left


@pytest.mark.parametrize("name", ["identifiers_fourth.txt", "identifiers_fifth.txt"])
def test_nothing_that_identifies_is_left(name: str) -> None:
    lines = sentences(name)
    missed = [text for line in lines for text in left_of(line)]
    assert len(missed) <= 0.03 * sum(len(MARKED.findall(line)) for line in lines), missed


@pytest.mark.parametrize(
    ("name", "fewest"),
    [
        ("medical.txt", 200),
        ("medical_second.txt", 60),
        ("medical_third.txt", 400),
        ("medical_fourth.txt", 590),
        ("medical_fifth.txt", 390),
        ("medical_sixth.txt", 179),
        ("medical_seventh.txt", 200),
    ],
)
def test_medicine_is_not_taken_for_identifiers(name: str, fewest: int) -> None:
    lines = sentences(name)
    changed = [line for line in lines if mask(line).text != line]
    assert len(lines) >= fewest
    assert len(changed) <= 0.02 * len(lines), changed


def test_masking_the_sets_twice_changes_nothing() -> None:
    for name in sorted(path.name for path in DATA.glob("identifiers*.txt")):
        for line in sentences(name):
            once = mask(MARKED.sub(lambda found: found[2], line)).text
            assert mask(once).text == once


def test_real_questions_are_hardly_touched() -> None:
    """Questions that people asked, written for the red flags: a false name among 200 would be one too many."""
    lines = [
        line.split("\t")[-1] for name in ("benign.txt", "red_flags.txt") for line in sentences(name)
    ]
    changed = [line for line in lines if any(kind == "name" for kind, _ in mask(line).found)]
    assert len(lines) > 2000
    assert len(changed) <= 0.005 * len(lines), changed


@pytest.mark.parametrize("filler", FILLERS)
def test_no_rule_hangs_on_ten_thousand_characters(filler: str) -> None:
    for cue in CUES if filler in " 是" else ("姓名",):
        text = (cue + filler * 10_000)[:10_000]
        for kind, pattern, _ in RULES:
            took = cpu_seconds(partial(pattern.findall, text), 2)
            assert took < 2, (kind, cue, filler, pattern.pattern[:60])
