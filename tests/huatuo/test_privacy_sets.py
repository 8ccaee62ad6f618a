"""The sets of sentences: how many identifiers are found, how much medicine is taken for one, and how long it takes."""

import re
import time
import unicodedata
from pathlib import Path

import pytest

from huatuo.privacy import RULES, mask

DATA = Path(__file__).parent / "data"
MARKED = re.compile(r"⟦(\w+)\|([^⟧]*)⟧")
CUES = ("电话", "身份证", "住院号", "微信", "军官证", "SN", "姓名", "患者", "卡号", "name:", "")
FILLERS = (" ", "是", "号", "-", "1", "a", "王", "0 ", "·", ":", "一区", "市区县镇路", "12床", "a@")


def sentences(name: str) -> list[str]:
    text = (DATA / name).read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("name", "fewest"),
    [("identifiers.txt", 200), ("identifiers_second.txt", 60), ("identifiers_third.txt", 350)],
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


@pytest.mark.parametrize(
    ("name", "fewest"),
    [("medical.txt", 200), ("medical_second.txt", 60), ("medical_third.txt", 400)],
)
def test_medicine_is_not_taken_for_identifiers(name: str, fewest: int) -> None:
    lines = sentences(name)
    changed = [line for line in lines if mask(line).text != line]
    assert len(lines) >= fewest
    assert len(changed) <= 0.02 * len(lines), changed


def test_masking_the_sets_twice_changes_nothing() -> None:
    for name in ("identifiers.txt", "identifiers_second.txt", "identifiers_third.txt"):
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
            started = time.thread_time()
            for _found in pattern.finditer(text):
                pass
            assert time.thread_time() - started < 2, (kind, cue, filler, pattern.pattern[:60])
