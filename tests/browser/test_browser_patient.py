"""Simulated patients in a real browser: each side shows its own patient's words; a physician plays a case by its card."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from reviews.database import DEFAULT_NAME
from reviews.protocol import Protocol
from reviews.store import Store

pytestmark = [pytest.mark.browser]
ROOT = Path(__file__).resolve().parents[2]
STORY = "疾病：\n左眼发红\n病情描述：\n昨天下午开始有一点痒，没有发烧。\n患病多久：\n一周内"


def test_each_side_shows_what_its_own_patient_said(app: Any, signed_in: Any) -> None:
    turns = [
        {"question": "眼红两天。", "answer_a": "痒吗？", "answer_b": "看眼科。"},
        {"question": "有一点痒。", "question_b": "严重吗？", "answer_a": "考虑过敏。", "answer_b": "不严重。"},
    ]  # fmt: skip
    app.import_pairs(
        "two-patients", [{"id": "1", "model_a": "m1", "model_b": "m2", "turns": turns}]
    )
    tab = signed_in()
    tab.open("/zh/review/")
    tab.choose_study("two-patients")
    expect(tab.page.locator("#duel .case")).to_contain_text("眼红两天。")
    tab.state("votable")
    panes = {side: tab.page.locator(f".pane.{side}") for side in ("left", "right")}
    first = "left" if "痒吗" in panes["left"].first.inner_text() else "right"
    second = "right" if first == "left" else "left"
    expect(panes[first].last).to_contain_text("有一点痒。")
    expect(panes[first].last).not_to_contain_text("严重吗")
    expect(panes[second].last).to_contain_text("严重吗？")
    expect(panes[second].last).not_to_contain_text("有一点痒")
    tab.press("1" if first == "left" else "2", "Enter")
    expect(tab.page.locator("#duel")).not_to_contain_text("眼红两天。")
    (vote,) = tab.votes()
    assert vote["study"] == "two-patients" and vote["choice"] == first


def test_a_physician_plays_the_case_of_a_card_and_the_pair_counts_in_its_study(
    app: Any, signed_in: Any
) -> None:
    file = app.data / "cases.json"
    case = {"id": 7, "medical_case": STORY, "doctor_diagnosis": "疾病诊断：\n过敏性结膜炎", "Department": "眼科"}  # fmt: skip
    file.write_text(json.dumps([case], ensure_ascii=False), encoding="utf-8")
    command = [sys.executable, "-m", "training.consult", "--cases", str(file), "--live"]
    command += ["--study", "cards", "--data", str(app.data)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    protocol = Protocol("cards", "病例卡", "Cards", "zh", "live", ("qingnang-7", "xinglin-3"))
    with record(app.data) as store:
        store.file_study(protocol, "test")
    tab = signed_in()
    card = tab.page.locator("#card")
    expect(card).to_contain_text("有一点痒")
    expect(card).to_contain_text("眼科")
    expect(card.get_by_text("过敏性结膜炎")).to_be_hidden()
    card.locator("summary").last.click()
    expect(card.get_by_text("过敏性结膜炎")).to_be_visible()
    expect(tab.page.locator("#with-card")).to_be_visible()
    tab.ask("医生您好，左眼发红。")
    tab.state("votable")
    expect(tab.page.locator("#with-card")).to_be_hidden()
    expect(card).to_contain_text("有一点痒")
    tab.page.locator("#choice label").first.click()
    tab.page.click("#submit-vote")
    tab.state("voted")
    (vote,) = tab.votes()
    assert (vote["study"], vote["external_id"]) == ("cards", "7")
    for asked in app.models.asked:
        assert "结膜炎" not in json.dumps(asked, ensure_ascii=False)
    tab.page.click("#next")
    expect(tab.page.locator("#card .case")).to_have_count(0)  # played; there is no other
    with record(app.data) as store:
        found = store.study("cards")
        assert found is not None and found.state == "frozen"
        store.close_study("cards", "test")  # the other tests' physicians get no card


def record(data: Path) -> contextlib.closing[Store]:
    """The app's record, opened beside it."""
    return contextlib.closing(Store.open(data / DEFAULT_NAME))
