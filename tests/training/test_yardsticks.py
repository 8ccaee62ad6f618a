"""Agreement between yardsticks counts what both decide, and is the same whichever way a pair is turned."""

import contextlib
from pathlib import Path

import pytest

from huatuo.errors import ConfigError
from reviews.database import DEFAULT_NAME
from reviews.export import export
from reviews.people import People
from reviews.records import PreparedPair, PreparedTurn
from reviews.store import Store
from training.data import BadData
from training.yardsticks import Yardstick, agreement, of_metric, of_verdicts, of_votes, read_votes

ORDER = ("a", "b", "c", "d")


def row(id: str, a: str, b: str, winner: str | None) -> dict[str, object]:
    return {"id": id, "model_a": a, "model_b": b, "winner": winner}


def test_rank_correlation_is_spearmans_and_absent_for_two_models() -> None:
    one = Yardstick("one", dict(zip(ORDER, (4, 3, 2, 1), strict=True)), {})
    two = Yardstick("two", dict(zip(ORDER, (9.0, 7.5, 1.0, 2.0), strict=True)), {})
    (found,) = agreement([one, two], ORDER)["between"]
    assert found["rank_correlation"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    few = Yardstick("few", {"a": 1, "b": 2}, {})
    assert agreement([one, few], ORDER)["between"][0]["rank_correlation"] is None
    flat = Yardstick("flat", dict.fromkeys(ORDER, 1.0), {})
    assert agreement([one, flat], ORDER)["between"][0]["rank_correlation"] is None


def test_only_pairs_that_both_decide_count() -> None:
    one = Yardstick("one", {}, {("a", "b"): 1, ("a", "c"): -1, ("b", "c"): 0.0})
    two = Yardstick("two", {}, {("a", "b"): 0.2, ("a", "c"): 0.1, ("b", "c"): 1, ("c", "d"): 1})
    found = agreement([one, two], ("c", "b", "a", "d"))
    assert found["between"][0]["same_winner"]["same"] == 1
    assert found["between"][0]["same_winner"]["decided"] == 2
    assert [(p["a"], p["b"]) for p in found["pairs"]] == [("c", "b"), ("c", "a"), ("c", "d"), ("b", "a")]  # fmt: skip
    assert found["pairs"][1]["says"]["one"]["ahead"] == "c"


def test_turning_every_verdict_round_changes_nothing() -> None:
    rows = [row("1", "b", "a", "a"), row("2", "b", "a", "tie"), row("3", "b", "a", None)]
    turned = [row("1", "a", "b", "b"), row("2", "a", "b", "tie"), row("3", "a", "b", None)]
    share = {"value": 0.75, "low": 0.6, "high": 0.9}
    other = {"value": 0.25, "low": 0.1, "high": 0.4}
    one = of_verdicts([{"model_a": "b", "model_b": "a", "share": share}], rows)
    two = of_verdicts([{"model_a": "a", "model_b": "b", "share": other}], turned)
    assert one == two
    assert one.pairs == {("a", "b"): -0.5} and one.sure == {("a", "b")}
    assert one.of == {"a": 0.25, "b": 0.75} and one.each[("a", "b")] == {"1": -1, "2": 0}
    share = {"value": 0.75, "low": 0.4, "high": 0.9}  # its interval holds one half
    assert not of_verdicts([{"model_a": "b", "model_b": "a", "share": share}], rows).sure


def test_a_metric_is_sure_when_its_interval_leaves_out_0() -> None:
    rows = [
        {"metric": "gleu", "a": "b", "b": "a", "difference": 0.2, "low": 0.1, "high": 0.3},
        {"metric": "gleu", "a": "a", "b": "c", "difference": 0.2, "low": -0.1, "high": 0.3},
    ]
    stick = of_metric("gleu", "gleu", {"a": 0.1, "b": 0.3, "c": 0.0}, rows)
    assert stick.pairs == {("a", "b"): -0.2, ("a", "c"): 0.2} and stick.sure == {("a", "b")}


def test_votes_are_read_from_a_record_and_from_its_export_alike(tmp_path: Path) -> None:
    with contextlib.closing(Store.open(tmp_path / DEFAULT_NAME)) as store:
        rater = People(store.database).add_user("doctor", "physician", "hash", "x").id
        pairs = [
            PreparedPair(f"c{n}", "good", "poor", (PreparedTurn(f"问{n}", "好答", "差答"),))
            for n in range(4)
        ]
        store.add_prepared("s", pairs, "test")
        for choice in ("left", "right", "tie", "both_bad"):
            assignment = store.next_prepared(rater, "s")
            assert assignment is not None
            store.cast_vote(assignment.id, rater, choice)
        export(store.database, tmp_path / "out")
    record = read_votes(tmp_path, "", ("good", "poor"))
    exported = read_votes(tmp_path / "out", "s", ("good", "poor"))
    figures, stick = of_votes(record)
    other, again = of_votes(exported)
    assert {**figures, "source": ""} == {**other, "source": ""} and stick == again
    assert (figures["votes"], figures["raters"]) == (4, 1)
    pair = figures["pairs"][0]
    assert pair["tie"] == 2 and pair["both_bad"] == 1
    (turned,) = of_votes(record, ("poor", "good"))[0]["pairs"]
    assert (turned["a"], turned["win"], turned["loss"]) == ("poor", pair["loss"], pair["win"])
    assert turned["share"]["value"] == pytest.approx(1 - pair["share"]["value"])
    assert turned["share"]["low"] == pytest.approx(1 - pair["share"]["high"])
    with pytest.raises(ConfigError, match="holds neither"):
        read_votes(tmp_path / "nowhere", "", ("good", "poor"))
    file = tmp_path / "out/votes.csv"
    file.write_text(file.read_text("utf-8-sig").replace('"both_bad"', '"perhaps"', 1), "utf-8")
    with pytest.raises(BadData, match=r"votes\.csv:\d: choice"):
        read_votes(tmp_path / "out", "s", ("good", "poor"))


def test_of_an_export_only_votes_count_and_spreadsheet_marks_are_taken_off(tmp_path: Path) -> None:
    head = "study,purpose,case,rater,contestant_a,contestant_b,choice,left_is\n"
    rows = ["s,vote,'=1,1,'=good,poor,left,a", "s,adjudication,'=1,2,'=good,poor,right,a"]
    file = tmp_path / "votes.csv"
    file.write_text(head + "\n".join(rows) + "\n", "utf-8")
    found = read_votes(tmp_path, "", ("=good", "poor"))
    assert (found.cases, found.raters, found.left_out) == (["=1"], 1, 0)
    assert of_votes(found)[0]["pairs"][0]["win"] == 1
    for old, new, told in (
        ("1,1", "1,x", "rater"),
        (",a\n", ",\n", "left_is"),
        ("'=1", "'", "case"),
    ):
        file.write_text((head + rows[0] + "\n").replace(old, new), "utf-8")
        with pytest.raises(BadData, match=rf"votes\.csv:2: .*{told}"):
            read_votes(tmp_path, "", ("=good", "poor"))
