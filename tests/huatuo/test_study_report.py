"""A study's report: whole in both languages whatever the votes, CSV cells safe, the command line honest."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from huatuo.report import contents, figures, files, methods, page
from huatuo.report.__main__ import main
from huatuo.report.figures import Bar, Point, Scale
from huatuo.report.shelf import Shelf
from huatuo.report.teller import Teller
from reviews import findings
from reviews.closing import Count
from reviews.findings import Findings
from reviews.people import People
from reviews.protocol import CRITERIA, SAFETY_KINDS, Criterion, Protocol, Study
from reviews.reading import Queue, Reading
from reviews.records import PreparedPair, PreparedTurn, Span, VoteRow, winner_of
from reviews.store import Store

NOW = datetime(2026, 11, 20, tzinfo=UTC)
TITLES = {"mix": "华佗-混合 <b>", "distil": "华佗-蒸馏"}
TELLERS = {"zh": Teller(TITLES, "zh"), "en": Teller({}, "en")}
FORMULA = '=HYPERLINK("http://x")'


def votes(number: int, names: tuple[str, ...] = ("distil", "mix", "third"), seed: int = 1, *, raters: int = 6,
          choices: tuple[str, ...] = ("left", "right", "tie", "both_bad"), cases: int = 20) -> list[VoteRow]:  # fmt: skip
    rng = random.Random(seed)
    found = []
    for n in range(number):
        a, b = rng.sample(names, 2)
        choice: Any = rng.choices(choices, [6, 3, 2, 1][: len(choices)])[0]
        left_is: Any = rng.choice("ab")
        spans = (
            (Span(rng.choice(["left", "right"]), 1, 0, 2, SAFETY_KINDS[0]),)
            if rng.random() < 0.2
            else ()
        )  # type: ignore[arg-type]
        ratings = {
            "left_diagnosis": rng.randint(1, 5),
            "right_diagnosis": rng.randint(1, 5),
            "pref_warmth": rng.randint(1, 5),
        }
        found.append(VoteRow(
            assignment_id=f"{n:032x}", comparison_id=f"c{n // 3}{a}{b}", rater=1 + rng.randrange(raters), study="s",
            kind="prepared", contestant_a=a, contestant_b=b, choice=choice, winner=winner_of(choice, left_is),
            left_is=left_is, turns=1, department=(FORMULA, "儿科")[n % 2], intent="", language="zh",
            external_id=f"k{n % cases}", source="", reason="", ratings=ratings, seconds=rng.uniform(5, 90),
            revisions=1, at=NOW - timedelta(hours=n), spans=spans, fast=n == 3,
        ))  # fmt: skip
    return found


def study(state: Any = "frozen", **more: Any) -> Study:
    criteria = (CRITERIA["diagnosis"], Criterion("warmth", "preference", "关怀", "Warmth"))
    protocol = Protocol(
        "s", "研究 <script>", "Study <script>", criteria=criteria, overlap=3, **more
    )
    return Study(
        protocol, state, protocol.sha256, NOW, NOW, close_reason="every pair has its votes"
    )


def find(rows: list[VoteRow], filed: Study | None = None, judges: Any = None) -> Findings:
    looks = {v.comparison_id: (0.2, -0.1) for v in rows}
    read = Reading(
        "s", filed, tuple(rows), (), tuple(rows), looks, Queue(40, 0, 2, 1), 9, "ab" * 32,
        Count(len(rows), ((9, 3), (0, 0)), 40, 30),
    )  # fmt: skip
    return findings.find(read, now=NOW, judges=judges)


@pytest.fixture(scope="module")
def whole() -> Findings:
    rows = votes(150)
    judge = {v.comparison_id: v.winner for v in rows}
    return find(rows, study("closed", gold={"k1": "mix"}), {"a judge": judge})


CASES: dict[str, Callable[[], Findings]] = {
    "no votes": lambda: find([]),
    "no votes, a protocol": lambda: find([], study("draft")),
    "one vote": lambda: find(votes(1)),
    "one rater": lambda: find(votes(30, raters=1), study()),
    "all ties": lambda: find(votes(30, choices=("tie",)), study()),
    "two models": lambda: find(votes(60, ("mix", "distil")), study()),
    "nothing left but leaks": lambda: findings.find(
        Reading("s", None, (), tuple(votes(5)), (), {}, Queue(9, 0, 0, 0), 3, ""), now=NOW
    ),
    "disconnected": lambda: find(
        [*votes(20, ("mix", "distil")), *(replace(v, assignment_id="f" + v.assignment_id[1:]) for v in votes(20, ("x", "y")))]
    ),
}  # fmt: skip


class Whole(HTMLParser):
    """Every tag is closed in order; what it refers to is kept."""

    EMPTY = ("meta", "br", "rect", "line", "circle", "polygon", "path")

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [v or "" for k, v in attrs if k in ("src", "href", "action", "style")]
        self.outside += [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.EMPTY:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("name", [*CASES, "whole"])
def test_a_report_is_whole_whatever_the_votes(name: str, language: Any, whole: Findings) -> None:
    found = whole if name == "whole" else CASES[name]()
    text = page.document(found, TELLERS, language)
    parser = Whole()
    parser.feed(text)
    assert parser.stack == [] and "script" not in parser.tags and parser.outside == []
    assert not re.search(
        r"(?<![\w.])(?:nan|inf|None|Infinity)(?!\w)",
        re.sub(r"<style>.*?</style>", "", text, flags=re.S),
    )
    assert not re.search(r"https?://(?!www\.w3\.org)", text.replace("http://x", ""))
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(svg)
    json.loads(files.as_json(found))


def test_words_from_outside_stay_words(whole: Findings) -> None:
    text = page.document(whole, TELLERS, "zh")
    assert "<b>" not in text and "华佗-混合 &lt;b&gt;" in text
    assert "研究 &lt;script&gt;" in text


def test_every_figure_has_a_csv_that_holds_what_the_report_says(whole: Findings) -> None:
    tables = {
        name.split("_", 1)[1].removesuffix(".csv"): list(
            csv.DictReader(io.StringIO(body.decode("utf-8-sig")))
        )
        for name, body in files.figures(whole, TELLERS["zh"]).items()
    }
    expected = {"pairs", "ranking", "heat", "contrasts", "departments", "safety", "scales", "differences",
                "preferences", "agreement", "raters", "rater_pairs", "position", "styled_ranking", "times",
                "judges", "power", "evidence", "closing", "sensitivity"}  # fmt: skip
    assert tables.keys() == expected
    for duel, row in zip(whole.headline.duels, tables["pairs"], strict=True):
        assert (row["first"], row["second"]) == (duel.result.first, duel.result.second)
        assert int(row["votes"]) == duel.result.total
        assert float(row["decisive_low"]) == duel.decisive.low
    scores = {row["contestant"]: float(row["score"]) for row in tables["ranking"]}
    assert scores == {r.name: r.score.value for r in whole.headline.board.ratings}
    assert min(scores.values()) < 0
    for agreed, row in zip(("alpha", "ordinal"), tables["agreement"], strict=False):
        assert float(row["value"]) == getattr(whole.concord, agreed).value
    assert tables["agreement"][3] == {"measure": "fleiss", "value": "", "low": "", "high": "",
                                      "shared": tables["agreement"][3]["shared"], "why": "uneven_panel"}  # fmt: skip
    assert {row["department"] for row in tables["departments"]} == {"'" + FORMULA, "儿科"}
    for rows in tables.values():
        for cell in (cell for row in rows for cell in row.values()):
            if cell[:1] in "=+-@" and cell:
                assert math.isfinite(float(cell)), cell


def test_the_methods_paragraph_says_what_was_done(whole: Findings) -> None:
    assert whole.study is not None
    told = {language: methods.paragraph(whole, teller) for language, teller in TELLERS.items()}
    for words in told.values():
        assert "\n" not in words
        for part in (whole.study.sha256, "Davidson", "Wilson", "Holm", "Krippendorff",
                     "Clopper–Pearson", "NumPy", "Python", "2026-11-20", "0.05", str(whole.counts.votes)):  # fmt: skip
            assert part in words, part
    clustered = TELLERS["en"].say(
        f"report.methods.clustered.{whole.headline.board.clustered_by}",
        clusters=whole.headline.board.clusters,
    )
    assert clustered in told["en"] and "the widest intervals" in told["en"]
    assert "6 physicians cast 150 votes" in told["en"]
    assert "1 votes were faster" in told["en"] and "No vote was excluded" in told["en"]
    assert "6 位医生" in told["zh"] and "150 票" in told["zh"]
    few = find(votes(12, ("mix", "distil"), raters=2))
    assert "Fewer than" not in methods.paragraph(few, TELLERS["en"])
    assert "With fewer than 5 physicians" in methods.paragraph(few, TELLERS["en"])
    assert "No protocol was filed" in methods.paragraph(few, TELLERS["en"])


def test_a_dean_reads_who_is_ahead_and_how_many_votes_are_missing() -> None:
    def told(wins: int, losses: int, language: Any) -> str:
        rows = [
            replace(v, choice=c, left_is="a", winner=winner_of(c, "a"), contestant_a="mix", contestant_b="distil",
                    comparison_id=f"c{n}", external_id=f"k{n % 30}")
            for n, (v, c) in enumerate(zip(votes(wins + losses), ["left"] * wins + ["right"] * losses, strict=True))
        ]  # fmt: skip
        return contents.summary(find(rows, study()), TELLERS[language])[0]

    assert "华佗-混合 <b> 胜过 华佗-蒸馏：80\u00a0% 对 20\u00a0%" in told(80, 20, "zh")
    assert "结论已稳定" in told(80, 20, "zh") and "还差" not in told(80, 20, "zh")
    assert "distil beats mix: 80\u00a0% to 20\u00a0%" in told(20, 80, "en")
    assert "尚分不出高下" in told(52, 48, "zh") and "票。" in told(52, 48, "zh")
    assert re.search(r"about [\d,]+ more votes are needed", told(56, 44, "en"))
    assert "Too few votes" in told(4, 3, "en")
    assert "no number of votes" in told(30, 30, "en")


def test_a_clear_gap_that_hangs_on_a_few_physicians_asks_for_more_of_them() -> None:
    """Four physicians always choose one side, two always the other: 67 of 100 votes, and nothing is settled."""
    first = sorted({v.rater for v in votes(100)})[:4]
    rows = [
        replace(v, choice=c, left_is="a", winner=winner_of(c, "a"), contestant_a="mix", contestant_b="distil",
                comparison_id=f"c{n}", external_id=f"k{n}")
        for n, v in enumerate(votes(100)) for c in ["left" if v.rater in first else "right"]
    ]  # fmt: skip
    zh, en = (contents.summary(find(rows, study()), TELLERS[lang])[0] for lang in ("zh", "en"))
    assert "尚分不出高下" in zh and "多几位医生比多几票更有用" in zh and "大约还差" not in zh
    assert "cannot be told apart yet" in en and "more physicians help more than more votes" in en


@pytest.mark.parametrize(
    ("share", "words"),
    [(None, "—"), (0.0, "0\u00a0%"), (1.0, "100\u00a0%"), (0.004, "0.4\u00a0%"), (0.0004, "0.04\u00a0%"), (0.623, "62\u00a0%")],
)  # fmt: skip
def test_shares_are_fine_near_the_ends(share: float | None, words: str) -> None:
    assert TELLERS["zh"].percent(share) == words


def test_long_names_never_run_into_the_numbers() -> None:
    name = "一个名字特别特别长的模型" * 4
    point = Point(name, 0.5, 0.1, 0.9, "+0.50 (+0.10 to +0.90)")
    drawing = figures.forest([point], Scale(0, 1, 0.5, str), "t")
    label = re.search(r'<text x="0"[^>]*>([^<]*)</text>', drawing)
    assert label and label[1].endswith("…")
    note = 22 * 8.6
    assert len(label[1]) * 2 * 9.4 + note < figures.WIDTH + 20
    assert figures.bars([Bar("a", "n = 0", (0, 0, 0, 0))], ["w"] * 4, "t").count("<rect") == 4


@pytest.fixture
def record(tmp_path: Path) -> Iterator[tuple[Path, Store]]:
    path = tmp_path / "reviews.sqlite3"
    store = Store.open(path, rng=random.Random(1))
    people = People(store.database)
    raters = [people.add_user(f"d{i}", "physician", "-", "t").id for i in range(3)]
    turn = (PreparedTurn("q", "一个长一些的回答", "短"),)
    store.add_prepared(
        "small", [PreparedPair(f"k{i}", "mix", "distil", turn) for i in range(5)], "t"
    )
    store.file_study(Protocol("small", "小", "Small", overlap=3), "t")
    store.file_study(Protocol("empty", "空", "Empty"), "t")
    for rater in raters:
        while (given := store.next_prepared(rater, "small")) is not None:
            store.cast_vote(given.id, rater, "left" if given.left_is == "a" else "tie", seconds=9.0)
    yield path, store
    store.close()


def test_the_command_writes_the_whole_folder_and_says_the_finding(
    record: tuple[Path, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = record
    comparison = store.votes("small")[0].comparison_id
    verdicts = tmp_path / "judge.jsonl"
    rows = [{"comparison": comparison, "winner": "mix"}, {"case": "k3", "winner": "tie"}]
    verdicts.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    out = tmp_path / "out"
    asked = ["small", "--data", str(path.parent), "--out", str(out), "--language", "en"]
    assert main([*asked, "--judge", f"rules={verdicts}"]) == 0
    said = capsys.readouterr().out
    assert "distil" in said and str(out / "report.html") in said
    names = {p.name for p in out.iterdir()}
    assert names == {"report.html", "report.json", "methods.zh.txt", "methods.en.txt", "figures"}
    told = json.loads((out / "report.json").read_text("utf-8"))
    assert told["counts"]["votes"] == 15 and told["judges"]["rules"]["agreement"]["units"] in (1, 2)
    assert told["study"]["sha256"] in (out / "methods.en.txt").read_text("utf-8")
    first = (out / "report.html").read_text("utf-8")
    assert main([*asked, "--judge", f"rules={verdicts}"]) == 0
    assert (out / "report.html").read_text("utf-8") == first
    (out / "mine.txt").write_text("kept")
    assert main(asked) == 1 and (out / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("study_name", "line", "says"),
    [
        ("nobody", "", "there are: empty, small"),
        ("empty", "", "no vote counts yet"),
        ("small", "{", "line 1: not JSON"),
        ("small", '{"case": "k1"}', '"winner" is needed'),
        ("small", '{"winner": "mix"}', '"comparison" or "case" is needed'),
        ("small", '{"case": "k1", "winner": "somebody"}', "tie, both_bad, not 'somebody'"),
    ],
)  # fmt: skip
def test_what_cannot_be_reported_is_refused_and_nothing_is_written(
    record: tuple[Path, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    study_name: str, line: str, says: str,
) -> None:  # fmt: skip
    file = tmp_path / "judge.jsonl"
    file.write_text(line, "utf-8")
    out = tmp_path / "out"
    asked = [study_name, "--data", str(record[0].parent), "--out", str(out)]
    assert main([*asked, *(["--judge", f"j={file}"] if line else [])]) == 1
    assert says in capsys.readouterr().err and not out.exists()


def test_a_record_that_is_not_there_is_not_made(tmp_path: Path, capsys: Any) -> None:
    assert main(["s", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 1
    assert "there is no record" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_findings_are_kept_until_the_record_changes(record: tuple[Path, Store]) -> None:
    _, store = record
    turn = (PreparedTurn("q", "a", "b"),)
    store.add_prepared("open", [PreparedPair("k", "mix", "distil", turn)], "t")
    rater = People(store.database).add_user("late", "physician", "-", "t").id
    given = store.next_prepared(rater, "open")
    assert given is not None
    store.cast_vote(given.id, rater, "tie")
    shelf = Shelf(store)
    assert shelf.kept("open") is None
    first = shelf.get("open")
    assert shelf.get("open") is first and shelf.kept("open") is first
    store.cast_vote(given.id, rater, "both_bad", revise=True)
    assert shelf.kept("open") is None
    second = shelf.get("open")
    assert second.seq > first.seq and second.counts.votes == first.counts.votes == 1
    assert [d.result.both_bad for d in second.headline.duels] == [1]
