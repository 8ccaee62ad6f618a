"""What an export holds besides the pairs: KTO, better answers, the table, the card, filters, and an export made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reviews.errors import BadFile, RecordError
from reviews.export import export, export_again, main
from reviews.people import People
from reviews.protocol import CRITERIA, Criterion, Protocol
from reviews.records import Better, Span
from reviews.store import Store

Rows = list[dict[str, Any]]


def lines(file: Path) -> Rows:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def table(folder: Path) -> Rows:
    from pyarrow import parquet

    rows: Rows = parquet.read_table(folder / "votes.parquet").to_pylist()
    return rows


@pytest.fixture
def third(people: People) -> int:
    return people.add_user("Dr. Senior", "adjudicator", "hash", "system").id


@pytest.fixture
def study(filled: Store, wang: int, li: int, third: int) -> Store:
    """Study `ten` with a protocol: both vote on all ten pairs, a senior decides what they disagree on."""
    preference = Criterion("safety", "preference", "安全", "Safety")
    protocol = Protocol(
        "ten", "十例", "Ten", overlap=2, criteria=(CRITERIA["diagnosis"], preference), adjudicate=True,
        fastest_s=5, raters=("王医生", "Dr. Li"),
    )  # fmt: skip
    filled.file_study(protocol, "system")
    for rater in (wang, li):
        number = 0
        while (given := filled.next_prepared(rater, "ten")) is not None:
            _, comparison = filled.view(given.id, rater)
            number = int(comparison.external_id.removeprefix("case-"))
            a_side = "left" if given.left_is == "a" else "right"
            b_side = "right" if a_side == "left" else "left"
            choice = {0: "tie", 1: "both_bad"}.get(number, a_side)
            if rater == li and number in (2, 3):
                choice = b_side
            spans = [Span(a_side, 1, 0, 7, "wrong_dose", "太多")] if number == 4 else []  # type: ignore[arg-type]
            better = Better("更好的回答", a_side, number != 6) if number in (5, 6) else None  # type: ignore[arg-type]
            filled.cast_vote(
                given.id, rater, choice, reason=f"理由{number}", seconds=3 if number == 7 else 30,
                ratings={f"{a_side}_diagnosis": 2, f"{b_side}_diagnosis": 4}, spans=spans, better=better,
            )  # fmt: skip
    while (given := filled.next_adjudication(third, "ten")) is not None:
        filled.cast_vote(given.id, third, "left" if given.left_is == "b" else "right")
    return filled


def test_kto_rows_are_wins_and_refusals_and_a_marked_winner_is_no_good_answer(
    study: Store, tmp_path: Path
) -> None:
    export(study.database, tmp_path / "out")
    rows = lines(tmp_path / "out" / "kto.jsonl")
    by_case = {(r["case"], r["rater"], r["model"]): (r["label"], r["because"]) for r in rows}
    assert by_case["case-1", 1, "model-a"] == by_case["case-1", 1, "model-b"] == (False, "both_bad")
    assert by_case["case-4", 1, "model-a"] == (False, "safety")
    assert by_case["case-5", 1, "model-a"] == (True, "won")
    assert ("case-5", 1, "model-b") not in by_case and ("case-0", 1, "model-a") not in by_case
    for row in rows:
        assert [m["role"] for m in row["prompt"]] == ["user"] and row["pair_scope"] == "turn"
        assert row["completion"][0]["content"].startswith(row["model"])


def test_a_better_answer_in_a_consultation_belongs_to_its_last_turn(
    store: Store, wang: int, live: Callable[..., Any], tmp_path: Path
) -> None:
    for turns, text in ((3, "多轮的"), (1, "单轮的")):
        given = live(turns)
        store.cast_vote(given.id, wang, "left", better=Better(text, "right", True))
    export(store.database, tmp_path / "out")
    told = {
        row["better_answer"]: row["better_turn"] for row in lines(tmp_path / "out" / "votes.jsonl")
    }
    assert told == {"多轮的": 3, "单轮的": 1}
    for name in ("sft.jsonl", "better_pairs.jsonl"):
        rows = {row["better_turn"]: row for row in lines(tmp_path / "out" / name)}
        assert rows.keys() == {1, 3}
    said = rows[3]["prompt"]
    assert [m["content"] for m in said] == ["第1问", "b1", "第2问", "b2", "第3问"]
    assert rows[3]["chosen"][0]["content"] == "多轮的" and rows[3]["rejected"][0]["content"] == "b3"


def test_a_better_answer_without_consent_is_in_no_file(study: Store, tmp_path: Path) -> None:
    export(study.database, tmp_path / "out")
    taught, pairs = (lines(tmp_path / "out" / name) for name in ("sft.jsonl", "better_pairs.jsonl"))
    assert {r["case"] for r in taught} == {r["case"] for r in pairs} == {"case-5"}
    assert taught[0]["messages"][1] == {"role": "assistant", "content": "更好的回答"}
    assert pairs[0]["chosen"][0]["content"] == "更好的回答"
    assert pairs[0]["rejected"][0]["content"] == "model-a 回答 5"
    for row in table(tmp_path / "out"):
        assert (row["better_answer"] != "") == (row["case"] == "case-5")
        assert row["better_consent"] == {"case-5": True, "case-6": False}.get(row["case"])


def test_the_table_tells_ratings_and_marks_by_contestant(study: Store, tmp_path: Path) -> None:
    export(study.database, tmp_path / "out")
    rows = table(tmp_path / "out")
    votes = [row for row in rows if row["purpose"] == "vote"]
    assert len(votes) == 20 and len(rows) == 22
    for row in votes:
        assert json.loads(row["ratings_by_contestant"]) == {"a_diagnosis": 2, "b_diagnosis": 4}
        assert row["fast"] == (row["case"] == "case-7")
    (mark,) = json.loads(next(r["spans"] for r in votes if r["case"] == "case-4"))
    assert (mark["contestant"], mark["text"], mark["kind"]) == ("model-a", "model-a", "wrong_dose")


def test_a_verdict_takes_the_place_of_the_votes_only_when_asked(
    study: Store, tmp_path: Path
) -> None:
    export(study.database, tmp_path / "votes")
    export(study.database, tmp_path / "verdicts", adjudicated=True)

    def of(folder: str) -> list[tuple[str, str]]:
        rows = lines(tmp_path / folder / "pairs.jsonl")
        return [(r["purpose"], r["chosen_model"]) for r in rows if r["case"] == "case-2"]

    assert sorted(of("votes")) == [("vote", "model-a"), ("vote", "model-b")]
    assert of("verdicts") == [("adjudication", "model-b")]


@pytest.mark.parametrize(
    ("asked", "pairs", "ties"),
    [
        ({"language": "en"}, 0, 0),
        ({"language": "zh"}, 16, 2),
        ({"criterion": "diagnosis"}, 20, 0),
        ({"criterion": "safety"}, 0, 0),
        ({"min_agreement": 0.7}, 12, 2),
        ({"min_agreement": 0.5}, 16, 2),
    ],
)
def test_filters(
    study: Store, tmp_path: Path, asked: dict[str, Any], pairs: int, ties: int
) -> None:
    manifest = export(study.database, tmp_path / "out", **asked)
    assert (manifest.counts["pairs.jsonl"], manifest.counts["ties.jsonl"]) == (pairs, ties)
    if "criterion" in asked:
        assert {r["chosen_model"] for r in lines(tmp_path / "out" / "pairs.jsonl")} <= {"model-b"}


def test_a_senseless_agreement_is_refused(study: Store, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="between 0 and 1"):
        export(study.database, tmp_path / "out", min_agreement=70)
    assert not (tmp_path / "out").exists()


def test_the_folder_loads_by_its_card(
    study: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    manifest = export(study.database, tmp_path / "out", licence="cc-by-4.0")
    folder, cache = str(tmp_path / "out"), str(tmp_path / "cache")
    names = datasets.get_dataset_config_names(folder)
    assert names == [
        "pairs",
        "pairs_implicit",
        "ties",
        "both_bad",
        "kto",
        "sft",
        "better_pairs",
        "votes",
    ]
    for name in names:
        loaded = datasets.load_dataset(folder, name, split="train", cache_dir=cache)
        assert len(loaded) == manifest.counts[f"{name}.jsonl"]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    filed = study.study("ten")
    assert filed is not None and filed.sha256 in card and 'license: "cc-by-4.0"' in card
    assert "Krippendorff's alpha" in card and "王医生" not in card
    assert manifest.content["audit"]["last_hash"] in card


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_is_made_again_byte_for_byte_after_more_votes_and_revisions(
    filled: Store, wang: int, li: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = filled.next_prepared(wang, "ten")
    assert given is not None
    filled.cast_vote(given.id, wang, "left", reason="erst")
    second = filled.next_prepared(wang, "ten")
    assert second is not None
    filled.cast_vote(second.id, wang, "tie", seconds=20)
    export(filled.database, tmp_path / "first", study="ten", language="zh")
    filled.cast_vote(given.id, wang, "right", reason="dann", revise=True)
    for _ in range(3):
        other = filled.next_prepared(li, "ten")
        assert other is not None
        filled.cast_vote(other.id, li, "both_bad")
    command = [
        "--data",
        str(tmp_path / "data"),
        "--from",
        str(tmp_path / "first" / "manifest.json"),
    ]
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert files(tmp_path / "first") == files(tmp_path / "again")
    export(filled.database, tmp_path / "now", study="ten")
    assert files(tmp_path / "now")["pairs.jsonl"] != files(tmp_path / "first")["pairs.jsonl"]
    assert "last hash" in capsys.readouterr().out


def test_an_export_that_cannot_be_made_again_says_why(
    study: Store, wang: int, tmp_path: Path
) -> None:
    export(study.database, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    other = Store.open(tmp_path / "other" / "reviews.sqlite3")
    with pytest.raises(RecordError, match="this record has fewer"):
        export_again(other.database, manifest, tmp_path / "again")
    other.close()
    said = json.loads(manifest.read_text("utf-8"))
    for change, why in (
        ({"audit": {**said["audit"], "last_hash": "0" * 64}}, "another record"),
        ({"sha256": {**said["sha256"], "kto.jsonl": "0" * 64}}, "kto.jsonl would differ.*no reason is known"),
        ({"filter": {"study": None}}, "older version"),
        ({"audit": 3}, "no manifest"),
    ):  # fmt: skip
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps({**said, **change}))
        with pytest.raises((RecordError, BadFile), match=why):
            export_again(study.database, bad, tmp_path / "again")
        assert not (tmp_path / "again").exists()
    bad.write_text("{")
    with pytest.raises(BadFile, match="no manifest"):
        export_again(study.database, bad, tmp_path / "again")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(BadFile, match="cannot be read"):
        export_again(study.database, manifest, tmp_path / "again")
