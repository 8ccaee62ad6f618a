"""Votes of other tools: arena logs and Argilla's records, whole or not at all, nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reviews.errors import BadFile, BadStudy
from reviews.export import export
from reviews.importer import import_votes, main
from reviews.people import People
from reviews.store import Store


def talk(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "assistant" if i % 2 else "user", "content": t} for i, t in enumerate(texts)]


def battle(number: int, winner: str, judge: str = "judge_1", **more: Any) -> dict[str, Any]:
    return {
        "question_id": f"q{number}", "model_a": "zeta", "model_b": "alpha", "winner": winner,
        "judge": judge, "turn": 1, "language": "Chinese", "tstamp": 1683400000.5, "anony": True,
        "conversation_a": talk(f"问{number}", f"zeta 说 {number}"),
        "conversation_b": talk(f"问{number}", f"alpha 说 {number}"), **more,
    }  # fmt: skip


def write(file: Path, rows: list[Any]) -> Path:
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", "utf-8")
    return file


def dump(store: Store) -> str:
    return "\n".join(store.database.connection().conn.iterdump())


def test_a_battle_log_becomes_a_closed_study_with_its_winners(
    store: Store, people: People, wang: int, tmp_path: Path
) -> None:
    log = write(
        tmp_path / "log.jsonl",
        [
            battle(1, "model_a"), battle(1, "model_b", "judge_2"), battle(2, "tie"),
            battle(3, "tie (bothbad)"),
        ],
    )  # fmt: skip
    report = import_votes(store, [log], "arena", "arena")
    assert (report.recorded, report.pairs.added, report.raters, report.refused) == (4, 3, 2, ())
    votes = store.votes("arena")
    winners = [v.contestant_a if v.winner == "a" else v.contestant_b if v.winner == "b" else v.winner
               for v in votes]  # fmt: skip
    assert winners == ["zeta", "alpha", "tie", "both_bad"]
    assert [v.choice for v in votes[:2]] == ["left", "right"]  # model_a stood on the left
    assert votes[0].case == votes[1].case and {v.source for v in votes} == {"arena: log.jsonl"}
    study = store.study("arena")
    assert (
        study is not None and study.state == "closed" and "arena: log.jsonl" in study.protocol.notes
    )
    assert store.next_prepared(wang, "arena") is None
    assert store.counted_votes("arena").comparisons == 3
    store.verify_audit()
    for user in people.users():
        if user.id != wang:
            assert user.disabled_at is not None and user.role == "visitor"
            assert "judge" not in user.name and not user.password_hash.startswith("$argon2")
    assert export(store.database, tmp_path / "out", study="arena").counts["pairs.jsonl"] == 2


def test_a_second_import_adds_nothing_and_more_goes_under_another_name(
    store: Store, tmp_path: Path
) -> None:
    log = write(tmp_path / "log.jsonl", [battle(1, "model_a"), battle(2, "tie", "judge_2")])
    import_votes(store, [log], "arena", "arena")
    before = dump(store)
    again = import_votes(store, [log], "arena", "arena")
    assert (again.recorded, again.there, again.pairs.added) == (0, 2, 0)
    assert dump(store) == before
    for more in (battle(9, "tie"), battle(1, "tie", "judge_7")):
        with pytest.raises(BadStudy, match="under another name"):
            import_votes(store, [write(tmp_path / "m.jsonl", [more])], "arena", "arena")
        assert dump(store) == before


def test_a_judge_who_says_both_things_is_told(store: Store, tmp_path: Path) -> None:
    turned = battle(1, "model_b", model_a="alpha", model_b="zeta")
    turned["conversation_a"], turned["conversation_b"] = (
        turned["conversation_b"], turned["conversation_a"],
    )  # fmt: skip
    log = write(tmp_path / "l.jsonl", [battle(1, "model_a"), battle(1, "model_b"), turned])
    report = import_votes(store, [log], "x", "arena")
    assert (report.recorded, report.there) == (1, 1)
    assert [place for place, _ in report.refused] == ["l.jsonl: line 2"]


def test_the_newer_schema_and_two_turns_of_which_one_was_judged(
    store: Store, tmp_path: Path
) -> None:
    parts = [{"type": "text", "text": "甲", "image": None}]
    newer = {
        "id": "u-1", "model_a": "a1", "model_b": "b1", "winner": "both_bad", "language": "zh",
        "evaluation_session_id": "s-1", "timestamp": "2025-07-01 10:00:00",
        "conversation_a": [{"role": "user", "content": parts}, {"role": "assistant", "content": parts}],
        "conversation_b": talk("甲", "乙"),
    }  # fmt: skip
    two = battle(2, "model_a", conversation_a=talk("一", "A1", "二", "A2"))
    two["conversation_b"] = talk("一", "B1", "二", "B2")
    whole = {**two, "turn": 2, "question_id": "q3"}
    other = {**two, "conversation_b": talk("一", "B9", "二", "B2"), "judge": "j9"}
    log = write(tmp_path / "l.jsonl", [newer, two, whole, other])
    report = import_votes(store, [log], "x", "arena")
    assert report.recorded == 4 and report.pairs.added == 4
    assert [v.turns for v in store.votes("x")] == [1, 1, 2, 1]


BAD = [
    ({"winner": "model_c"}, "line 2: winner is 'model_c'"),
    ({"winner": None}, "line 2: winner must be text"),
    ({"model_b": "zeta"}, "are the same"),
    ({"model_a": ""}, "model_a is empty"),
    ({"conversation_a": []}, "list of messages"),
    ({"conversation_a": talk("问", "答", "又问")}, "end with an answer"),
    ({"conversation_a": talk("问", "")}, "content is empty"),
    ({"conversation_a": talk("问", "x" * 20001)}, "20001 characters"),
    ({"conversation_a": [{"role": "assistant", "content": "答"}]}, "role must be user"),
    ({"conversation_a": [3, 4]}, "role must be user"),
    ({"conversation_b": talk("一", "B1", "二", "B2"), "turn": None}, "different numbers of turns"),
    ({"conversation_a": [{"role": "user", "content": [{"type": "image"}]}]}, "only text"),
    ({"turn": "1"}, "turn must be"),
    ({"judge": {"a": 1}}, "judge must be"),
]


@pytest.mark.parametrize(("change", "why"), BAD)
def test_a_bad_line_is_named_and_nothing_is_imported(
    store: Store, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    log = write(tmp_path / "log.jsonl", [battle(1, "tie"), {**battle(2, "tie"), **change}])
    before = dump(store)
    with pytest.raises(BadFile, match=why) as found:
        import_votes(store, [log], "arena", "arena")
    assert found.value.place.startswith("line 2") and dump(store) == before


def test_an_own_study_takes_no_foreign_votes(
    filled: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write(tmp_path / "log.jsonl", [battle(1, "tie")])
    before = dump(filled)
    with pytest.raises(BadStudy, match="holds pairs already"):
        import_votes(filled, [log], "ten", "arena")
    assert dump(filled) == before
    command = [str(log), "--format", "arena", "--data", str(tmp_path / "data"), "--study"]
    assert main([*command, "ten"]) == 1 and "nothing was imported" in capsys.readouterr().err
    assert main([*command, "new"]) == 0 and "1 votes recorded" in capsys.readouterr().out


def record(responses: Any, **more: Any) -> dict[str, Any]:
    fields = {"instruction": "头痛怎么办？", "response-1": "多喝水", "response-2": "去医院"}
    return {"id": "r1", "fields": fields, "responses": responses, **more}


ARGILLA = [
    ({"preference": [{"value": "response-2", "user_id": "u1"}]}, ["right"]),
    ({"preference": [{"value": "tie", "user_id": "u1"}, {"value": "1", "user_id": "u2"}]}, ["tie", "left"]),
    ({"score": [{"value": 1, "user_id": "u1"}]}, ["left"]),
    ({"score": [{"value": 3, "user_id": "u1"}]}, ["tie"]),
    ({"rating_response-1": [{"value": 2, "user_id": "u"}], "rating_response-2": [{"value": 4, "user_id": "u"}]}, ["right"]),
    ({"order": [{"value": [{"value": "response-1", "rank": 2}, {"value": "response-2", "rank": 1}], "user_id": "u"}]}, ["right"]),
    ([{"user_id": "u1", "status": "submitted", "values": {"preference": {"value": "Both bad"}}}], ["both_bad"]),
    ({"preference": [{"value": "1", "user_id": "u"}, {"value": "2", "user_id": "v", "status": "draft"}]}, ["left"]),
]  # fmt: skip


@pytest.mark.parametrize(("responses", "choices"), ARGILLA)
def test_argillas_questions_become_choices(
    store: Store, tmp_path: Path, responses: Any, choices: list[str]
) -> None:
    file = tmp_path / "records.json"
    file.write_text(json.dumps([record(responses)]), "utf-8")
    report = import_votes(store, [file], "arg", "argilla")
    votes = store.votes("arg")
    assert [v.choice for v in votes] == choices and report.recorded == len(choices)
    assert {v.contestant_a for v in votes} == {"response-1"}
    assert import_votes(store, [file], "arg", "argilla").recorded == 0


def test_argillas_models_scales_and_comments_are_kept(store: Store, tmp_path: Path) -> None:
    told = record(
        {"score": [{"value": 8, "user_id": "u"}], "comment": [{"value": "更安全", "user_id": "u"}]},
        metadata={"response-1-model": "m-one", "response-2-model": "m-two"},
    )
    questions = [
        {
            "name": "score",
            "settings": {"type": "rating", "options": [{"value": v} for v in range(11)]},
        }
    ]
    file = tmp_path / "records.json"
    file.write_text(json.dumps({"questions": questions, "records": [told]}), "utf-8")
    import_votes(store, [file], "arg", "argilla")
    (vote,) = store.votes("arg")
    assert (vote.winner, vote.contestant_b, vote.reason) == ("b", "m-two", "更安全")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "JSON list of records"),
        ({"records": 3}, "JSON list of records"),
        ([3], "record 1: an object with fields"),
        ([record({"preference": [{"value": "zebra", "user_id": "u"}]})], "record 1, user u.*names no answer"),
        ([record({"score": [{"value": 9, "user_id": "u"}]})], "not on the scale"),
        ([record({"score": [{"user_id": "u"}]})], "as Argilla writes them"),
        ([record({"order": [{"value": [{"value": "response-1"}], "user_id": "u"}]})], "must have a rank"),
        ([record({})], "no record has a submitted response"),
        ([{"fields": {"a": "1", "b": "2"}}], "with --fields"),
    ],
)  # fmt: skip
def test_bad_records_are_named(store: Store, tmp_path: Path, content: Any, why: str) -> None:
    file = tmp_path / "records.json"
    file.write_text(json.dumps(content), "utf-8")
    before = dump(store)
    with pytest.raises(BadFile, match=why):
        import_votes(store, [file], "arg", "argilla")
    assert dump(store) == before
