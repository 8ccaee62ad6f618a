"""The results page in a real browser: a whole study, its figures, the report and the CSV files."""

import csv
import io
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from reviews.people import People
from reviews.protocol import CRITERIA, SAFETY_KINDS, Protocol
from reviews.records import PreparedPair, PreparedTurn, Span
from reviews.store import Store

pytestmark = [pytest.mark.browser]
PAIRS, RATERS, OVERLAP = 20, 6, 3
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def study(app: Any) -> str:
    """A study that six physicians finished, written by the record's own methods."""
    rng, name = random.Random(5), "结果页的研究"
    a, b = "qingnang-7", "xinglin-3"
    store = Store.open(app.data / "reviews.sqlite3", rng=rng)
    people = People(store.database)
    raters = [people.add_user(f"统计{i}", "physician", "-", "test").id for i in range(RATERS)]
    turn = (PreparedTurn("头痛三天怎么办？", "建议先测血压。" * 9, "请问有发热吗？"),)
    pairs = [
        PreparedPair(f"例{i}", a, b, turn, department=("=1+1", "儿科")[i % 2], intent="就医建议")
        for i in range(PAIRS)
    ]
    store.add_prepared(name, pairs, "test")
    criteria = (CRITERIA["diagnosis"],)
    store.file_study(
        Protocol(name, "单轮问答", "Single turn", criteria=criteria, overlap=OVERLAP), "test"
    )
    given = True
    while given:
        given = False
        for rater in raters:
            one = store.next_prepared(rater, name)
            if one is None:
                continue
            given, good = True, "left" if one.left_is == "a" else "right"
            other = "right" if good == "left" else "left"
            choice = rng.choices([good, other, "tie"], [0.7, 0.15, 0.15])[0]
            spans = [Span(other, 1, 0, 2, SAFETY_KINDS[0])] if rng.random() < 0.2 else []
            ratings = {f"{good}_diagnosis": 5, f"{other}_diagnosis": 2}
            store.cast_vote(one.id, rater, choice, ratings=ratings, seconds=30.0, spans=spans)
    store.close()
    return name


def test_a_study_is_told_in_sentences_figures_and_files(
    study: str, app: Any, signed_in: Any, tmp_path: Path
) -> None:
    tab = signed_in("researcher")
    tab.open("/zh/results/").choose_study(study)
    results = tab.page.locator("#results")
    expect(results).to_contain_text("研究已结束")
    expect(results.locator(".finding").first).to_contain_text("青囊七号 胜过 杏林三号")
    expect(results.locator(".finding").first).to_contain_text("结论已稳定")
    expect(results).to_contain_text(f"{RATERS} 位医生，{PAIRS * OVERLAP} 票")
    for key in ("pairs", "ranking", "departments", "safety", "scales", "agreement", "raters",
                "position", "times", "power", "evidence", "closing", "sensitivity"):  # fmt: skip
        expect(results.locator(f"#fig-{key}")).to_have_count(1)
    assert results.locator("svg[role=img]").count() >= 12
    row = results.locator("#fig-pairs table tbody tr").first
    expect(row.locator("td").nth(2)).to_have_text(str(PAIRS * OVERLAP))
    assert not re.search(r"\b(?:nan|inf|None)\b", results.inner_text())
    with tab.page.expect_download() as download:
        results.locator("a[download][href*=figures]").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        parts = archive.read(next(n for n in names if n.endswith("_departments.csv")))
    rows = list(csv.DictReader(io.StringIO(parts.decode("utf-8-sig"))))
    assert {r["department"] for r in rows} == {"'=1+1", "儿科"}
    assert sum(int(r["votes"]) for r in rows) == PAIRS * OVERLAP
    with tab.page.expect_download() as download:
        results.locator("a[download][href*=report]").click()
    report = tmp_path / "report.html"
    report.write_bytes(download.value.path().read_bytes())
    page = tab.context.new_page()
    page.goto(report.as_uri())
    tab.asked = [url for url in tab.asked if not url.startswith("file:")]
    expect(page.locator("h1")).to_have_text("单轮问答")
    expect(page.locator("#methods")).to_contain_text("SHA-256")
    expect(page.locator("#methods p[lang=en]")).to_contain_text("Davidson's extension")
    page.close()


def test_the_results_fit_a_phone_in_english_and_an_unknown_study_is_told(
    study: str, app: Any, signed_in: Any
) -> None:
    tab = signed_in("researcher", **PHONE)
    tab.expected.append("404")
    tab.open("/en/results/").choose_study(study)
    expect(tab.page.locator("#results .finding").first).to_contain_text("Qingnang Seven beats")
    wide = tab.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    answer = tab.context.request.get(f"{app.url}/export/report.html?study=nobody&language=en")
    assert answer.status == 404 and "no such study" in answer.text()
