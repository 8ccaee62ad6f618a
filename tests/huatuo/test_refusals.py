"""What the record refuses is said in the page's own language: every sentence that can reach a page is in its table."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from huatuo.config import ROOT
from huatuo.study_files import read_study
from huatuo.study_toml import to_toml
from huatuo.ui import frame, study_form
from huatuo.ui.text import TEXT
from reviews import ballots
from reviews.errors import BadFile, BadStudy, BadVote, RecordError, StudyFrozen
from reviews.protocol import CRITERIA, Closing, Criterion, Protocol
from reviews.records import Better, Span

FILES = [
    "reviews/protocol.py", "reviews/studies.py", "reviews/filing.py", "reviews/items.py",
    "reviews/importer.py", "reviews/ballots.py", "reviews/drafts.py", "huatuo/ui/rating.py",
    "huatuo/ui/spans.py", "huatuo/ui/studies.py", "huatuo/ui/study_form.py", "huatuo/ui/uploads.py",
]  # fmt: skip
KINDS = {"BadStudy": 0, "BadVote": 0, "StudyFrozen": 0, "InputError": 0, "BadFile": 2, "refuse": 1}
"""What raises, and which of its arguments is the sentence."""
BUILT = ["what + ' has {n} characters, at most {most} fit'", "why"]
"""Sentences put together where they are raised: the first is tried below, the second is refuse() itself."""
ENGLISH = re.compile(r"[A-Za-z]{3,} [A-Za-z]{2,}")


def raised(path: Path) -> Iterator[ast.expr]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
            yield node.args[KINDS[node.func.id]]


def test_every_sentence_that_a_page_may_show_is_there_in_both_languages() -> None:
    found = [one for name in FILES for one in raised(ROOT / name)]
    sentences = [one.value for one in found if isinstance(one, ast.Constant)]
    assert len(sentences) > 60
    assert [one for one in sentences if f"why.{one}" not in TEXT] == []
    assert {ast.unparse(one) for one in found if not isinstance(one, ast.Constant)} <= set(BUILT)
    told = {f"why.{one}" for one in sentences} | {f"why.{w}" for w in re.findall(
        r'_id, "([^"]+)"\)\)', (ROOT / "reviews/importer.py").read_text("utf-8"))}  # fmt: skip
    built = {key for key in TEXT if re.match(r"why\.the (reason|note|better).*characters", key)}
    assert {key for key in TEXT if key.startswith("why.")} - told - built == set(), (
        "nobody says this"
    )


PLAN = Protocol("s", contestants=("a", "b"), criteria=(CRITERIA["asking"],))
ASKED = replace(PLAN, criteria=(replace(CRITERIA["asking"], required=True),))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: replace(PLAN, overlap=0), "须为 1 至 50 的整数"),
        (lambda: replace(PLAN, contestants=("a",)), "至少写两个"),
        (lambda: replace(PLAN, closing=Closing(until="31.12.")), "现为“31.12.”"),
        (lambda: replace(PLAN, criteria=(Criterion("A B", "scale", "一", "1"),)), "“A B”不能作代号"),
        (lambda: replace(PLAN, gold={"c": "z"}), "c：“z”不是这项研究的参评模型"),
        (lambda: ballots.make_ballot("best", "", None, None), "请选四项之一"),
        (lambda: ballots.make_ballot("left", "长" * 2001, None, None), "理由有 2001 个字，最多 2000 个"),
        (lambda: ballots.make_ballot("left", "", None, None, [Span("left", 1, 0, 2, "wrong_dose", "长" * 501)]), "标记的说明有 501 个字"),
        (lambda: ballots.make_ballot("left", "", None, None, (), Better("长" * 8001)), "您写的回答有 8001 个字"),
        (lambda: ballots.check_protocol(ballots.make_ballot("left", "", {}, None), ASKED), "这一项必须评分"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_chinese_sentence(act: Callable[[], Any], words: str) -> None:
    with pytest.raises((BadStudy, BadVote)) as caught:
        act()
    told = frame.explain(caught.value, "zh")
    assert words in told and told.startswith(("没有保存：", "这一票没有保存：")), told
    assert not ENGLISH.search(told) and "{" not in told, told
    english = frame.explain(caught.value, "en")
    assert english.isascii() or words[0] in english, english


def test_the_form_names_its_box_and_a_file_its_line() -> None:
    with pytest.raises(BadStudy) as caught:
        replace(PLAN, overlap=True)
    assert "每题票数：须为 1 至 50 的整数" in study_form.refusal(caught.value, "zh")
    assert "Votes on each pair: must be a whole number" in study_form.refusal(caught.value, "en")
    assert str(caught.value) == "study 's': overlap: must be a whole number from 1 to 50"
    assert frame.place("a.jsonl: line 3, turn 2", "zh") == "a.jsonl：第 3 行，第 2 轮"
    wrong = BadFile("a.jsonl", "line 3", "{key} is empty", key="id")
    assert str(wrong) == "a.jsonl: line 3: id is empty" and frame.reason(wrong, "zh") == "id 是空的"


def test_a_sentence_that_the_table_lacks_is_not_shown_by_a_page() -> None:
    assert frame.reason(RecordError("{not a blank} stays"), "zh") == "{not a blank} stays"
    told = frame.explain(StudyFrozen("/srv/data/reviews.sqlite3 holds it"), "zh")
    assert "/srv" not in told and "编号" in told


FORM: dict[str, Any] = {
    "name": "s", "language": "zh", "kind": "single", "pairing": "balanced", "sequential": False,
    "adjudicate": True, "safety_flags": True, "better_answers": True, "criteria": ["asking"],
}  # fmt: skip


def test_criteria_of_one_s_own_come_from_the_form_and_stand_in_the_file_that_it_shows(
    tmp_path: Path,
) -> None:
    lines = "tone | 语气 | Tone | preference | required\n\nplan｜随访｜Follow-up｜必评\nbrief | 简短 | Brevity"
    plan = study_form.protocol_of({**FORM, "own_criteria": lines})
    assert plan.criteria == (
        CRITERIA["asking"],
        Criterion("tone", "preference", "语气", "Tone", True),
        Criterion("plan", "scale", "随访", "Follow-up", True),
        Criterion("brief", "scale", "简短", "Brevity", False),
    )
    file = tmp_path / "s.toml"
    file.write_text(to_toml(plan), encoding="utf-8")
    assert read_study(file) == plan


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tone", "自定评分项目：第 1 行须写成"), ("tone | 语气", "第 1 行"), ("t | 一 | 1 | stars", "第 1 行"),
        ("t | 一 | 1 | scale | required | x", "第 1 行"), ("A B | 一 | 1", "“A B”不能作代号"),
        ("asking | 一 | 1", "评分项目：有重复的名称"), ("t | | 1", "t：须有中文和英文标题"),
    ],
)  # fmt: skip
def test_a_bad_line_of_own_criteria_is_named(line: str, words: str) -> None:
    with pytest.raises(BadStudy) as caught:
        study_form.protocol_of({**FORM, "own_criteria": line})
    assert words in study_form.refusal(caught.value, "zh")
